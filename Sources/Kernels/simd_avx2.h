// Vectors of 8 floats: AVX2, FMA. The same vocabulary as simd_avx512.h, which documents it.
#pragma once
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#define VL 8
#define INLINE static inline __attribute__((always_inline))

#define TILE_ROWS 6
#define TILE_VECTORS(rows) ((rows) <= 1 ? 8 : (rows) <= 3 ? 4 : 2)
#if IGEMM_VNNI
#define IGEMM_ROWS 6
#define IGEMM_VECTORS(rows) TILE_VECTORS(rows)
#else
#define IGEMM_ROWS 5
#define IGEMM_VECTORS(rows) ((rows) <= 2 ? 4 : 2)
#endif

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vm;

INLINE vm lanes(size_t n) {
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), index));
}

INLINE vf vf_set(float x) { return _mm256_set1_ps(x); }
INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }
INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
INLINE vf vf_load_n(const float *p, size_t n) { return _mm256_maskload_ps(p, _mm256_castps_si256(lanes(n))); }
INLINE void vf_store_n(float *p, size_t n, vf x) { _mm256_maskstore_ps(p, _mm256_castps_si256(lanes(n)), x); }
/// Lanes from `begin` up to `end`, and zeros in the others, which are not read.
#define VF_MASKS 1
typedef __m256i vf_lanes;
INLINE vf_lanes vf_lanes_of(size_t begin, size_t end) { return _mm256_castps_si256(_mm256_andnot_ps(lanes(begin), lanes(end))); }
INLINE vf vf_load_lanes(const float *p, vf_lanes lanes) { return _mm256_maskload_ps(p, lanes); }
INLINE vf vf_first_n(size_t n, vf x, vf y) { return _mm256_blendv_ps(y, x, lanes(n)); }
INLINE vf vf_if_less(vf a, vf b, vf x, vf y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }

INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE vf vf_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// In two factors, so that each stays a normal number for |n| ≤ 252.
INLINE vf vf_scale(vf a, vf n) {
    __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1), bias = _mm256_set1_epi32(127);
    vf x = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    vf y = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, half), bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(a, x), y);
}
/// a − ⌊a⌋ for a above −252, and 0 below.
INLINE vf vf_fraction(vf a) {
    a = _mm256_max_ps(_mm256_set1_ps(-252.0f), a);
    return _mm256_sub_ps(a, _mm256_floor_ps(a));
}
/// a 2^⌊x⌋ for x ≤ 0, with 2^−252 for what is below.
INLINE vf vf_scale_floor(vf a, vf x) { return vf_scale(a, _mm256_floor_ps(_mm256_max_ps(_mm256_set1_ps(-252.0f), x))); }
INLINE float vf_sum(vf a) {
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
INLINE float vf_maximum(vf a) {
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}

INLINE vf vf_lane_maximum(vf a) {
    a = _mm256_max_ps(a, _mm256_permute_ps(a, 0x4e));
    return _mm256_max_ps(a, _mm256_permute_ps(a, 0xb1));
}

INLINE vi vi_zero(void) { return _mm256_setzero_si256(); }
INLINE vi vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void vi_store(int32_t *p, vi x) { _mm256_storeu_si256((__m256i *)p, x); }
INLINE vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
INLINE vi vi_max(vi a, vi b) { return _mm256_max_epi32(a, b); }
INLINE vi vi_maxima(const vi *a) {
    vi b[4], c[2];
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) b[i] = _mm256_max_epi32(_mm256_permute2x128_si256(a[i], a[i + 4], 0x20), _mm256_permute2x128_si256(a[i], a[i + 4], 0x31));
#pragma clang loop unroll(full)
    for (int i = 0; i < 2; i++) c[i] = _mm256_max_epi32(_mm256_unpacklo_epi64(b[i], b[i + 2]), _mm256_unpackhi_epi64(b[i], b[i + 2]));
    __m256 x = _mm256_castsi256_ps(c[0]), y = _mm256_castsi256_ps(c[1]);
    vi all = _mm256_max_epi32(_mm256_castps_si256(_mm256_shuffle_ps(x, y, 0x88)), _mm256_castps_si256(_mm256_shuffle_ps(x, y, 0xdd)));
    return _mm256_permutevar8x32_epi32(all, _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7));
}
INLINE vi vf_magnitude(vf a) { return _mm256_and_si256(_mm256_castps_si256(a), _mm256_set1_epi32(0x7fffffff)); }
#if IGEMM_VNNI
#define VI_DOT4 1
INLINE vi vi_dot4(vi sum, vi a, vi b) { return _mm256_dpbusd_avx_epi32(sum, a, b); }
#endif
INLINE vi vi_dot2(vi sum, vi a, vi b, vi c, vi d) {
    return _mm256_add_epi32(sum, _mm256_add_epi32(_mm256_madd_epi16(a, b), _mm256_madd_epi16(c, d)));
}
INLINE vi vi_even_signed(vi a) { return _mm256_srai_epi16(_mm256_slli_epi16(a, 8), 8); }
INLINE vi vi_odd_signed(vi a) { return _mm256_srai_epi16(a, 8); }
INLINE vi vi_broadcast(const uint8_t *p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}
INLINE vf vi_as_float(vi bits) { return _mm256_castsi256_ps(bits); }
INLINE vf vi_to_float(vi a) { return _mm256_cvtepi32_ps(a); }
INLINE void store_biased_bytes(uint8_t *p, vf a) {
    __m256i i = _mm256_add_epi32(_mm256_cvtps_epi32(a), _mm256_set1_epi32(128));
    __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(i), _mm256_extracti128_si256(i, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(words, words));
}
INLINE void store_biased_line(uint8_t *p, const vf *a) {
    vi ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1]));
    vi cd = _mm256_packs_epi32(_mm256_cvtps_epi32(a[2]), _mm256_cvtps_epi32(a[3]));
    vi order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    vi bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
    _mm256_storeu_si256((__m256i *)p, _mm256_xor_si256(bytes, _mm256_set1_epi8(-128)));
}
INLINE void store_lane_bytes(uint8_t *p, size_t distance, const vf *a) {
    vi ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a[0]), _mm256_cvtps_epi32(a[1]));
    vi cd = _mm256_packs_epi32(_mm256_cvtps_epi32(a[2]), _mm256_cvtps_epi32(a[3]));
    vi bytes = _mm256_packus_epi16(ab, cd);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(bytes));
    _mm_storeu_si128((__m128i *)(p + distance), _mm256_extracti128_si256(bytes, 1));
}
INLINE vf vf_load_bytes(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

INLINE void transpose(vf *columns, const float *from, size_t ldf) {
    __m256 r[8], t[8];
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(from + (size_t)i * ldf);
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 8; i += 4) {
        r[i + 0] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma clang loop unroll(full)
    for (int i = 0; i < 4; i++) {
        columns[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        columns[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
}
