// The kernels of one instruction set.
#pragma once
#include "kernels_ref.h"

#include <float.h>
#include <math.h>
#include <string.h>

#define TRIPS_ENTRY(name) __typeof__(trips_##name) *name;
typedef struct trips_table {
    TRIPS_EACH_KERNEL(TRIPS_ENTRY)
} trips_table;

extern const trips_table trips_table_scalar;
#if defined(__x86_64__)
extern const trips_table trips_table_avx2, trips_table_avx2vnni, trips_table_avx512, trips_table_avx512vnni,
    trips_table_avx512amx;
#elif defined(__aarch64__)
extern const trips_table trips_table_neon, trips_table_neondot, trips_table_neoni8mm;
#endif

/// x Φ(x) and similar activations are max(x, 0) − tail(|x|). A tail is a piecewise cubic from 0 to where it is negligible; the first
/// part is half as wide as the others.
enum { TAIL_PARTS = 16, TAIL_DEGREE = 3 };
enum { TAIL_GELU_ERF, TAIL_GELU_TANH, TAIL_QUICK_GELU, TAIL_COUNT };

typedef struct tail_table {
    _Alignas(64) float coefficients[TAIL_DEGREE + 1][TAIL_PARTS]; ///< by rising power of the distance from the part's middle, in steps
    float inverse_step;
} tail_table;

extern tail_table trips_tails[TAIL_COUNT];

/// The first output of a tile of packed filters: tiles are as even as possible.
static inline size_t filter_row(size_t m, size_t tile) { return m * tile / trips_filter_tiles(m); }

/// Query rows per block of attention that scratch is laid out for.
enum { TRIPS_QUERY_BLOCK = 28 };

/// Query rows per block of 8-bit attention.
enum { IATTENTION_ROWS = 28 };

/// Keys that causal query i sees.
static inline size_t visible_keys(size_t i, size_t lk) { return i + 1 < lk ? i + 1 : lk; }

/// What is subtracted from scores whose largest is `most`: 0 where all are −∞, so that their weights and the sum are 0.
static inline float softmax_shift(float most) { return most == -INFINITY ? 0 : most; }

/// The factor that normalises weighted values, given the sum of their weights.
static inline float softmax_factor(float sum, trips_fully_masked fully_masked) {
    return fully_masked != TRIPS_FULLY_MASKED_NAN && sum == 0 ? 0 : 1.0f / sum;
}

/// Whether all weights are replaced by 0, given their sum.
static inline bool drops_weights(float sum, trips_fully_masked fully_masked) {
    return fully_masked == TRIPS_FULLY_MASKED_ZERO_FOR_NAN && sum != sum;
}

static inline size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/// Place of one group of one panel in packed int8 weights.
typedef struct igemm_group {
    int8_t *weights;      ///< [k / 4][TRIPS_PANEL][4]
    int32_t *corrections; ///< [TRIPS_PANEL]
    float *scales;        ///< [TRIPS_PANEL]
    size_t k;             ///< inputs of the group, filled up to a multiple of 4
} igemm_group;

static inline size_t igemm_panel_size(size_t k, size_t group) {
    return round_up(k, 4) * TRIPS_PANEL + trips_group_count(k, group) * TRIPS_PANEL * 8;
}

static inline igemm_group igemm_group_at(const void *packed, size_t panel, size_t g, size_t k, size_t group) {
    size_t length = group ? group : round_up(k, 4), start = g * length, total = round_up(k, 4);
    igemm_group result;
    result.k = total - start < length ? total - start : length;
    result.weights = (int8_t *)packed + panel * igemm_panel_size(k, group) + start * TRIPS_PANEL + g * TRIPS_PANEL * 8;
    result.corrections = (int32_t *)(void *)(result.weights + result.k * TRIPS_PANEL);
    result.scales = (float *)(void *)(result.corrections + TRIPS_PANEL);
    return result;
}

