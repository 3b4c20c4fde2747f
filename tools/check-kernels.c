// Holds every kernel, on each path that this processor has, beside its scalar reference: random sizes with all kinds of ends, with
// the tolerances of Tests/KernelsTests. For processors that no Swift toolchain is at hand for; see check-arm.sh.
#include "checksums.h"
#include "kernels_ref.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// MARK: - Data

static uint64_t state;

static uint64_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state ^ state >> 33) * 0xff51afd7ed558ccdu >> 11;
}

/// From low to high.
static size_t pick(size_t low, size_t high) { return low + next() % (high - low + 1); }

enum { MOST_ARRAYS = 32 };
static struct { void *at; size_t size; } arrays[MOST_ARRAYS];
static int count;

/// Memory filled with `byte`, at a multiple of 64 where its size is one. Behind it lies a page that must not be touched.
static void *array(size_t bytes, int byte) {
    size_t page = 1 << 16, size = (bytes + page - 1) / page * page + page;
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (count == MOST_ARRAYS || base == MAP_FAILED || mprotect(base + size - page, page, PROT_NONE) != 0) abort();
    arrays[count].at = base, arrays[count++].size = size;
    return memset(base + size - page - bytes, byte, bytes);
}

static void free_arrays(void) {
    while (count > 0) count--, munmap(arrays[count].at, arrays[count].size);
}

static float *floats(size_t n, float scale) {
    float *x = array(n * sizeof *x, 0);
    for (size_t i = 0; i < n; i++) x[i] = ((float)(next() % (1 << 24)) * 0x1p-23f - 1) * scale;
    return x;
}

static void *bytes(size_t n) {
    uint8_t *x = array(n, 0);
    for (size_t i = 0; i < n; i++) x[i] = (uint8_t)next();
    return x;
}

static float *maybe(float *x) { return next() % 2 ? x : NULL; }

enum { LAST_ACTIVATION = TRIPS_ACTIVATION_EXP };

/// For a product [m, n]; of the residual's rows each may be any.
static trips_epilogue epilogue(size_t m, size_t n, size_t ldr) {
    int32_t *rows = array(m * sizeof(int32_t), 0);
    for (size_t i = 0; i < m; i++) rows[i] = (int32_t)pick(0, m - 1);
    return (trips_epilogue){
        .bias = maybe(floats(n, 1)), .residual = maybe(floats(m * ldr, 1)), .ldr = ldr,
        .residual_rows = next() % 2 ? rows : NULL, .activation = (trips_activation)pick(0, LAST_ACTIVATION)};
}

