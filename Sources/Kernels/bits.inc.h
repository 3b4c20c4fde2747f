// Conversions and byte planes: loops plain enough for the compiler to vectorise for each
// instruction set. Included by every path.

// Words in memory of any alignment and any declared type.
typedef uint8_t word1;
typedef uint16_t word2 __attribute__((aligned(1), may_alias));
typedef uint32_t word4 __attribute__((aligned(1), may_alias));
typedef uint64_t word8 __attribute__((aligned(1), may_alias));

static void v_bf16_to_f32(float *restrict y, const uint16_t *restrict x, size_t n) {
    word4 *restrict bits = (word4 *)y;
    for (size_t i = 0; i < n; i++) bits[i] = (uint32_t)x[i] << 16;
}

#define ROTATE_LEFT(T, x) ((T)((T)(x) << 1 | (T)(x) >> (8 * sizeof(T) - 1)))
#define ROTATE_RIGHT(T, x) ((T)((T)(x) >> 1 | (T)(x) << (8 * sizeof(T) - 1)))
#define UNCHANGED(T, x) (x)

#define SPLIT_2(name, TURN)                                                           \
    static void name(uint8_t *restrict d, const word2 *restrict s, size_t n) {        \
        uint8_t *restrict d1 = d + n;                                                 \
        for (size_t i = 0; i < n; i++) {                                              \
            uint16_t x = TURN(uint16_t, s[i]);                                        \
            d[i] = (uint8_t)x;                                                        \
            d1[i] = (uint8_t)(x >> 8);                                                \
        }                                                                             \
    }
SPLIT_2(split_2, UNCHANGED)
SPLIT_2(split_2_rotated, ROTATE_LEFT)

#define SPLIT_4(name, TURN)                                                           \
    static void name(uint8_t *restrict d, const word4 *restrict s, size_t n) {        \
        uint8_t *restrict d1 = d + n, *restrict d2 = d + 2 * n, *restrict d3 = d + 3 * n; \
        for (size_t i = 0; i < n; i++) {                                              \
            uint32_t x = TURN(uint32_t, s[i]);                                        \
            d[i] = (uint8_t)x;                                                        \
            d1[i] = (uint8_t)(x >> 8);                                                \
            d2[i] = (uint8_t)(x >> 16);                                               \
            d3[i] = (uint8_t)(x >> 24);                                               \
        }                                                                             \
    }
SPLIT_4(split_4, UNCHANGED)
SPLIT_4(split_4_rotated, ROTATE_LEFT)

// Blocks bound the memory between two passes over the same words.
#define SPLIT_8(name, TURN)                                                           \
    static void name(uint8_t *restrict d, const word8 *restrict s, size_t n) {        \
        for (size_t i0 = 0; i0 < n; i0 += 1024) {                                     \
            size_t i1 = n - i0 < 1024 ? n : i0 + 1024;                                \
            for (size_t p = 0; p < 8; p++)                                            \
                for (size_t i = i0; i < i1; i++) d[p * n + i] = (uint8_t)(TURN(uint64_t, s[i]) >> 8 * p); \
        }                                                                             \
    }
SPLIT_8(split_8, UNCHANGED)
SPLIT_8(split_8_rotated, ROTATE_LEFT)

#define MERGE_2(name, TURN)                                                           \
    static void name(word2 *restrict d, const uint8_t *restrict s, size_t n) {        \
        for (size_t i = 0; i < n; i++) {                                              \
            uint16_t x = (uint16_t)(s[i] | (uint16_t)s[n + i] << 8);                  \
            d[i] = TURN(uint16_t, x);                                                 \
        }                                                                             \
    }
MERGE_2(merge_2, UNCHANGED)
MERGE_2(merge_2_rotated, ROTATE_RIGHT)

#define MERGE_4(name, TURN)                                                           \
    static void name(word4 *restrict d, const uint8_t *restrict s, size_t n) {        \
        const uint8_t *s1 = s + n, *s2 = s + 2 * n, *s3 = s + 3 * n;                  \
        for (size_t i = 0; i < n; i++) {                                              \
            uint32_t x = s[i] | (uint32_t)s1[i] << 8 | (uint32_t)s2[i] << 16 | (uint32_t)s3[i] << 24; \
            d[i] = TURN(uint32_t, x);                                                 \
        }                                                                             \
    }
MERGE_4(merge_4, UNCHANGED)
MERGE_4(merge_4_rotated, ROTATE_RIGHT)

#define MERGE_8(name, TURN)                                                           \
    static void name(word8 *restrict d, const uint8_t *restrict s, size_t n) {        \
        for (size_t i = 0; i < n; i++) {                                              \
            uint64_t x = 0;                                                           \
            for (unsigned p = 0; p < 8; p++) x |= (uint64_t)s[p * n + i] << 8 * p;    \
            d[i] = TURN(uint64_t, x);                                                 \
        }                                                                             \
    }
MERGE_8(merge_8, UNCHANGED)
MERGE_8(merge_8_rotated, ROTATE_RIGHT)

// The half bytes of an element of the first half and of one of the second are exchanged: no lane crosses another, and the function
// is its own inverse.
static void exchange_halves(uint8_t *restrict d, const uint8_t *restrict s, size_t n) {
    size_t half = n / 2;
    const uint8_t *restrict s1 = s + half;
    uint8_t *restrict d1 = d + half;
    for (size_t i = 0; i < half; i++) {
        d[i] = (uint8_t)((s[i] & 15) | s1[i] << 4);
        d1[i] = (uint8_t)(s[i] >> 4 | (s1[i] & 0xF0));
    }
    if (n % 2) d[n - 1] = s[n - 1];
}

static void v_planes_split(uint8_t *dst, const void *src, size_t n, size_t width, bool rotate) {
    switch (width) {
    case 1: exchange_halves(dst, src, n); break;
    case 2: (rotate ? split_2_rotated : split_2)(dst, src, n); break;
    case 4: (rotate ? split_4_rotated : split_4)(dst, src, n); break;
    case 8: (rotate ? split_8_rotated : split_8)(dst, src, n); break;
    }
}

static void v_planes_merge(void *dst, const uint8_t *src, size_t n, size_t width, bool rotate) {
    switch (width) {
    case 1: exchange_halves(dst, src, n); break;
    case 2: (rotate ? merge_2_rotated : merge_2)(dst, src, n); break;
    case 4: (rotate ? merge_4_rotated : merge_4)(dst, src, n); break;
    case 8: (rotate ? merge_8_rotated : merge_8)(dst, src, n); break;
    }
}
