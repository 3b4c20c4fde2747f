/// Hot loops over plain memory.
///
/// Conventions, everywhere:
/// - Matrices are row-major. `ldx` is the distance between rows of `x`, in elements.
/// - The weight of a Linear layer is `w` [N, K]: N outputs, K inputs; y = x wᵀ.
/// - Functions neither allocate nor start threads. A caller splits work by row and column ranges
///   [begin, end); pointers always address row 0 and column 0 of the whole matrix.
///   Results do not depend on how the work is split.
/// - Input and output may be the same array where a comment says "in place"; otherwise they must not
///   overlap.
/// - Sizes are trusted: callers check them. Zero rows, columns or elements are allowed.
///
/// Each kernel `trips_x` runs the variant for the best instruction set of this processor;
/// `kernels_ref.h` declares its scalar reference `trips_x_ref`.
#ifndef TRIPS_KERNELS_H
#define TRIPS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __clang__
#define _Nullable
#define _Nonnull
#else
#pragma clang assume_nonnull begin
#endif

// MARK: - Instruction sets

/// A set of kernels for one instruction set, in rising order of preference on the processors that have it.
typedef enum trips_path {
    TRIPS_PATH_SCALAR = 0,
    TRIPS_PATH_AVX2 = 1,        ///< AVX2, FMA, F16C
    TRIPS_PATH_AVX2_VNNI = 2,   ///< the same and AVX-VNNI
    TRIPS_PATH_AVX512 = 3,      ///< AVX-512 F, BW, DQ, VL
    TRIPS_PATH_AVX512_VNNI = 4, ///< the same and VNNI
    TRIPS_PATH_AVX512_AMX = 5,  ///< the same and AMX's tiles of bytes
    TRIPS_PATH_NEON = 6,        ///< 64-bit ARM
    TRIPS_PATH_NEON_DOT = 7,    ///< the same and dot products of bytes (DotProd)
    TRIPS_PATH_NEON_I8MM = 8,   ///< the same and products of matrices of bytes (I8MM)
} trips_path;

enum { TRIPS_PATH_COUNT = 9 };

/// Name of a path for reports: "scalar", "avx2", "avx2vnni", "avx512", "avx512vnni", "avx512amx", "neon", "neondot",
/// "neoni8mm".
const char *trips_path_name(trips_path path);

/// Whether this processor and operating system can run the path. The first call asks Linux for permission to use AMX tiles, for
/// which threads' signal stacks then need room, and checks that their products agree with those of vectors.
bool trips_path_available(trips_path path);

/// The path in use: the best one that is available, or the one forced.
trips_path trips_kernels_path(void);

/// Makes every later call of this thread use `path`; false (and no change) where it is not available. For tests.
bool trips_kernels_force(trips_path path);

// MARK: - Epilogues

typedef enum trips_activation {
    TRIPS_ACTIVATION_NONE = 0,
    TRIPS_ACTIVATION_GELU_ERF = 1,   ///< x Φ(x), exact
    TRIPS_ACTIVATION_GELU_TANH = 2,  ///< x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))
    TRIPS_ACTIVATION_QUICK_GELU = 3, ///< x sigmoid(1.702 x)
    TRIPS_ACTIVATION_RELU = 4,
    TRIPS_ACTIVATION_SIGMOID = 5,    ///< 1 / (1 + e⁻ˣ)
    TRIPS_ACTIVATION_SWISH = 6,      ///< x sigmoid(x)
    TRIPS_ACTIVATION_TANH = 7,
    TRIPS_ACTIVATION_ERF = 8,        ///< error function
    TRIPS_ACTIVATION_EXP = 9,        ///< eˣ, and 0 below −87
} trips_activation;

/// What follows a matrix product while its output is in cache: c = activation(c + bias) + residual.
typedef struct trips_epilogue {
    const float *_Nullable bias;     ///< [N]
    const float *_Nullable residual; ///< [M, N]; may be the output itself, but is faster apart
    size_t ldr;                      ///< row distance of `residual`
    const int32_t *_Nullable residual_rows; ///< [M], the row of `residual` that is added to each row of the output; the same row if absent
    trips_activation activation;
} trips_epilogue;

// MARK: - fp32 matrix product with packed weights

/// Columns of a packed panel. Ranges [n_begin, n_end) of products and packing start at a multiple of
/// this and end at one, or at N.
enum { TRIPS_PANEL = 32, TRIPS_PACK_ROWS = 16 };

/// Elements (floats) that `trips_sgemm_pack` needs for weights [n, k].
///
/// The layout is the same on every path: panels of TRIPS_PANEL outputs, each [K][TRIPS_PANEL], the
/// last one filled up with zeros.
size_t trips_sgemm_pack_size(size_t n, size_t k);