static size_t padded(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// MARK: - Results

typedef enum type { BYTES, FLOATS } type;

/// Numbers that a kernel wrote, and how far a path may be off: a byte by `tolerance`, a float by that times 1 + its size, and
/// all by `mean_square`, the root of which is meant; 0 where that does not matter.
typedef struct part {
    const void *at;
    size_t n;
    type type;
    double tolerance, mean_square;
} part;

enum { MOST_PARTS = 2 };
static part parts[2][MOST_PARTS];
static int part_counts[2];
/// Whether it is the reference's turn.
static bool reference;

static void result(const void *at, size_t n, type type, double tolerance, double mean_square) {
    if (part_counts[reference] == MOST_PARTS) abort();
    parts[reference][part_counts[reference]++] = (part){at, n, type, tolerance, mean_square};
}

static double number(part p, size_t i) {
    return p.type == BYTES ? ((const uint8_t *)p.at)[i] : (double)((const float *)p.at)[i];
}

/// How many times its tolerance a path is off.
static double off(part expected, part found) {
    double worst = 0, squares = 0;
    for (size_t i = 0; i < expected.n; i++) {
        double y = number(expected, i), x = number(found, i);
        if (x == y || (isnan(x) && isnan(y))) continue;
        double difference = fabs(x - y), room = expected.tolerance * (expected.type == BYTES ? 1 : 1 + fabs(y));
        if (!(difference <= room)) worst = isfinite(difference) && room > 0 ? fmax(worst, difference / room) : INFINITY;
        squares += difference * difference;
    }
    if (expected.mean_square > 0) worst = fmax(worst, sqrt(squares / (double)expected.n) / expected.mean_square);
    return worst;
}

// MARK: - Kernels

#define RUN(name, ...) (reference ? trips_##name##_ref : trips_##name)(__VA_ARGS__)

static float *packed_weights(size_t n, size_t k) {
    float *packed = array(trips_sgemm_pack_size(n, k) * 4, 0);
    trips_sgemm_pack_ref(packed, floats(n * k, 1), k, n, k, 0, n);
    return packed;
}

static void sgemm_pack(void) {
    size_t n = pick(0, 100), k = pick(0, 50), middle = n / 2 / TRIPS_PACK_ROWS * TRIPS_PACK_ROWS, ldw = k + pick(0, 3);
    float *w = floats(n * ldw, 1), *packed = array(trips_sgemm_pack_size(n, k) * 4, 7);
    RUN(sgemm_pack, packed, w + middle * ldw, ldw, n, k, middle, n);
    RUN(sgemm_pack, packed, w, ldw, n, k, 0, middle);
    result(packed, trips_sgemm_pack_size(n, k), FLOATS, 0, 0);
}

static void sgemm_pack_factor(void) {
    size_t n = pick(0, 100), k = pick(0, 50), extra = pick(0, 3);
    bool transposed = next() % 2;
    size_t ldb = (transposed ? k : n) + extra;
    float *b = floats((transposed ? n : k) * ldb, 1), *packed = array(trips_sgemm_pack_size(n, k) * 4, 7);
    RUN(sgemm_pack_factor, packed, b, ldb, n, k, transposed);
    result(packed, trips_sgemm_pack_size(n, k), FLOATS, 0, 0);
}

static void sgemm(void) {
    size_t m = pick(0, 30), n = pick(0, 140), k = next() % 8 ? pick(0, 70) : 1024 + pick(0, 3);
    size_t lda = k + 4 * pick(0, 1), ldc = n + 3;
    float *a = floats(m * lda, 1), *packed = packed_weights(n, k), *c = array(m * ldc * 4, 0);
    trips_epilogue e = epilogue(m, n, ldc);
    size_t row = pick(0, m), column = n / 2 / TRIPS_PANEL * TRIPS_PANEL;
    RUN(sgemm, a, lda, packed, n, k, c, ldc, 0, row, 0, n, &e);
    RUN(sgemm, a, lda, packed, n, k, c, ldc, row, m, column, n, &e);
    RUN(sgemm, a, lda, packed, n, k, c, ldc, row, m, 0, column, &e);
    result(c, m * ldc, FLOATS, 1e-5, 0);
}

/// Chains of fused multiply-adds, to the bit.
static void sgemm_chains(void) {
    size_t m = pick(1, 20), n = pick(1, 100), k = pick(0, 70);
    float *a = floats(m * k, 1), *packed = packed_weights(n, k), *c = array(m * n * 4, 0);
    if (!reference) trips_sgemm(a, k, packed, n, k, c, n, 0, m, 0, n, NULL);
    for (size_t i = 0; reference && i < m * n; i++)
        for (size_t p = 0; p < k; p++)
            c[i] = fmaf(a[i / n * k + p], packed[(i % n / TRIPS_PANEL * k + p) * TRIPS_PANEL + i % n % TRIPS_PANEL], c[i]);
    result(c, m * n, FLOATS, 0, 0);
}

static void quantize_rows(void) {
    size_t m = pick(0, 20), k = pick(0, 300), ldx = k + 2, ldq = trips_quantized_row_size(k) + 4;
    float *x = floats(m * ldx, 3), *scale = array(m * 4, 0), *factors = maybe(floats(k, 2));
    for (size_t i = 0; i < m && k > 2; i++) {
        float *row = x + i * ldx;
        switch (next() % 8) {
        case 0: memset(row, 0, k * 4); break;
        case 1: row[pick(0, k - 1)] = NAN; break;
        case 2: row[pick(0, k - 1)] = -INFINITY; break;
        case 3:
            for (size_t j = 0; j < k; j++) row[j] *= 1e-38f;
            break;
        case 4: // Half-way between bytes.
            for (size_t j = 0; j < k; j++) row[j] = (float)pick(0, 126) + 0.5f;
            row[k - 1] = -127;
            break;
        }
    }
    uint8_t *q = array(m * ldq, 9);
    RUN(quantize_rows, q, ldq, scale, x, ldx, k, m, factors);
    result(q, m * ldq, BYTES, 0, 0);
    result(scale, m, FLOATS, 0, 0);
}

static size_t pick_group(void) { return next() % 2 ? 0 : 4 * pick(1, 32); }

static void igemm_pack(void) {
    size_t n = pick(0, 100), k = pick(1, 300), group = pick_group(), groups = trips_group_count(k, group), ldw = k + pick(0, 4);
    size_t middle = n / 2 / TRIPS_PACK_ROWS * TRIPS_PACK_ROWS, size = trips_igemm_pack_size(n, k, group);
    int8_t *w = bytes(n * ldw);
    float *scales = floats(n * groups, 1);
    void *packed = array(size, 0);
    RUN(igemm_pack, packed, w, ldw, scales, n, k, group, 0, middle);
    RUN(igemm_pack, packed, w + middle * ldw, ldw, scales + middle * groups, n, k, group, middle, n);
    result(packed, size, BYTES, 0, 0);
}

static void *packed_bytes(size_t n, size_t k, size_t group, const float *scales) {
    void *packed = array(trips_igemm_pack_size(n, k, group), 0);
    trips_igemm_pack_ref(packed, bytes(n * k), k, scales, n, k, group, 0, n);
    return packed;
}

static void igemm(void) {
    size_t m = pick(0, 30), n = pick(0, 140), k = pick(1, 300), group = pick_group(), lda = padded(k, 4), ldc = n + 1;
    void *packed = packed_bytes(n, k, group, floats(n * trips_group_count(k, group), 0.01f));
    uint8_t *a = bytes(m * lda);
    float *scale = floats(m, 0.01f), *c = array(m * ldc * 4, 0);
    trips_epilogue e = epilogue(m, n, ldc);
    size_t row = pick(0, m), column = n / 2 / TRIPS_PANEL * TRIPS_PANEL;
    RUN(igemm, a, lda, scale, packed, n, k, group, c, ldc, 0, row, 0, n, &e);
    RUN(igemm, a, lda, scale, packed, n, k, group, c, ldc, row, m, column, n, &e);
    RUN(igemm, a, lda, scale, packed, n, k, group, c, ldc, row, m, 0, column, &e);
    // Activations are good for bytes.
    result(c, m * ldc, FLOATS, e.activation == TRIPS_ACTIVATION_QUICK_GELU ? 5e-5 : 2e-5, 0);
}

/// Sums of bytes at the ends of their range, exactly: with scales of 1 for one group and 0 for the others.
static void igemm_sums(void) {
    size_t m = pick(1, 20), n = pick(1, 100), k = pick(1, 500), lda = padded(k, 4), group = pick_group();
    size_t groups = trips_group_count(k, group), only = pick(0, groups - 1);
    float *ones = floats(m, 0), *scales = floats(n * groups, 0), *c = array(m * n * 4, 0);
    for (size_t i = 0; i < m; i++) ones[i] = 1;
    for (size_t i = 0; i < n; i++) scales[i * groups + only] = 1;
    uint8_t *a = bytes(m * lda);
    int8_t *w = bytes(n * k);
    if (next() % 2) {
        for (size_t i = 0; i < m * lda; i++) a[i] = a[i] % 2 ? 0 : 255;
        for (size_t i = 0; i < n * k; i++) w[i] = w[i] % 2 ? -128 : 127;
    }
    void *packed = array(trips_igemm_pack_size(n, k, group), 0);
    trips_igemm_pack_ref(packed, w, k, scales, n, k, group, 0, n);
    RUN(igemm, a, lda, ones, packed, n, k, group, c, n, 0, m, 0, n, NULL);
    result(c, m * n, FLOATS, 0, 0);
}

static void igemm_bytes(void) {
    size_t m = pick(1, 31), part = TRIPS_PANEL * pick(1, TRIPS_MOST_PART / TRIPS_PANEL), k = pick(1, 150), group = pick_group();
    size_t n = 3 * part, rows = m + 2, lda = padded(k, 4), row = pick(0, m);
    void *packed = packed_bytes(n, k, group, floats(n * trips_group_count(k, group), 0.01f));
    uint8_t *a = bytes(m * lda), *q = array(3 * rows * part, 9);
    float *scale = floats(m, 0.01f), *bias = maybe(floats(n, 1)), *scales = array(3 * rows * 4, 0);
    RUN(igemm_bytes, a, lda, scale, packed, n, k, group, q, scales, rows, part, 0, row, 0, n, bias);
    RUN(igemm_bytes, a, lda, scale, packed, n, k, group, q, scales, rows, part, row, m, part, n, bias);
    RUN(igemm_bytes, a, lda, scale, packed, n, k, group, q, scales, rows, part, row, m, 0, part, bias);
    result(q, 3 * rows * part, BYTES, 1, 0);
    result(scales, 3 * rows, FLOATS, 1e-6, 0);
}

static void dequantize_rows(void) {
    size_t n = pick(0, 20), k = pick(0, 200), group = pick_group();
    float *y = array(n * k * 4, 0), *scales = floats(n * trips_group_count(k, group), 1);
    int8_t *w = bytes(n * k);
    RUN(dequantize_rows, y, k, w, k, scales, n, k, group, maybe(floats(k, 1)));
    result(y, n * k, FLOATS, 0, 0);
}

/// None, one row for all, or a row for each of lq queries; some hide keys.
static const float *pick_mask(size_t lq, size_t lk, size_t *ldm) {
    size_t kind = pick(0, 4), hide = pick(1, 3);
    *ldm = kind % 2 ? lk + 1 : 0;
    float *mask = floats(lq * (lk + 1), 1);
    for (size_t i = 0; kind > 2 && i < lq * (lk + 1); i++) mask[i] = i % 3 < hide ? (next() % 3 ? -INFINITY : -3e38f) : 0;
    if (next() % 4 == 0) mask[pick(0, lq * (lk + 1) - 1)] = next() % 2 ? NAN : INFINITY;
    return kind == 0 ? NULL : mask;
}

static void attention(void) {
    size_t lq = pick(1, 61), lk = pick(1, 150), d = pick(1, 70), ld = d + 5, ldm;
    float *q = floats(lq * ld, 2), *k = floats(lk * ld, 2), *v = floats(lk * ld, 1), *out = array(lq * ld * 4, 0);
    float *scratch = array(trips_attention_scratch(lk, d) * 4, 0xff);
    const float *mask = pick_mask(lq, lk, &ldm);
    bool causal = next() % 2;
    trips_fully_masked fully_masked = (trips_fully_masked)(next() % 3);
    RUN(attention, q, ld, k, ld, v, ld, out, ld, lq, lk, d, 0.5f, mask, ldm, causal, fully_masked, scratch);
    result(out, lq * ld, FLOATS, 1e-5, 0);
}

static trips_byte_rows byte_rows(const float *x, size_t n, size_t d) {
    size_t ld = padded(d, 4) + 4;
    uint8_t *to = array(n * ld, 0);
    float *scales = array(n * 4, 0);
    trips_quantize_rows_ref(to, ld, scales, x, d, d, n, NULL);
    return (trips_byte_rows){to, ld, scales};
}

static void iattention(void) {
    size_t lq = pick(1, 40), lk = next() % 4 ? pick(1, 150) : pick(400, 700), d = pick(1, 70), ldm;
    float *values = floats(lk * d, 1);
    for (size_t i = 0; i < lk * d; i++) values[i] *= i / d % 5 == 3 ? ldexpf(1, -(int)(i / d % 31)) : 1;
    trips_byte_rows q = byte_rows(floats(lq * d, 2), lq, d), k = byte_rows(floats(lk * d, 2), lk, d), v = byte_rows(values, lk, d);
    const float *mask = pick_mask(lq, lk, &ldm);
    bool causal = next() % 2;
    trips_fully_masked fully_masked = (trips_fully_masked)(next() % 3);
    float *out = array(lq * d * 4, 0);
    void *scratch = array(trips_iattention_scratch(lk, d), 0xff);
    RUN(iattention, q, k, v, out, d, lq, lk, d, 0.5f, mask, ldm, causal, fully_masked, scratch);
    result(out, lq * d, FLOATS, 1.0 / 255, 5e-4);
}

static void selection(void) {
    size_t n = pick(1, 200), heads = pick(1, 12), d = pick(1, 70), ldk = heads * d + 3;
    size_t middle = pick(0, n);
    bool shared = next() % 2;
    float *query = floats(heads * d, 3), *keys = floats(n * ldk, 1), *dots = array(heads * n * 4, 0);
    float *scores = array(n * 4, 0);
    RUN(selection_dots, dots, query, keys, ldk, n, 0, middle, heads, d, shared);
    RUN(selection_dots, dots, query, keys, ldk, n, middle, n, heads, d, shared);
    float *copy = memcpy(array(heads * n * 4, 0), dots, heads * n * 4);
    result(copy, heads * n, FLOATS, 1e-5, 0);
    RUN(selection_scores, scores, dots, n, heads, 0.125f);
    result(scores, n, FLOATS, 1e-5, 0);
}

static void layernorm_rows(void) {
    size_t rows = pick(0, 4), n = pick(2, 200), ld = n + 2;
    float *x = floats(rows * ld, 1), *y = array(rows * ld * 4, 0);
    for (size_t i = 0; i < rows * ld; i++) x[i] += 100;
    RUN(layernorm_rows, y, ld, x, ld, rows, n, maybe(floats(n, 1)), maybe(floats(n, 1)), 1e-5f);
    // Of two values the deviation may be small, and the mean's rounding is not.
    result(y, rows * ld, FLOATS, n < 8 ? 1e-2 : 5e-5, 0);
}

static void weighted_rows(void) {
    size_t count = pick(0, 60), n = pick(0, 300), ld = n + pick(0, 3);
    float *x = floats(80 * ld, 1), *weights = floats(count, 1), *y = array(n * 4, 0);
    int32_t *rows = array(count * sizeof(int32_t), 0);
    for (size_t i = 0; i < count; i++) rows[i] = (int32_t)pick(0, 79);
    RUN(weighted_rows, y, x, ld, next() % 2 ? rows : NULL, weights, count, n);
    result(y, n, FLOATS, 1e-5, 0);
}

static void softmax_rows(void) {
    size_t rows = pick(0, 4), n = pick(0, 300), ldx = n + pick(0, 3), ldy = n + pick(0, 3);
    float *x = floats(rows * ldx, 20), *y = array(rows * ldy * 4, 0);
    for (size_t r = 0; r < rows && n > 0; r++) {
        float *row = x + r * ldx, special = next() % 2 ? -INFINITY : NAN;
        switch (next() % 4) {
        case 0: row[pick(0, n - 1)] = special; break;
        case 1:
            for (size_t i = 0; i < n; i++) row[i] = -INFINITY;
            break;
        }
    }
    RUN(softmax_rows, y, ldy, x, ldx, rows, n);
    result(y, rows * ldy, FLOATS, 1e-6, 0);
}

static void transpose(void) {
    size_t rows = pick(0, 70), columns = pick(0, 70), ldx = columns + pick(0, 3), ldy = rows + pick(0, 3);
    float *x = floats(rows * ldx, 1), *y = array(columns * ldy * 4, 0);
    RUN(transpose, y, ldy, x, ldx, rows, columns);
    result(y, columns * ldy, FLOATS, 0, 0);
}

static void activate(void) {
    static const float special[] = {0, -0.0f, 1e-30f, 1e-4f, 1, -1, 88.7f, -87, -103, 200, -200, INFINITY, NAN};
    size_t n = pick(0, 300);
    float *x = floats(n, next() % 2 ? 2 : 12), *y = array(n * 4, 0);
    for (size_t i = 0; i < n; i += pick(1, 9)) x[i] = special[pick(0, sizeof special / 4 - 1)];
    RUN(activate, y, x, n, (trips_activation)pick(0, LAST_ACTIVATION));
    result(y, n, FLOATS, 1e-6, 0);
}

/// Chains from the bias on, to the bit.
static void convolve(void) {
    size_t m = next() % 4 ? pick(1, 45) : 1, taps = pick(0, 40), n = next() % 4 ? pick(0, 150) : 1, ldy = n + 3, reach = 12;
    size_t *offsets = array(taps * sizeof *offsets, 0), tiles = trips_filter_tiles(m), middle = pick(0, tiles);
    for (size_t t = 0; t < taps; t++) offsets[t] = pick(0, reach);
    float *w = floats(m * taps, 1), *packed = array(m * taps * 4, 0), *bias = maybe(floats(m, 1));
    float *x = floats(n + reach, 1), *y = array(m * ldy * 4, 0);
    trips_filter_pack(packed, w, taps, m, 0, m);
    if (!reference) {
        trips_convolve(y, ldy, x, offsets, packed, taps, bias, m, n, middle, tiles);
        trips_convolve(y, ldy, x, offsets, packed, taps, bias, m, n, 0, middle);
    }
    for (size_t i = 0; reference && i < m; i++)
        for (size_t j = 0; j < n; j++) {
            float sum = bias ? bias[i] : 0;
            for (size_t t = 0; t < taps; t++) sum = fmaf(w[i * taps + t], x[offsets[t] + j], sum);
            y[i * ldy + j] = sum;
        }
    result(y, m * ldy, FLOATS, 0, 0);
}

static void convolve_reference(void) {
    size_t m = pick(1, 45), taps = pick(0, 40), n = pick(0, 100);
    size_t *offsets = array(taps * sizeof *offsets, 0);
    for (size_t t = 0; t < taps; t++) offsets[t] = pick(0, 12);
    float *packed = floats(m * taps, 1), *x = floats(n + 12, 1), *y = array(m * n * 4, 0);
    RUN(convolve, y, n, x, offsets, packed, taps, NULL, m, n, 0, trips_filter_tiles(m));
    result(y, m * n, FLOATS, 2e-5, 0);
}

static void depthwise(void) {
    size_t kernel = 3 + 2 * pick(0, 2);
    trips_phase_axis axes[2];
    size_t inside = 1, outside = 1;
    for (int i = 0; i < 2; i++) {
        size_t size = pick(1, 40), windows = pick(TRIPS_DEPTHWISE_LINES, 40);
        axes[i] = (trips_phase_axis){size, 1, windows + kernel - 1, 1, (ptrdiff_t)pick(0, 14) - 3};
        inside *= size, outside *= windows;
    }
    float *x = floats(inside, 1), *w = floats(kernel * kernel, 1), *y = array(outside * 4, 7);
    RUN(depthwise, y, x, axes, w, kernel, 0.5f);
    result(y, outside, FLOATS, 2e-5, 0);
}

static void phases(void) {
    trips_phase_axis axes[3];
    size_t inside = 1, outside = 1;
    for (int i = 0; i < 3; i++) {
        size_t stride = pick(1, 4);
        size_t size = pick(1, i == 2 ? 70 : 9), places = pick(1, i == 2 ? 45 : 7);
        axes[i] = (trips_phase_axis){size, pick(1, stride), places, stride, (ptrdiff_t)pick(0, 14) - 3};
        inside *= axes[i].size, outside *= axes[i].phases * axes[i].places;
    }
    float *x = floats(inside, 1), *to = array(outside * 4, 7);
    RUN(phases, to, x, axes);
    result(to, outside, FLOATS, 0, 0);
}

static void finish(void) {
    size_t rows = pick(0, 5), n = pick(0, 50), ld = n + pick(0, 3);
    float *x = floats(rows * ld, 9), *y = array(rows * ld * 4, 0);
    float low = next() % 2 ? 0 : -INFINITY, high = next() % 2 ? 1 : INFINITY;
    trips_finishing f = {(trips_activation)pick(0, LAST_ACTIVATION), 1.0f / 6, 0.5f, low, high, next() % 2, next() % 2};
    RUN(finish, y, ld, x, ld, rows, n, maybe(floats(rows * ld, 1)), ld, &f);
    result(y, rows * ld, FLOATS, 2e-6, 0);
}

/// All 65536 in one of the rounds.
static void halves(void) {
    size_t n = next() % 8 ? pick(0, 100) : 65536;
    uint16_t *x = bytes(2 * n);
    for (size_t i = 0; n == 65536 && i < n; i++) x[i] = (uint16_t)i;
    float *y = array(n * 4, 0), *z = array(n * 4, 0);
    RUN(f16_to_f32, y, x, n);
    RUN(bf16_to_f32, z, x, n);
    result(y, n * 4, BYTES, 0, 0);
    result(z, n * 4, BYTES, 0, 0);
}

static void planes(void) {
    size_t n = pick(0, 3000), width = (size_t)1 << pick(0, 3);
    bool rotate = next() % 2;
    uint8_t *x = bytes(n * width + 1), *y = array(n * width, 0), *z = array(n * width + 1, 0);
    // One byte off any alignment.
    RUN(planes_split, y, x + 1, n, width, rotate);
    RUN(planes_merge, z + 1, y, n, width, rotate);
    result(y, n * width, BYTES, 0, 0);
    result(z + 1, n * width, BYTES, 0, 0);
}

/// Which have no path of their own, but instructions where the processor has them.
static void checksums(void) {
    size_t n = pick(0, 2000), blocks = pick(0, 9);
    uint8_t *x = bytes(n), *y = bytes(64 * blocks);
    uint32_t *sums = array(9 * 4, 0);
    sums[8] = RUN(crc32, (uint32_t)next(), x, n);
    for (int i = 0; i < 8; i++) sums[i] = (uint32_t)next();
    RUN(sha256_blocks, sums, y, blocks);
    result(sums, 9 * 4, BYTES, 0, 0);
}

// MARK: - All of them

static const struct {
    const char *name;
    void (*run)(void);
} checks[] = {
#define CHECK(name) {#name, name}
    CHECK(sgemm_pack), CHECK(sgemm_pack_factor), CHECK(sgemm), CHECK(sgemm_chains), CHECK(quantize_rows), CHECK(igemm_pack), CHECK(igemm), CHECK(igemm_sums),
    CHECK(igemm_bytes), CHECK(dequantize_rows), CHECK(attention), CHECK(iattention), CHECK(selection), CHECK(layernorm_rows), CHECK(weighted_rows),
    CHECK(softmax_rows), CHECK(transpose), CHECK(activate), CHECK(convolve), CHECK(convolve_reference), CHECK(depthwise), CHECK(phases), CHECK(finish), CHECK(halves), CHECK(planes),
    CHECK(checksums),
};

static void run(int check, uint64_t seed, bool scalar) {
    state = seed, reference = scalar, part_counts[scalar] = 0;
    checks[check].run();
}

/// How many times its tolerance the path in use is off in the worst of many rounds.
static double worst_of(int check) {
    enum { ROUNDS = 200 };
    double worst = 0;
    for (uint64_t seed = 1; seed <= ROUNDS; seed++, free_arrays()) {
        run(check, seed, true);
        run(check, seed, false);
        for (int i = 0; i < part_counts[true]; i++) worst = fmax(worst, off(parts[true][i], parts[false][i]));
    }
    return worst;
}

int main(void) {
    int paths = 0, failed = 0;
    for (int path = TRIPS_PATH_SCALAR + 1; path < TRIPS_PATH_COUNT; path++) {
        if (!trips_kernels_force((trips_path)path)) continue;
        paths++;
        for (int check = 0; check < (int)(sizeof checks / sizeof *checks); check++) {
            double worst = worst_of(check);
            if (!(worst > 1)) continue;
            printf("%s: %s is off by %g times its tolerance\n", trips_path_name((trips_path)path), checks[check].name, worst);
            failed++;
        }
        printf("%s: %d kinds of checks done\n", trips_path_name((trips_path)path), (int)(sizeof checks / sizeof *checks));
    }
    if (paths == 0) printf("no path but the scalar one\n");
    return failed > 0 || paths == 0;
}
