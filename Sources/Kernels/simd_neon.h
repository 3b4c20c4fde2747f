// Vectors of 4 floats: NEON, as every 64-bit ARM processor has it. The same vocabulary as simd_avx512.h, which documents it.
#pragma once
#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#define VL 4
#define INLINE static inline __attribute__((always_inline))

// Sums, inputs and weights of a tile fill the 32 registers.
#define TILE_ROWS 6
#define TILE_VECTORS(rows) ((rows) <= 3 ? 8 : 4)
#if NEON_I8MM
#define IGEMM_ROWS 8
#define IGEMM_VECTORS(rows) ((rows) <= 2 ? 8 : (rows) <= 4 ? 4 : 2)
#elif NEON_DOT
#define IGEMM_ROWS 5
#define IGEMM_VECTORS(rows) TILE_VECTORS(rows)
#else
#define IGEMM_ROWS 4
#define IGEMM_VECTORS(rows) 4
#endif

typedef float32x4_t vf;
typedef int32x4_t vi;

INLINE vf vf_set(float x) { return vdupq_n_f32(x); }
INLINE vf vf_zero(void) { return vdupq_n_f32(0); }
INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
INLINE void vf_store(float *p, vf x) { vst1q_f32(p, x); }
INLINE vf vf_load_n(const float *p, size_t n) {
    vf x = vf_zero();
    if (n >= 4) return vf_load(p);
    if (n & 2) x = vcombine_f32(vld1_f32(p), vdup_n_f32(0));
    if (n == 3) x = vld1q_lane_f32(p + 2, x, 2);
    if (n == 1) x = vld1q_lane_f32(p, x, 0);
    return x;
}
INLINE void vf_store_n(float *p, size_t n, vf x) {
    if (n >= 4) return vf_store(p, x);
    if (n & 2) vst1_f32(p, vget_low_f32(x));
    if (n == 3) vst1q_lane_f32(p + 2, x, 2);
    if (n == 1) vst1q_lane_f32(p, x, 0);
}
INLINE vf vf_first_n(size_t n, vf x, vf y) {
    const uint32_t index[4] = {0, 1, 2, 3};
    return vbslq_f32(vcgtq_u32(vdupq_n_u32((uint32_t)n), vld1q_u32(index)), x, y);
}
INLINE vf vf_if_less(vf a, vf b, vf x, vf y) { return vbslq_f32(vcltq_f32(a, b), x, y); }

INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
/// a[lane] b + c
#define VF_LANES 1
INLINE vf vf_fma_lane(vf a, int lane, vf b, vf c) { return vfmaq_f32(c, b, vdupq_n_f32(a[lane])); }
INLINE vf vf_fnma(vf a, vf b, vf c) { return vfmsq_f32(c, a, b); }
/// NaN where either operand is: what comes of it is NaN on the other paths too.
INLINE vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
INLINE vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
INLINE vf vf_abs(vf a) { return vabsq_f32(a); }
INLINE vf vf_round(vf a) { return vrndnq_f32(a); }
/// In two factors, so that each stays a normal number for |n| ≤ 252.
INLINE vf vf_scale(vf a, vf n) {
    int32x4_t i = vcvtnq_s32_f32(n), half = vshrq_n_s32(i, 1), bias = vdupq_n_s32(127);
    vf x = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
    vf y = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(i, half), bias), 23));
    return vmulq_f32(vmulq_f32(a, x), y);
}
/// a − ⌊a⌋ for a above −252, and 0 below.
INLINE vf vf_fraction(vf a) {
    a = vmaxq_f32(vdupq_n_f32(-252), a);
    return vsubq_f32(a, vrndmq_f32(a));
}
/// a 2^⌊x⌋ for x ≤ 0, with 2^−252 for what is below.
INLINE vf vf_scale_floor(vf a, vf x) { return vf_scale(a, vrndmq_f32(vmaxq_f32(vdupq_n_f32(-252), x))); }
INLINE float vf_sum(vf a) { return vaddvq_f32(a); }
INLINE float vf_maximum(vf a) { return vmaxvq_f32(a); }
INLINE vf vf_lane_maximum(vf a) { return vdupq_n_f32(vmaxvq_f32(a)); }

