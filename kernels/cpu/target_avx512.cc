// The AVX-512 kernels: the shared algorithms compiled for this instruction set. Nothing but
// intrinsics and our own plain headers is included, and everything is in a namespace of its own, so
// that no instruction of this set can leak into a function that other files share.
#include <immintrin.h>

#include "kernels/cpu/exp_constants.h"
#include "kernels/cpu/targets.h"

namespace sluice::krn {
namespace avx512 {
namespace {

// Later files use earlier ones: the groups keep the order.
#include "kernels/cpu/vec_avx512.inl.h"

#include "kernels/cpu/pointwise.inl.h"

#include "kernels/cpu/quantized_block.inl.h"

#include "kernels/cpu/int8_avx512.inl.h"

#include "kernels/cpu/attention.inl.h"
#include "kernels/cpu/fetch.inl.h"
#include "kernels/cpu/matmul.inl.h"
#include "kernels/cpu/probe.inl.h"

#include "kernels/cpu/quantized_activations.inl.h"

#include "kernels/cpu/quantized_tile.inl.h"

#include "kernels/cpu/quantized_matmul.inl.h"

}  // namespace
}  // namespace avx512

const KernelTable kAvx512Kernels = {"avx512",         avx512::matmul, avx512::quantize_columns,
                                    avx512::rms_norm, avx512::rope,   avx512::swiglu,
                                    avx512::add_rows, avx512::widen,  avx512::attend};

const LimitProbe kAvx512Probe = {2 * kLanes * avx512::kProbeChains, avx512::fma_chains,
                                 avx512::read_sum, 8 * kLanes* avx512::kProbeChains,
                                 avx512::int8_chains};

}  // namespace sluice::krn
