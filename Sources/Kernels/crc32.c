#include "checksums.h"

// The remainder of a byte that 0, 1, ... 7 more bytes follow.
static uint32_t table[8][256];

__attribute__((constructor)) static void make_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
        table[0][byte] = crc;
    }
    for (int more = 1; more < 8; more++)
        for (uint32_t byte = 0; byte < 256; byte++)
            table[more][byte] = (table[more - 1][byte] >> 8) ^ table[0][table[more - 1][byte] & 0xFF];
}

// Without the complements at the beginning and at the end.
static uint32_t remainder_of(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t a = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = table[7][a & 0xFF] ^ table[6][a >> 8 & 0xFF] ^ table[5][a >> 16 & 0xFF] ^ table[4][a >> 24]
            ^ table[3][data[4]] ^ table[2][data[5]] ^ table[1][data[6]] ^ table[0][data[7]];
    }
    for (; size > 0; data++, size--) crc = (crc >> 8) ^ table[0][(crc ^ *data) & 0xFF];
    return crc;
}

uint32_t trips_crc32_ref(uint32_t crc, const void *data, size_t size) { return ~remainder_of(~crc, data, size); }

#if defined(__x86_64__)
#include <immintrin.h>

// Folding by carry-less multiplication: x^n mod P for the distances over which 64 bits are carried forward,
// bit-reflected, after Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction".
static const uint64_t fold_256_bytes[2] = {0x11542778A, 0x1322D1430};
static const uint64_t fold_64_bytes[2] = {0x154442BD4, 0x1C6E41596};
static const uint64_t fold_16_bytes[2] = {0x1751997D0, 0x0CCAA009E};

__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i value, __m128i by, __m128i next) {
    __m128i low = _mm_clmulepi64_si128(value, by, 0x00);
    __m128i high = _mm_clmulepi64_si128(value, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), next);
}

__attribute__((target("pclmul,sse4.1"))) static uint32_t remainder_clmul(uint32_t crc, const uint8_t *data, size_t size) {
    const __m128i *words = (const __m128i *)data;
    const __m128i by64 = _mm_loadu_si128((const __m128i *)fold_64_bytes);
    const __m128i by16 = _mm_loadu_si128((const __m128i *)fold_16_bytes);
    __m128i lane[4];
    for (int i = 0; i < 4; i++) lane[i] = _mm_loadu_si128(words + i);
    lane[0] = _mm_xor_si128(lane[0], _mm_cvtsi32_si128((int)crc));
    size_t left = size - 64;
    for (words += 4; left >= 64; words += 4, left -= 64)
        for (int i = 0; i < 4; i++) lane[i] = fold(lane[i], by64, _mm_loadu_si128(words + i));
    __m128i value = lane[0];
    for (int i = 1; i < 4; i++) value = fold(value, by16, lane[i]);
    for (; left >= 16; words++, left -= 16) value = fold(value, by16, _mm_loadu_si128(words));
    uint8_t folded[16];
    _mm_storeu_si128((__m128i *)folded, value);
    return remainder_of(remainder_of(0, folded, sizeof folded), (const uint8_t *)words, left);
}

#define WIDE __attribute__((target("avx512f,vpclmulqdq,pclmul,sse4.1")))

WIDE static inline __m512i fold_wide(__m512i value, __m512i by, __m512i next) {
    __m512i low = _mm512_clmulepi64_epi128(value, by, 0x00);
    __m512i high = _mm512_clmulepi64_epi128(value, by, 0x11);
    return _mm512_ternarylogic_epi64(low, high, next, 0x96);
}

// Four times as wide; for at least 256 bytes.
WIDE static uint32_t remainder_wide(uint32_t crc, const uint8_t *data, size_t size) {
    const __m512i by256 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_256_bytes));
    const __m512i by64 = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)fold_64_bytes));
    __m512i lane[4];
    for (int i = 0; i < 4; i++) lane[i] = _mm512_loadu_si512(data + 64 * i);
    lane[0] = _mm512_xor_si512(lane[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    size_t left = size - 256;
    for (data += 256; left >= 256; data += 256, left -= 256)
        for (int i = 0; i < 4; i++) lane[i] = fold_wide(lane[i], by256, _mm512_loadu_si512(data + 64 * i));
    __m512i value = lane[0];
    for (int i = 1; i < 4; i++) value = fold_wide(value, by64, lane[i]);
    uint8_t folded[64];
    _mm512_storeu_si512(folded, value);
    crc = remainder_clmul(0, folded, sizeof folded);
    return left < 64 ? remainder_of(crc, data, left) : remainder_clmul(crc, data, left);
}

uint32_t trips_crc32(uint32_t crc, const void *data, size_t size) {
    if (size >= 512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq"))
        return ~remainder_wide(~crc, data, size);
    if (size < 64 || !__builtin_cpu_supports("pclmul") || !__builtin_cpu_supports("sse4.1")) return trips_crc32_ref(crc, data, size);
    return ~remainder_clmul(~crc, data, size);
}
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <string.h>
#include <sys/auxv.h>

__attribute__((target("crc"))) static uint32_t remainder_crc(uint32_t crc, const uint8_t *data, size_t size) {
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, data, sizeof word);
        crc = __crc32d(crc, word);
    }
    for (; size > 0; data++, size--) crc = __crc32b(crc, *data);
    return crc;
}

uint32_t trips_crc32(uint32_t crc, const void *data, size_t size) {
    return getauxval(AT_HWCAP) & HWCAP_CRC32 ? ~remainder_crc(~crc, data, size) : trips_crc32_ref(crc, data, size);
}
#else
uint32_t trips_crc32(uint32_t crc, const void *data, size_t size) { return trips_crc32_ref(crc, data, size); }
#endif