/// Packs outputs [n_begin, n_end) of weights w [N, K]. `rows` points to row n_begin of w, so a caller
/// can stream weights through a small buffer; ranges can be packed in any order and in parallel, and need to
/// start at a multiple of TRIPS_PACK_ROWS only.
void trips_sgemm_pack(float *packed, const float *rows, size_t ldw, size_t n, size_t k, size_t n_begin,
                      size_t n_end);

/// Packs a right factor that is used at once: b [K, N], or its transpose [N, K].
void trips_sgemm_pack_factor(float *packed, const float *b, size_t ldb, size_t n, size_t k, bool transposed);

/// The inverse of `trips_sgemm_pack`.
void trips_sgemm_unpack(float *rows, size_t ldw, const float *packed, size_t k, size_t n_begin, size_t n_end);

/// c[m, n] = epilogue(Σ_k a[m, k] w[n, k]) for m in [m_begin, m_end), n in [n_begin, n_end).
///
/// Each element is one chain of fused multiply-adds over ascending k, so results are bit-identical for
/// every split and on every path but the scalar one (which may lack fused multiply-add).
void trips_sgemm(const float *a, size_t lda, const float *packed, size_t n, size_t k, float *c, size_t ldc,
                 size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                 const trips_epilogue *_Nullable epilogue);

// MARK: - int8 matrix product

/// The best distance in bytes between quantized rows of k activations: whole cache lines, and no multiple of 1 KB, at which rows
/// would evict each other from the first cache. Other distances of at least k rounded up to a multiple of 4 work too.
size_t trips_quantized_row_size(size_t k);

/// Quantizes rows x [M, K] symmetrically, one scale per row:
/// scale[m] = max_k |x[m, k] s[k]| / 127, q[m, k] = 128 + round_to_even(x[m, k] s[k] / scale[m]),
/// where s is `input_scale` [K] (all 1 without it). A row of zeros has scale 0.
///
/// q is biased by 128 (it takes values 1…255), which is what the dot-product instructions want; the
/// packed weights carry the correction. Bytes from K to the next multiple of 4 are set to 128. A row whose
/// values are all below 1e-35 counts as zeros; one that holds a NaN or an infinity gets the scale NaN, and
/// outputs follow. Bit-identical on every path.
void trips_quantize_rows(uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k,
                         size_t rows, const float *_Nullable input_scale);

/// Bytes that `trips_igemm_pack` needs for weights [n, k] with scales per group of `group` inputs.
///
/// `group` is a positive multiple of 4, or 0: one scale per output. The layout is the same on every path:
/// panels of TRIPS_PANEL outputs; in each, per group: [K/4][TRIPS_PANEL][4] weights, then TRIPS_PANEL int32
/// corrections (−128 Σ w), then TRIPS_PANEL scales. K is filled up to a multiple of 4 with zeros.
size_t trips_igemm_pack_size(size_t n, size_t k, size_t group);

/// Groups of inputs: ⌈k / group⌉, or 1 where `group` is 0.
size_t trips_group_count(size_t k, size_t group);

/// Packs outputs [n_begin, n_end) of weights w [N, K] with scales [N][groups]. `rows` and `scales` point
/// to row n_begin. `packed` is 64-byte aligned.
void trips_igemm_pack(void *packed, const int8_t *rows, size_t ldw, const float *scales, size_t n, size_t k,
                      size_t group, size_t n_begin, size_t n_end);

/// The inverse of `trips_igemm_pack`, for the weights.
void trips_igemm_unpack(int8_t *rows, size_t ldw, const void *packed, size_t k, size_t group, size_t n_begin, size_t n_end);

/// Inputs of an int8 product at most: 32 bits hold their sums.
enum { TRIPS_MOST_INPUTS = 65536 };

/// c[m, n] = epilogue(scale[m] Σ_g scales[n, g] Σ_{k in g} (q[m, k] − 128) w[n, k]). Activations are
/// approximate, as the result is usually quantized next: error below 1e-5 max(1, |x|), of quick GELU 4e-5 max(1, |x|).
///
/// Inner sums are exact in 32 bits (K up to TRIPS_MOST_INPUTS; nothing saturates), so they are bit-identical on
/// every path; groups add up in fp32 in ascending order. `a` and `a_scale` come from `trips_quantize_rows`.
void trips_igemm(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                 size_t group, float *c, size_t ldc, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                 const trips_epilogue *_Nullable epilogue);

