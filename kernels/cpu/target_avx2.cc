// The AVX2 kernels: the shared algorithms compiled for this instruction set. Nothing but intrinsics
// and our own plain headers is included, and everything is in a namespace of its own, so that no
// instruction of this set can leak into a function that other files share.
#include <immintrin.h>

#include "kernels/cpu/exp_constants.h"
#include "kernels/cpu/targets.h"

namespace sluice::krn {
namespace avx2 {
namespace {

// Later files use earlier ones: the groups keep the order.
#include "kernels/cpu/vec_avx2.inl.h"

#include "kernels/cpu/pointwise.inl.h"

#include "kernels/cpu/quantized_block.inl.h"

#include "kernels/cpu/int8_avx2.inl.h"

#include "kernels/cpu/attention.inl.h"
#include "kernels/cpu/fetch.inl.h"
#include "kernels/cpu/matmul.inl.h"
#include "kernels/cpu/probe.inl.h"

#include "kernels/cpu/quantized_activations.inl.h"

#include "kernels/cpu/quantized_tile.inl.h"

#include "kernels/cpu/quantized_matmul.inl.h"

}  // namespace
}  // namespace avx2

const KernelTable kAvx2Kernels = {"avx2",         avx2::matmul, avx2::quantize_columns,
                                  avx2::rms_norm, avx2::rope,   avx2::swiglu,
                                  avx2::add_rows, avx2::widen,  avx2::attend};

const LimitProbe kAvx2Probe = {2 * kLanes * avx2::kProbeChains, avx2::fma_chains, avx2::read_sum,
                               8 * kLanes* avx2::kProbeChains, avx2::int8_chains};

}  // namespace sluice::krn