INLINE vi vi_zero(void) { return vdupq_n_s32(0); }
INLINE vi vi_load(const int32_t *p) { return vld1q_s32(p); }
INLINE void vi_store(int32_t *p, vi x) { vst1q_s32(p, x); }
INLINE vi vi_add(vi a, vi b) { return vaddq_s32(a, b); }
INLINE vi vi_sub(vi a, vi b) { return vsubq_s32(a, b); }
INLINE vi vi_max(vi a, vi b) { return vmaxq_s32(a, b); }
INLINE vi vi_maxima(const vi *a) { return vpmaxq_s32(vpmaxq_s32(a[0], a[1]), vpmaxq_s32(a[2], a[3])); }
INLINE vi vf_magnitude(vf a) { return vandq_s32(vreinterpretq_s32_f32(a), vdupq_n_s32(0x7fffffff)); }
#if NEON_I8MM
#define VI_DOT4 1
INLINE vi vi_dot4(vi sum, vi a, vi b) { return vusdotq_s32(sum, vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b)); }
/// Of two rows of 8 bytes on each side, without and with a sign: adds the products of each row of a with each of b.
#define VI_SQUARE 1
INLINE vi vi_square(vi sum, vi a, vi b) { return vusmmlaq_s32(sum, vreinterpretq_u8_s32(a), vreinterpretq_s8_s32(b)); }
INLINE vi vi_load_rows(const uint8_t *first, const uint8_t *second) {
    return vreinterpretq_s32_u8(vcombine_u8(vld1_u8(first), vld1_u8(second)));
}
/// 4 bytes of each of 4 outputs, and their next 4: as rows of the first and the last two outputs.
INLINE vi vi_first_rows(vi a, vi b) { return vzip1q_s32(a, b); }
INLINE vi vi_last_rows(vi a, vi b) { return vzip2q_s32(a, b); }
/// The sums of the first and the second row of a, given those for the first and the last two outputs.
INLINE vi vi_first_sums(vi a, vi b) { return vcombine_s32(vget_low_s32(a), vget_low_s32(b)); }
INLINE vi vi_second_sums(vi a, vi b) { return vcombine_s32(vget_high_s32(a), vget_high_s32(b)); }
#elif NEON_DOT
#define VI_DOT4 1
/// The instruction takes a sign on both sides: what is added lacks 128 times the sum of b.
#define VI_DOT4_LESS_128 1
INLINE int8x16_t less_128(vi a) { return vreinterpretq_s8_u8(veorq_u8(vreinterpretq_u8_s32(a), vdupq_n_u8(128))); }
INLINE vi vi_dot4(vi sum, vi a, vi b) { return vdotq_s32(sum, vreinterpretq_s8_s32(b), less_128(a)); }
/// The same with the 4 bytes of one lane of a.
#define VI_DOT4_LANES 1
INLINE vi vi_dot4_lane(vi sum, vi a, int lane, vi b) {
    int8x16_t x = less_128(a), w = vreinterpretq_s8_s32(b);
    switch (lane) {
    case 0: return vdotq_laneq_s32(sum, w, x, 0);
    case 1: return vdotq_laneq_s32(sum, w, x, 1);
    case 2: return vdotq_laneq_s32(sum, w, x, 2);
    default: return vdotq_laneq_s32(sum, w, x, 3);
    }
}
#endif
/// A product of bytes without and with a sign fits 16 bits.
INLINE vi vi_dot2(vi sum, vi a, vi b, vi c, vi d) {
    int16x8_t first = vmulq_s16(vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
    int16x8_t second = vmulq_s16(vreinterpretq_s16_s32(c), vreinterpretq_s16_s32(d));
    return vpadalq_s16(vpadalq_s16(sum, first), second);
}
INLINE vi vi_even_signed(vi a) {
    return vreinterpretq_s32_s16(vshrq_n_s16(vshlq_n_s16(vreinterpretq_s16_s32(a), 8), 8));
}
INLINE vi vi_odd_signed(vi a) { return vreinterpretq_s32_s16(vshrq_n_s16(vreinterpretq_s16_s32(a), 8)); }
INLINE vi vi_broadcast(const uint8_t *p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return vdupq_n_s32(bytes);
}
INLINE vf vi_as_float(vi bits) { return vreinterpretq_f32_s32(bits); }
INLINE vf vi_to_float(vi a) { return vcvtq_f32_s32(a); }

/// Rounded and narrowed to 16 bits, 8 numbers in the order of the vectors.
INLINE int16x8_t words_of(vf a, vf b) {
    return vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a)), vcvtnq_s32_f32(b));
}
INLINE void store_biased_bytes(uint8_t *p, vf a) {
    int16x8_t words = vaddq_s16(words_of(a, a), vdupq_n_s16(128));
    uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vqmovun_s16(words)), 0);
    __builtin_memcpy(p, &bytes, sizeof bytes);
}
INLINE void store_biased_line(uint8_t *p, const vf *a) {
    int8x16_t bytes = vqmovn_high_s16(vqmovn_s16(words_of(a[0], a[1])), words_of(a[2], a[3]));
    vst1q_u8(p, veorq_u8(vreinterpretq_u8_s8(bytes), vdupq_n_u8(128)));
}
INLINE void store_lane_bytes(uint8_t *p, size_t distance, const vf *a) {
    (void)distance;
    vst1q_u8(p, vqmovun_high_s16(vqmovun_s16(words_of(a[0], a[1])), words_of(a[2], a[3])));
}
INLINE vf vf_load_bytes(const int8_t *p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof bytes);
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(bytes))))));
}

INLINE void transpose(vf *columns, const float *from, size_t ldf) {
    vf a = vf_load(from), b = vf_load(from + ldf), c = vf_load(from + 2 * ldf), d = vf_load(from + 3 * ldf);
    vf ac = vzip1q_f32(a, c), ac2 = vzip2q_f32(a, c), bd = vzip1q_f32(b, d), bd2 = vzip2q_f32(b, d);
    columns[0] = vzip1q_f32(ac, bd);
    columns[1] = vzip2q_f32(ac, bd);
    columns[2] = vzip1q_f32(ac2, bd2);
    columns[3] = vzip2q_f32(ac2, bd2);
}