/// `trips_igemm` whose outputs are quantized as `trips_quantize_rows` does, each `part` columns as rows of their own: to bytes
/// q [N / part][rows][part] and scales [N / part][rows], of which the first M rows are written. `part` is a multiple of TRIPS_PANEL
/// up to TRIPS_MOST_PART; column ranges begin and end at multiples of it.
void trips_igemm_bytes(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                       size_t group, uint8_t *q, float *scales, size_t rows, size_t part, size_t m_begin, size_t m_end,
                       size_t n_begin, size_t n_end, const float *_Nullable bias);

/// The widest part that `trips_igemm_bytes` takes.
enum { TRIPS_MOST_PART = 256 };

/// Rows of int8 weights back to fp32: y[r, k] = w[r, k] scales[r, k / group] s[k], where s is
/// `input_scale` [K] (all 1 without it), for weights-only arithmetic.
void trips_dequantize_rows(float *y, size_t ldy, const int8_t *w, size_t ldw, const float *scales, size_t rows,
                           size_t k, size_t group, const float *_Nullable input_scale);

// MARK: - Attention

/// Output of a query whose softmax is undefined.
typedef enum trips_fully_masked {
    TRIPS_FULLY_MASKED_NAN = 0,          ///< NaN, as plain softmax gives
    TRIPS_FULLY_MASKED_ZERO = 1,         ///< 0 where all scores are −∞
    TRIPS_FULLY_MASKED_ZERO_FOR_NAN = 2, ///< 0 times the values also where a score is NaN or ∞
} trips_fully_masked;

/// Floats of scratch that `trips_attention` needs.
size_t trips_attention_scratch(size_t lk, size_t d);

/// One head of one example: out = softmax(scale q kᵀ + mask) v.
///
/// q [Lq, d], k [Lk, d], v [Lk, d], out [Lq, d]. `mask` is added to the scaled scores: [Lq, Lk] with row
/// distance `ldm`, or one row [Lk] for all queries where `ldm` is 0. With `causal`, query i sees keys
/// 0 … i only. Softmax subtracts the maximum; `fully_masked` determines the output of rows whose softmax is undefined. `out` may be q.
void trips_attention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                     size_t ldo, size_t lq, size_t lk, size_t d, float scale,
                     const float *_Nullable mask, size_t ldm, bool causal, trips_fully_masked fully_masked, float *scratch);

/// Rows of bytes as `trips_quantize_rows` gives them, and the scale of each.
typedef struct trips_byte_rows {
    const uint8_t *bytes;
    size_t ld;
    const float *scales;
} trips_byte_rows;

/// Bytes of scratch, 64-byte aligned, that `trips_iattention` needs.
size_t trips_iattention_scratch(size_t lk, size_t d);

/// `trips_attention` in 8 bits, for d up to TRIPS_MOST_INPUTS.
///
/// Scores are exact integer sums. Softmax is fp32. Its weights, times the scales of the values' rows, are rounded to 1/255 of the
/// largest in their group of keys and multiplied by the values in integers; the divisor is the sum of the weights before rounding.
/// Groups have 4 to 96 keys, and their sums add up in fp32. Scales below 2⁻²⁰ of the values' largest are raised to it.
void trips_iattention(trips_byte_rows q, trips_byte_rows k, trips_byte_rows v, float *out, size_t ldo, size_t lq, size_t lk,
                      size_t d, float scale, const float *_Nullable mask, size_t ldm, bool causal,
                      trips_fully_masked fully_masked, void *scratch);

/// dots[h, i] = q_h · k_{h,i} for the keys i in [begin, end) of n. query [heads, d], dots [heads, n]; a row of keys holds
/// d numbers for each head, or d that all heads share.
void trips_selection_dots(float *dots, const float *query, const float *keys, size_t ldk, size_t n, size_t begin, size_t end,
                          size_t heads, size_t d, bool shared);

/// The attention of one query to each key, averaged over heads: scores[i] = mean_h softmax_i(scale dots[h, i]). Overwrites
/// `dots` [heads, n].
void trips_selection_scores(float *scores, float *dots, size_t n, size_t heads, float scale);

// MARK: - Rows

/// y = (x − mean x) / √(var x + eps) · weight + bias, per row of n. Mean and variance in two passes. In place.
void trips_layernorm_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n,
                          const float *_Nullable weight, const float *_Nullable bias, float eps);

/// y[j] = Σ_i weights[i] x[r ldx + j] for j < n, where r is rows[i], or i without `rows`: one row times a matrix, or the sum of
/// some of its rows.
///
/// Each element is one chain of fused multiply-adds over ascending i, so results are bit-identical for every split of the columns,
/// and on every path but the scalar one.
void trips_weighted_rows(float *y, const float *x, size_t ldx, const int32_t *_Nullable rows, const float *weights, size_t count,
                         size_t n);

