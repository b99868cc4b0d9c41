// The AVX-512 kernels with VNNI for quantized weights: the shared algorithms compiled for this
// instruction set. Nothing but intrinsics and our own plain headers is included, and everything is
// in a namespace of its own, so that no instruction of this set can leak into a function that other
// files share.
#include <immintrin.h>

#include "kernels/cpu/exp_constants.h"
#include "kernels/cpu/targets.h"

namespace sluice::krn {
namespace avx512vnni {
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
}  // namespace avx512vnni

const KernelTable kAvx512VnniKernels = {
    "avx512vnni",         avx512vnni::matmul, avx512vnni::quantize_columns,
    avx512vnni::rms_norm, avx512vnni::rope,   avx512vnni::swiglu,
    avx512vnni::add_rows, avx512vnni::widen,  avx512vnni::attend};

const LimitProbe kAvx512VnniProbe = {2 * kLanes * avx512vnni::kProbeChains, avx512vnni::fma_chains,
                                     avx512vnni::read_sum, 8 * kLanes* avx512vnni::kProbeChains,
                                     avx512vnni::int8_chains};

}  // namespace sluice::krn
