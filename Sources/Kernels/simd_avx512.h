// Vectors of 16 floats: AVX-512 F, BW, DQ, VL.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VL 16
#define INLINE static inline __attribute__((always_inline))

// Register tiles of the matrix products: rows, and vectors across for few rows.
#define TILE_ROWS 14
#define TILE_VECTORS(rows) ((rows) <= 3 ? 8 : (rows) <= 7 ? 4 : 2)
#if IGEMM_AMX
#define IGEMM_ROWS 32
#define IGEMM_VECTORS(rows) 2
#elif IGEMM_VNNI
#define IGEMM_ROWS 14
#define IGEMM_VECTORS(rows) TILE_VECTORS(rows)
#else
#define IGEMM_ROWS 13
#define IGEMM_VECTORS(rows) ((rows) <= 4 ? 4 : 2)
#endif

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;

INLINE vm lanes(size_t n) { return (vm)_bzhi_u32(0xffff, (unsigned)n); }

INLINE vf vf_set(float x) { return _mm512_set1_ps(x); }
INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }
INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
/// The first n lanes, n ≤ VL; the others are 0 (load) or untouched (store).
INLINE vf vf_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(lanes(n), p); }
INLINE void vf_store_n(float *p, size_t n, vf x) { _mm512_mask_storeu_ps(p, lanes(n), x); }
/// Lanes from `begin` up to `end`, and zeros in the others, which are not read.
#define VF_MASKS 1
typedef __mmask16 vf_lanes;
INLINE vf_lanes vf_lanes_of(size_t begin, size_t end) { return (vf_lanes)(lanes(end) & ~lanes(begin)); }
INLINE vf vf_load_lanes(const float *p, vf_lanes lanes) { return _mm512_maskz_loadu_ps(lanes, p); }
/// x in the first n lanes, y in the others.
INLINE vf vf_first_n(size_t n, vf x, vf y) { return _mm512_mask_blend_ps(lanes(n), y, x); }

/// x where a < b, y elsewhere, also where one is NaN.
INLINE vf vf_if_less(vf a, vf b, vf x, vf y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }

INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
/// a b + c
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/// c − a b
INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
/// Returns the second operand where either is NaN.
INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// a 2ⁿ for integral n, with overflow to infinity and gradual underflow.
INLINE vf vf_scale(vf a, vf n) { return _mm512_scalef_ps(a, n); }
/// a − ⌊a⌋, and 0 of −∞.
INLINE vf vf_fraction(vf a) { return _mm512_reduce_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
/// a 2^⌊x⌋ for x ≤ 0.
INLINE vf vf_scale_floor(vf a, vf x) { return _mm512_scalef_ps(a, x); }
INLINE float vf_sum(vf a) { return _mm512_reduce_add_ps(a); }
INLINE float vf_maximum(vf a) { return _mm512_reduce_max_ps(a); }

/// The largest of every 4 neighbours, in all 4 of them.
INLINE vf vf_lane_maximum(vf a) {
    a = _mm512_max_ps(a, _mm512_permute_ps(a, 0x4e));
    return _mm512_max_ps(a, _mm512_permute_ps(a, 0xb1));
}

/// Looks 16 numbers up by the lowest 4 bits of each lane.
#define VF_LOOKUP 1
INLINE vf vf_lookup(const float *table, vf bits) { return _mm512_permutexvar_ps(_mm512_castps_si512(bits), _mm512_load_ps(table)); }

INLINE vi vi_zero(void) { return _mm512_setzero_si512(); }
INLINE vi vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
INLINE void vi_store(int32_t *p, vi x) { _mm512_storeu_si512(p, x); }
INLINE vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
INLINE vi vi_max(vi a, vi b) { return _mm512_max_epi32(a, b); }
/// Of each of VL vectors the largest lane.
INLINE vi vi_maxima(const vi *a) {
    vi b[8], c[4], d[2];
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) b[i] = _mm512_max_epi32(_mm512_shuffle_i64x2(a[i], a[i + 8], 0x44), _mm512_shuffle_i64x2(a[i], a[i + 8], 0xee));
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) c[i] = _mm512_max_epi32(_mm512_shuffle_i64x2(b[i], b[i + 4], 0x88), _mm512_shuffle_i64x2(b[i], b[i + 4], 0xdd));
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; i++) d[i] = _mm512_max_epi32(_mm512_unpacklo_epi64(c[i], c[i + 2]), _mm512_unpackhi_epi64(c[i], c[i + 2]));
    __m512 x = _mm512_castsi512_ps(d[0]), y = _mm512_castsi512_ps(d[1]);
    vi all = _mm512_max_epi32(_mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88)), _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd)));
    return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15), all);
}
/// The bits of |a|, which as integers have the order of the numbers, infinity and then NaN above them.
INLINE vi vf_magnitude(vf a) { return _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32(0x7fffffff)); }
#if IGEMM_VNNI
#define VI_DOT4 1
/// Adds the sums of products of 4 bytes without and with a sign.
INLINE vi vi_dot4(vi sum, vi a, vi b) { return _mm512_dpbusd_epi32(sum, a, b); }
#endif
/// Adds the sums of products of pairs of 16-bit numbers that were bytes: of a and b, and of c and d.
INLINE vi vi_dot2(vi sum, vi a, vi b, vi c, vi d) {
    return _mm512_add_epi32(sum, _mm512_add_epi32(_mm512_madd_epi16(a, b), _mm512_madd_epi16(c, d)));
}
/// Even and odd bytes, signed, as 16-bit numbers.
INLINE vi vi_even_signed(vi a) { return _mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8); }
INLINE vi vi_odd_signed(vi a) { return _mm512_srai_epi16(a, 8); }
/// The same 4 bytes in every lane.
INLINE vi vi_broadcast(const uint8_t *p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return _mm512_set1_epi32(bytes);
}
INLINE vf vi_as_float(vi bits) { return _mm512_castsi512_ps(bits); }
INLINE vf vi_to_float(vi a) { return _mm512_cvtepi32_ps(a); }
/// VL floats to bytes round(a) + 128; a in [−127, 127].
INLINE void store_biased_bytes(uint8_t *p, vf a) {
    vi i = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(128));
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(i));
}
/// 4 VL floats to bytes likewise.
INLINE void store_biased_line(uint8_t *p, const vf *a) {
    vi ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a[0]), _mm512_cvtps_epi32(a[1]));
    vi cd = _mm512_packs_epi32(_mm512_cvtps_epi32(a[2]), _mm512_cvtps_epi32(a[3]));
    // Packing leaves 4 numbers of each vector side by side.
    vi order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    vi bytes = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(ab, cd));
    _mm512_storeu_si512(p, _mm512_xor_si512(bytes, _mm512_set1_epi8(-128)));
}
/// 4 VL floats in [0, 255], rounded: of every 4 neighbours the bytes, 16 in the order of the vectors, `distance` from the next 4's.
INLINE void store_lane_bytes(uint8_t *p, size_t distance, const vf *a) {
    vi ab = _mm512_packs_epi32(_mm512_cvtps_epi32(a[0]), _mm512_cvtps_epi32(a[1]));
    vi cd = _mm512_packs_epi32(_mm512_cvtps_epi32(a[2]), _mm512_cvtps_epi32(a[3]));
    vi bytes = _mm512_packus_epi16(ab, cd);
    _mm_storeu_si128((__m128i *)p, _mm512_castsi512_si128(bytes));
    _mm_storeu_si128((__m128i *)(p + distance), _mm512_extracti32x4_epi32(bytes, 1));
    _mm_storeu_si128((__m128i *)(p + 2 * distance), _mm512_extracti32x4_epi32(bytes, 2));
    _mm_storeu_si128((__m128i *)(p + 3 * distance), _mm512_extracti32x4_epi32(bytes, 3));
}
/// VL signed bytes as floats.
INLINE vf vf_load_bytes(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/// Stores a whole cache line past the caches; p is the start of one.
#define VF_STREAM 1
INLINE void vf_stream(float *p, vf x) { _mm512_stream_ps(p, x); }
/// Orders streamed stores before all later stores.
INLINE void vf_stream_end(void) { _mm_sfence(); }

/// The columns of VL rows of VL floats.
INLINE void transpose(vf *columns, const float *from, size_t ldf) {
    __m512 r[16], t[16];
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i++) r[i] = _mm512_loadu_ps(from + (size_t)i * ldf);
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 16; i += 4) {
        r[i + 0] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        __m512 a = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        __m512 c = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88), d = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
        columns[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        columns[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        columns[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        columns[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