/// Groups of keys: in each row of 8-bit attention the weights of a group share a scale. Each of a segment's four groups takes 4 of
/// every 16 consecutive keys, so that a vector's lanes hold the largest score of each; a segment is about 256 keys.
typedef struct key_groups {
    size_t segments, blocks; ///< segments of so many blocks of 16 keys
} key_groups;

enum { KEY_BLOCK = 16, GROUP_KEYS = 4, SEGMENT_GROUPS = KEY_BLOCK / GROUP_KEYS };

static inline key_groups key_groups_of(size_t lk) {
    size_t blocks = (lk + KEY_BLOCK - 1) / KEY_BLOCK, segments = (blocks + 8) / 16;
    if (segments == 0) segments = 1;
    return (key_groups){segments, blocks == 0 ? 1 : (blocks + segments - 1) / segments};
}

static inline size_t segment_keys(key_groups s) { return s.blocks * KEY_BLOCK; }
static inline size_t group_keys(key_groups s) { return s.blocks * GROUP_KEYS; }
static inline size_t group_count(key_groups s) { return s.segments * SEGMENT_GROUPS; }

/// The position of key j when keys are ordered by group.
static inline size_t key_place(key_groups s, size_t j) {
    size_t block = j / KEY_BLOCK, group = block / s.blocks * SEGMENT_GROUPS + j % KEY_BLOCK / GROUP_KEYS;
    return group * group_keys(s) + block % s.blocks * GROUP_KEYS + j % GROUP_KEYS;
}

/// Parts of the scratch memory of 8-bit attention.
typedef struct iattention_parts {
    key_groups groups;
    size_t places;        ///< of all groups together; those without a key have weight 0
    void *keys, *values;  ///< packed
    float *scores;        ///< [IATTENTION_ROWS, lds]
    float *shifts;        ///< [lds], log₂ of the scale of each row of values as a part of the largest; −∞ from lk on
    float *inverses;      ///< [lds], 1 / those parts
    float *peaks, *sums;  ///< [segments, KEY_BLOCK]: of one row the largest score and the sum of weights, by segment and lane
    float *scales;        ///< [IATTENTION_ROWS, groups]
    uint8_t *weights;     ///< [IATTENTION_ROWS, places] with row distance ldw
    int8_t *rows;         ///< [TRIPS_PACK_ROWS, ldr], keys or values without their bias
    size_t lds, ldw, ldr;
    float unit;           ///< the values' largest scale
    size_t size;          ///< of all, in bytes
} iattention_parts;

static inline iattention_parts iattention_parts_of(void *scratch, size_t lk, size_t d) {
    iattention_parts s = {.groups = key_groups_of(lk), .lds = round_up(lk, TRIPS_PANEL)};
    s.places = s.groups.segments * segment_keys(s.groups);
    s.ldw = trips_quantized_row_size(s.places);
    s.ldr = round_up(d, 64);
    uintptr_t at = (uintptr_t)scratch;
#define PART(type, name, bytes) s.name = (type *)at, at += round_up(bytes, 64)
    PART(void, keys, trips_igemm_pack_size(lk, d, 0));
    PART(void, values, trips_igemm_pack_size(d, s.places, group_keys(s.groups)));
    PART(float, scores, IATTENTION_ROWS * s.lds * sizeof(float));
    PART(float, shifts, s.lds * sizeof(float));
    PART(float, inverses, s.lds * sizeof(float));
    PART(float, peaks, s.groups.segments * KEY_BLOCK * sizeof(float));
    PART(float, sums, s.groups.segments * KEY_BLOCK * sizeof(float));
    PART(float, scales, IATTENTION_ROWS * group_count(s.groups) * sizeof(float));
    // The last block is stored together with three more beyond it.
    PART(uint8_t, weights, IATTENTION_ROWS * s.ldw + KEY_BLOCK);
    PART(int8_t, rows, TRIPS_PACK_ROWS * s.ldr);
#undef PART
    s.size = at - (uintptr_t)scratch;
    return s;
}

/// Lower bound of the scale of a row of values, relative to the largest.
#define LEAST_VALUE_SCALE 0x1p-20f