/// Softmax of each row of n; NaN where it is undefined. In place.
void trips_softmax_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n);

/// y[j, i] = x[i, j] for i < rows and j < columns, of which the bits are kept.
void trips_transpose(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t columns);

/// y = activation(x), as in an epilogue. In place.
void trips_activate(float *y, const float *x, size_t n, trips_activation activation);

// MARK: - Convolutions

/// Outputs of a tile of packed filters at most.
enum { TRIPS_FILTER_TILE = 14 };

/// Tiles of m outputs, and the first output of each: they are as even as possible.
size_t trips_filter_tiles(size_t m);
size_t trips_filter_row(size_t m, size_t tile);

/// Packs outputs [m_begin, m_end) of weights w [M, taps] into as many numbers: tiles of outputs, each [taps][outputs]. `rows` points
/// to row m_begin; ranges can be packed in any order and in parallel.
void trips_filter_pack(float *packed, const float *rows, size_t taps, size_t m, size_t m_begin, size_t m_end);

/// y[i, j] = bias[i] + Σ_t w[i, t] x[offsets[t] + j] for the outputs i < m of the tiles [tile_begin, tile_end), and j < n:
/// a convolution whose input is laid out so that each of the kernel's elements reads consecutive numbers.
///
/// Each element is one chain of fused multiply-adds over ascending t, so results are bit-identical on every path but the
/// scalar one.
void trips_convolve(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                    const float *_Nullable bias, size_t m, size_t n, size_t tile_begin, size_t tile_end);

/// How an axis of a convolution's input is divided into phases: phase c holds, at place i, what is at i stride + c − before, and
/// 0 where that is outside of the input.
typedef struct trips_phase_axis {
    size_t size;      ///< of the input
    size_t phases;    ///< up to stride
    size_t places;    ///< of each phase
    size_t stride;
    ptrdiff_t before; ///< padding in front; negative where the input is cut
} trips_phase_axis;

/// Lays out a channel x [sizes of the axes] for trips_convolve: to [phases of the axes, places of the axes].
void trips_phases(float *to, const float *x, const trips_phase_axis axes[_Nonnull 3]);

/// Lines of windows that `trips_depthwise` needs at least.
enum { TRIPS_DEPTHWISE_LINES = 4 };

/// Convolution of a single channel with w [kernel, kernel], `kernel` 3, 5 or 7, at stride 1:
/// y[i, j] = bias + Σ_{r, c} w[r, c] x[i + r − before, j + c − before], with zeros around x. The axes are lines and columns, each of
/// one phase, with places − kernel + 1 windows. Adds up in the order of trips_convolve.
void trips_depthwise(float *y, const float *x, const trips_phase_axis axes[_Nonnull 2], const float *w, size_t kernel, float bias);

/// What follows a convolution: y = f(x) + residual, or f(x + residual).
typedef struct trips_finishing {
    trips_activation activation;    ///< f; where it is none, f(x) = min(high, max(low, slope x + offset))
    float slope, offset, low, high;
    bool gated;                     ///< f is multiplied by x
    bool residual_first;            ///< added before f
} trips_finishing;

/// Rows of n. In place, for x and for the residual: either may be y.
void trips_finish(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *_Nullable residual,
                  size_t ldr, const trips_finishing *finishing);

// MARK: - Conversions

/// Exact; a signalling half-precision NaN becomes a quiet one.
void trips_f16_to_f32(float *y, const uint16_t *x, size_t n);
void trips_bf16_to_f32(float *y, const uint16_t *x, size_t n);

// MARK: - Byte planes

/// Splits n little-endian words of `width` 1, 2, 4 or 8 bytes: plane p, at dst + p * n, holds byte p of each
/// word (plane 0 the lowest). With `rotate`, words are first rotated left by one bit, which moves the sign
/// of an IEEE number below its exponent: the highest plane of f32 and bf16 is then the whole exponent.
///
/// Words of 1 byte are split into half bytes, and not rotated: with h = n / 2, byte i of the first h holds the low
/// halves of words i (in its low half) and h + i, byte i of the next h their high halves; an odd n's last word follows.
void trips_planes_split(uint8_t *dst, const void *src, size_t n, size_t width, bool rotate);

/// The inverse of `trips_planes_split`.
void trips_planes_merge(void *dst, const uint8_t *src, size_t n, size_t width, bool rotate);

#ifdef __clang__
#pragma clang assume_nonnull end
#endif

#endif
