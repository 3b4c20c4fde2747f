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
extern const trips_table trips_table_avx2, trips_table_avx2vnni, trips_table_avx512, trips_table_avx512vnni;
#endif

/// Query rows per block of attention that scratch is laid out for.
enum { TRIPS_QUERY_BLOCK = 28 };

/// Query rows per block of 8-bit attention; each is two rows of the second product.
enum { IATTENTION_ROWS = 14 };

/// Keys that causal query i sees.
static inline size_t visible_keys(size_t i, size_t lk) { return i + 1 < lk ? i + 1 : lk; }

/// What the largest score is taken for: 0 where all scores are −∞, so that their weights are 0 and so is their sum.
static inline float softmax_shift(float most) { return most == -INFINITY ? 0 : most; }

/// What weighted values are multiplied by, given the sum of their weights.
static inline float softmax_factor(float sum, bool zero_masked) { return zero_masked && sum == 0 ? 0 : 1.0f / sum; }

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

/// Parts of the scratch memory of 8-bit attention.
typedef struct iattention_parts {
    void *keys, *values; ///< packed
    float *scores;       ///< [IATTENTION_ROWS, lk], row distance lds
    float *factors;      ///< [lk], one for each row of values
    float *sums;         ///< [2 * IATTENTION_ROWS, d]
    uint8_t *bytes;      ///< queries [IATTENTION_ROWS, d], or weights [2 * IATTENTION_ROWS, lk] with row distance ldb
    size_t lds, ldb;
} iattention_parts;

static inline size_t iattention_bytes(size_t lk, size_t d) {
    size_t weights = 2 * IATTENTION_ROWS * trips_quantized_row_size(lk);
    size_t rows = (lk + IATTENTION_ROWS) * round_up(d, 64), panel = d * TRIPS_PANEL * sizeof(float);
    rows = rows > panel ? rows : panel;
    return weights > rows ? weights : rows;
}

static inline iattention_parts iattention_parts_of(void *scratch, size_t lk, size_t d) {
    iattention_parts s = {.lds = round_up(lk, TRIPS_PANEL), .ldb = trips_quantized_row_size(lk)};
    uint8_t *at = (uint8_t *)scratch;
    s.keys = at;
    s.values = at += round_up(trips_igemm_pack_size(lk, d, 0), 64);
    s.scores = (float *)(void *)(at += round_up(trips_igemm_pack_size(d, lk, 0), 64));
    s.factors = (float *)(void *)(at += IATTENTION_ROWS * s.lds * sizeof(float));
    s.sums = (float *)(void *)(at += s.lds * sizeof(float));
    s.bytes = at + round_up(2 * IATTENTION_ROWS * d * sizeof(float), 64);
    return s;
}
