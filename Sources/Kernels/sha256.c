#include "checksums.h"

#include <stdbool.h>
#include <string.h>

static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static inline uint32_t rotate(uint32_t x, int by) { return x >> by | x << (32 - by); }

static inline uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

void trips_sha256_blocks_ref(uint32_t state[8], const uint8_t *data, size_t blocks) {
    for (; blocks > 0; data += 64, blocks--) {
        uint32_t w[64];
        for (int t = 0; t < 16; t++) w[t] = big_endian(data + 4 * t);
        for (int t = 16; t < 64; t++) {
            uint32_t low = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ w[t - 15] >> 3;
            uint32_t high = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ w[t - 2] >> 10;
            w[t] = w[t - 16] + low + w[t - 7] + high;
        }
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        for (int t = 0; t < 64; t++) {
            uint32_t first = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + round_constants[t] + w[t];
            uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + first;
            d = c, c = b, b = a, a = first + second;
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

__attribute__((target("sha,sse4.1,ssse3"))) static void blocks_sha(uint32_t state[8], const uint8_t *data, size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0C0D0E0F08090A0B, 0x0405060700010203);
    // The instructions want the state as (a b e f) and (c d g h), the first in the highest lane.
    __m128i dcba = _mm_loadu_si128((const __m128i *)state);
    __m128i hgfe = _mm_loadu_si128((const __m128i *)(state + 4));
    __m128i cdab = _mm_shuffle_epi32(dcba, 0xB1);
    __m128i efgh = _mm_shuffle_epi32(hgfe, 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8);
    __m128i cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);

    for (; blocks > 0; data += 64, blocks--) {
        const __m128i old_abef = abef, old_cdgh = cdgh;
        __m128i w[4];
        for (int i = 0; i < 4; i++) w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)data + i), swap);
#pragma clang loop unroll(full)
        for (int quad = 0; quad < 16; quad++) {
            __m128i words = w[quad & 3];
            __m128i sum = _mm_add_epi32(words, _mm_loadu_si128((const __m128i *)round_constants + quad));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
            if (quad < 12) {
                // The words four quads later, from this quad and the three that follow it.
                __m128i a = w[(quad + 1) & 3], b = w[(quad + 2) & 3], c = w[(quad + 3) & 3];
                __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(words, a), _mm_alignr_epi8(c, b, 4));
                w[quad & 3] = _mm_sha256msg2_epu32(next, c);
            }
        }
        abef = _mm_add_epi32(abef, old_abef);
        cdgh = _mm_add_epi32(cdgh, old_cdgh);
    }

    __m128i feba = _mm_shuffle_epi32(abef, 0x1B);
    __m128i dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128((__m128i *)(state + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// Found out once, as CPUID traps to the hypervisor in a virtual machine.
static bool has_sha;

__attribute__((constructor)) static void find_sha(void) {
    unsigned a, b, c, d;
    __builtin_cpu_init();
    has_sha = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1") && __builtin_cpu_supports("ssse3");
}

void trips_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks) {
    if (has_sha) blocks_sha(state, data, blocks);
    else trips_sha256_blocks_ref(state, data, blocks);
}
#elif defined(__aarch64__)
#include <arm_neon.h>
#include <sys/auxv.h>

__attribute__((target("sha2"))) static void blocks_sha(uint32_t state[8], const uint8_t *data, size_t blocks) {
    uint32x4_t abcd = vld1q_u32(state), efgh = vld1q_u32(state + 4);
    for (; blocks > 0; data += 64, blocks--) {
        const uint32x4_t old_abcd = abcd, old_efgh = efgh;
        uint32x4_t w[4];
        for (int i = 0; i < 4; i++) w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
#pragma clang loop unroll(full)
        for (int quad = 0; quad < 16; quad++) {
            uint32x4_t words = w[quad & 3], sum = vaddq_u32(words, vld1q_u32(round_constants + 4 * quad)), before = abcd;
            abcd = vsha256hq_u32(abcd, efgh, sum);
            efgh = vsha256h2q_u32(efgh, before, sum);
            // The words four quads later, from this quad and the three that follow it.
            if (quad < 12)
                w[quad & 3] = vsha256su1q_u32(vsha256su0q_u32(words, w[(quad + 1) & 3]), w[(quad + 2) & 3], w[(quad + 3) & 3]);
        }
        abcd = vaddq_u32(abcd, old_abcd);
        efgh = vaddq_u32(efgh, old_efgh);
    }
    vst1q_u32(state, abcd);
    vst1q_u32(state + 4, efgh);
}

void trips_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks) {
    if (getauxval(AT_HWCAP) & HWCAP_SHA2) blocks_sha(state, data, blocks);
    else trips_sha256_blocks_ref(state, data, blocks);
}
#else
void trips_sha256_blocks(uint32_t state[8], const uint8_t *data, size_t blocks) {
    trips_sha256_blocks_ref(state, data, blocks);
}
#endif

void trips_sha256_init(trips_sha256 *hash) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->state, start, sizeof start);
    hash->size = 0;
}

void trips_sha256_update(trips_sha256 *hash, const void *data, size_t size) {
    const uint8_t *bytes = data;
    size_t waiting = hash->size % 64;
    hash->size += size;
    if (waiting > 0) {
        size_t taken = size < 64 - waiting ? size : 64 - waiting;
        memcpy(hash->pending + waiting, bytes, taken);
        bytes += taken;
        size -= taken;
        if (waiting + taken < 64) return;
        trips_sha256_blocks(hash->state, hash->pending, 1);
    }
    trips_sha256_blocks(hash->state, bytes, size / 64);
    memcpy(hash->pending, bytes + size / 64 * 64, size % 64);
}

void trips_sha256_final(trips_sha256 *hash, uint8_t digest[32]) {
    uint64_t bits = hash->size * 8;
    uint8_t padding[72] = {0x80};
    size_t zeros = (119 - hash->size % 64) % 64;
    for (int i = 0; i < 8; i++) padding[1 + zeros + i] = (uint8_t)(bits >> (56 - 8 * i));
    trips_sha256_update(hash, padding, 1 + zeros + 8);
    for (int i = 0; i < 32; i++) digest[i] = (uint8_t)(hash->state[i / 4] >> (24 - 8 * (i % 4)));
}
