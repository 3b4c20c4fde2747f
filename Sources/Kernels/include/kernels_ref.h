/// Scalar references: for each kernel `trips_x` of kernels.h, `trips_x_ref` with the same parameters.
/// They are the definition that the vector variants are tested against, and the portable path.
#ifndef TRIPS_KERNELS_REF_H
#define TRIPS_KERNELS_REF_H

#include "kernels.h"

#define TRIPS_REFERENCE(name) __typeof__(trips_##name) trips_##name##_ref;

/// Every kernel that is dispatched by instruction set.
#define TRIPS_EACH_KERNEL(X)                                        \
    X(sgemm) X(sgemm_pack) X(sgemm_pack_factor)                     \
    X(quantize_rows) X(igemm_pack) X(igemm) X(igemm_bytes) X(dequantize_rows) \
    X(attention) X(iattention) X(selection_dots) X(selection_scores) \
    X(layernorm_rows) X(weighted_rows) X(softmax_rows) X(transpose) X(activate) \
    X(convolve) X(depthwise) X(phases) X(finish)                                 \
    X(f16_to_f32) X(bf16_to_f32) X(planes_split) X(planes_merge)

TRIPS_EACH_KERNEL(TRIPS_REFERENCE)

#endif
