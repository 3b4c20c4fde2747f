// Softmax attention of one head in 8 bits: both products are int8 products, softmax in between is fp32.
//
// Keys are divided into groups of some 50 to 100, and weights are bytes with a scale for each group. Where a few keys get all the
// attention, only their own groups are rounded to 1/255 of it: a row keeps 41 dB however its attention is spread. And a scale for
// the row of each value, multiplied into its weight, keeps small values as exact as large ones: its logarithm is added to the
// scores, which are exponents of 2.

enum { BLOCK_VECTORS = KEY_BLOCK / VL };
_Static_assert(KEY_BLOCK % VL == 0 && VL % GROUP_KEYS == 0, "blocks are whole vectors, and vectors whole groups");
_Static_assert(VL <= TRIPS_PACK_ROWS && GROUP_KEYS <= TRIPS_PACK_ROWS, "scratch is laid out for TRIPS_PACK_ROWS unbiased rows");

/// Scores i … of up to VL keys, masked; −∞ in the lanes beyond. Computed twice rather than stored in between.
INLINE vf score_at(const float *x, const float *mask, size_t i, size_t lanes) {
    if (lanes == VL) return mask ? vf_fma(vf_set(LOG2_E), vf_load(mask + i), vf_load(x + i)) : vf_load(x + i);
    vf s = vf_load_n(x + i, lanes);
    if (mask) s = vf_fma(vf_set(LOG2_E), vf_load_n(mask + i, lanes), s);
    return vf_first_n(lanes, s, vf_set(-INFINITY));
}

/// The largest score of each group of a segment of n keys, in all lanes of that group.
INLINE void group_peaks(vf *peaks, const float *x, const float *mask, size_t n) {
    vf most[2][BLOCK_VECTORS];
    UNROLLED for (int v = 0; v < BLOCK_VECTORS; v++) most[0][v] = most[1][v] = vf_set(-INFINITY);
    size_t i = 0;
    for (; i + 2 * KEY_BLOCK <= n; i += 2 * KEY_BLOCK)
        UNROLLED for (size_t u = 0; u < 2; u++)
            UNROLLED for (size_t v = 0; v < BLOCK_VECTORS; v++)
                most[u][v] = vf_max(most[u][v], score_at(x, mask, i + u * KEY_BLOCK + v * VL, VL));
    for (; i < n; i += KEY_BLOCK)
        UNROLLED for (size_t v = 0; v < BLOCK_VECTORS; v++)
            most[0][v] = vf_max(most[0][v], score_at(x, mask, i + v * VL, lanes_left(n - i, (int)v)));
    UNROLLED for (int v = 0; v < BLOCK_VECTORS; v++) peaks[v] = vf_lane_maximum(vf_max(most[0][v], most[1][v]));
}

/// Weights of n keys of a segment as bytes, 255 at the peak of a group, which takes `length` bytes; `sums`: in each lane that of
/// the weights divided by the factors of the values' rows.
INLINE void group_weights(uint8_t *bytes, size_t length, vf *sums, const vf *peaks, const float *x, const float *mask,
                          const float *inverses, size_t n) {
    vf shifts[BLOCK_VECTORS];
    UNROLLED for (int v = 0; v < BLOCK_VECTORS; v++) {
        // For a group without visible keys.
        shifts[v] = vf_max(vf_set(-FLT_MAX), peaks[v]);
        sums[v] = vf_zero();
    }
    // Backwards: four blocks are stored even where a group has fewer left, and what that overwrites of the next group is stored later.
    for (size_t i = round_up(n, 4 * KEY_BLOCK); i > 0;) {
        i -= 4 * KEY_BLOCK;
        UNROLLED for (size_t v = 0; v < BLOCK_VECTORS; v++) {
            vf weights[4];
            UNROLLED for (size_t u = 0; u < 4; u++) {
                size_t at = i + u * KEY_BLOCK + v * VL, lanes = i + 4 * KEY_BLOCK <= n ? VL : at < n ? lanes_left(n - at, 0) : 0;
                weights[u] = vf_zero();
                if (lanes == 0) continue;
                weights[u] = vf_exp2_byte(vf_sub(score_at(x, mask, at, lanes), shifts[v]));
                sums[v] = vf_fma(weights[u], vf_load(inverses + at), sums[v]);
            }
            store_lane_bytes(bytes + v * (VL / GROUP_KEYS) * length + i / SEGMENT_GROUPS, length, weights);
        }
    }
}

/// Scores of the first n keys of a row to weights: bytes, and their scale for each group. Returns the largest score.
static float softmax_bytes(const iattention_parts *s, uint8_t *bytes, float *scales, const float *x, const float *mask, size_t n,
                           trips_fully_masked fully_masked) {
    size_t length = segment_keys(s->groups), segments = (n + length - 1) / length;
    vf most = vf_set(-INFINITY), total = vf_zero();
    for (size_t g = 0; g < segments; g++) {
        size_t at = g * length, keys = n - at < length ? n - at : length;
        vf peaks[BLOCK_VECTORS], sums[BLOCK_VECTORS];
        group_peaks(peaks, x + at, mask ? mask + at : NULL, keys);
        group_weights(bytes + at, group_keys(s->groups), sums, peaks, x + at, mask ? mask + at : NULL, s->inverses + at, keys);
        UNROLLED for (int v = 0; v < BLOCK_VECTORS; v++) {
            vf_store(s->peaks + g * KEY_BLOCK + v * VL, peaks[v]);
            vf_store(s->sums + g * KEY_BLOCK + v * VL, sums[v]);
            most = vf_max(peaks[v], most);
        }
    }
    float largest = vf_maximum(most);
    for (size_t i = 0; i < segments * KEY_BLOCK; i += VL) {
        vf share = vf_exp2_negative(vf_sub(vf_load(s->peaks + i), vf_set(softmax_shift(largest))));
        total = vf_fma(share, vf_load(s->sums + i), total);
        vf_store(s->peaks + i, share);
    }
    float sum = vf_sum(total);
    if (drops_weights(sum, fully_masked)) {
        float nothing = 0;
        // NaN where a row of values holds NaN.
        for (size_t j = 0; j < n; j++) nothing += 0 * s->inverses[j];
        for (size_t g = 0; g < group_count(s->groups); g++) scales[g] = nothing;
        return largest;
    }
    float factor = s->unit * softmax_factor(sum, fully_masked);
    for (size_t g = 0; g < group_count(s->groups); g++)
        scales[g] = g < segments * SEGMENT_GROUPS ? factor * s->peaks[g * GROUP_KEYS] : 0;
    return largest;
}

static void softmax_bytes_masked(const iattention_parts *s, uint8_t *bytes, float *scales, float *x, const float *mask, size_t n,
                                 trips_fully_masked fully_masked) {
    if (softmax_bytes(s, bytes, scales, x, mask, n, fully_masked) != -INFINITY || !mask) return;
    // Finite addends as low as -FLT_MAX overflow when multiplied by log₂ e. Added without the factor they absorb a score, whatever
    // its unit, as they do in fp32.
    float most = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        x[j] += mask[j];
        most = x[j] > most ? x[j] : most;
    }
    for (size_t j = 0; j < n; j++) x[j] = x[j] - softmax_shift(most) + s->shifts[j];
    softmax_bytes(s, bytes, scales, x, NULL, n, fully_masked);
}

/// 16 bytes in memory of any alignment and any declared type.
typedef uint8_t bytes16 __attribute__((ext_vector_type(16), aligned(1), may_alias));
typedef uint16_t pairs8 __attribute__((ext_vector_type(8)));

/// Rows of d bytes without their bias, zeros up to `height` rows and whole cache lines.
INLINE void unbias_rows(int8_t *restrict to, size_t ldr, trips_byte_rows x, size_t first, size_t rows, size_t height, size_t d) {
    for (size_t r = 0; r < rows; r++) {
        const uint8_t *restrict from = x.bytes + (first + r) * x.ld;
        size_t p = 0;
        for (; p + 16 <= d; p += 16) {
            *(bytes16 *)(to + r * ldr + p) = *(const bytes16 *)(from + p) ^ (uint8_t)0x80;
        }
        for (; p < d; p++) to[r * ldr + p] = (int8_t)(from[p] ^ 0x80);
        if (p < ldr) memset(to + r * ldr + p, 0, ldr - p);
    }
    if (rows < height) memset(to + rows * ldr, 0, (height - rows) * ldr);
}

/// The corrections of VL packed columns.
INLINE void pack_corrections(igemm_group to, size_t column) {
#if VI_DOT4_LESS_128
    const uint8_t ones[4] = {129, 129, 129, 129};
#else
    const uint8_t ones[4] = {1, 1, 1, 1};
#endif
    uint8_t widened[4 * INPUT_BYTES];
    vinputs inputs = load_inputs(prepare_rows(widened, ones, sizeof ones, 1, sizeof ones).a);
    vi sum = vi_zero();
    for (size_t p = 0; p < to.k; p += 4)
        sum = dot4(sum, inputs, prepare_weights(vi_load((const int32_t *)(const void *)(to.weights + p * TRIPS_PANEL + column * 4))));
    int32_t *corrections = to.corrections + column;
    vi_store(corrections, sum);
    for (int i = 0; i < VL; i++) corrections[i] *= -128;
}

/// VL keys as columns `column` … of a group; four bytes are as wide as a float.
INLINE void pack_key_vector(igemm_group to, size_t column, const int8_t *rows, size_t ldr) {
    size_t p = 0;
    for (; p + 4 * VL <= to.k; p += 4 * VL)
        transpose_block(false, (float *)(void *)(to.weights + p * TRIPS_PANEL + column * 4), TRIPS_PANEL,
                        (const float *)(const void *)(rows + p), ldr / 4);
    for (; p < to.k; p += 4)
        for (size_t i = 0; i < VL; i++) memcpy(to.weights + p * TRIPS_PANEL + (column + i) * 4, rows + i * ldr + p, 4);
    pack_corrections(to, column);
}

/// Keys [n, d] as the right-hand side of a product with biased bytes, up to whole blocks.
static void pack_keys(const iattention_parts *s, trips_byte_rows k, size_t n, size_t d) {
    for (size_t j = 0; j < round_up(n, KEY_BLOCK); j += VL) {
        size_t rows = j < n ? lanes_left(n - j, 0) : 0, column = j % TRIPS_PANEL;
        igemm_group to = igemm_group_at(s->keys, j / TRIPS_PANEL, 0, d, 0);
        unbias_rows(s->rows, s->ldr, k, j, rows, VL, d);
        pack_key_vector(to, column, s->rows, s->ldr);
        for (size_t i = 0; i < VL; i++) to.scales[column + i] = i < rows ? k.scales[j + i] : 0;
    }
}

/// log₂ x for 2⁻²⁰ ≤ x ≤ 1: absolute error 1e-6.
INLINE vf vf_log2_part(vf x) {
    // The bits of a float, as an integer, approximate its logarithm; the error is close to a parabola, which is added. A step of
    // Newton's method gives the rest.
    vf line = vf_fma(vi_to_float(vf_magnitude(x)), vf_set(0x1p-23f), vf_set(-127)), part = vf_fraction(line);
    vf guess = vf_min(vf_zero(), vf_fma(part, vf_fnma(part, vf_set(0.3436f), vf_set(0.3436f)), line));
    vf error = vf_sub(vf_div(x, vf_exp2_negative(guess)), vf_set(1));
    return vf_fma(vf_mul(error, vf_fnma(error, vf_set(0.5f), vf_set(1))), vf_set(LOG2_E), guess);
}

/// Returns the largest scale of the n rows of values, and stores the others relative to it.
static float scale_values(const iattention_parts *s, const float *scales, size_t n) {
    float largest = 0;
    for (size_t i = 0; i < n; i++) largest = scales[i] > largest ? scales[i] : largest;
    vf inverse = vf_set(largest > 0 ? 1 / largest : 0), least = vf_set(LEAST_VALUE_SCALE);
    for (size_t i = 0; i < s->lds; i += VL) {
        size_t lanes = i < n ? lanes_left(n - i, 0) : 0;
        // max returns its second operand for NaN, so NaN propagates.
        vf part = vf_first_n(lanes, vf_max(least, vf_mul(inverse, vf_load_n(scales + i, lanes))), vf_set(1));
        vf_store(s->inverses + i, vf_div(vf_set(1), part));
        vf_store(s->shifts + i, vf_first_n(lanes, vf_log2_part(part), vf_set(-INFINITY)));
    }
    return largest;
}

/// 16 columns of GROUP_KEYS rows: of each the bytes of all rows side by side.
INLINE void store_columns(int8_t *to, const int8_t *rows, size_t ld) {
    bytes16 x[GROUP_KEYS];
    UNROLLED for (size_t r = 0; r < GROUP_KEYS; r++) x[r] = *(const bytes16 *)(rows + r * ld);
#define LOW(a, b) __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23)
#define HIGH(a, b) __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31)
#define LOW_PAIRS(a, b) (bytes16)__builtin_shufflevector((pairs8)(a), (pairs8)(b), 0, 8, 1, 9, 2, 10, 3, 11)
#define HIGH_PAIRS(a, b) (bytes16)__builtin_shufflevector((pairs8)(a), (pairs8)(b), 4, 12, 5, 13, 6, 14, 7, 15)
    bytes16 low[2] = {LOW(x[0], x[1]), LOW(x[2], x[3])}, high[2] = {HIGH(x[0], x[1]), HIGH(x[2], x[3])};
    bytes16 *columns = (bytes16 *)to;
    columns[0] = LOW_PAIRS(low[0], low[1]), columns[1] = HIGH_PAIRS(low[0], low[1]);
    columns[2] = LOW_PAIRS(high[0], high[1]), columns[3] = HIGH_PAIRS(high[0], high[1]);
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
}

/// Values [n, d] as the right-hand side of a product with unbiased bytes.
static void pack_values(const iattention_parts *s, trips_byte_rows v, size_t n, size_t d) {
    size_t length = group_keys(s->groups);
    for (size_t i = 0; i < n; i += GROUP_KEYS) {
        size_t place = key_place(s->groups, i), rows = n - i < GROUP_KEYS ? n - i : GROUP_KEYS;
        unbias_rows(s->rows, s->ldr, v, i, rows, GROUP_KEYS, d);
        for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += 16) {
            igemm_group to = igemm_group_at(s->values, j / TRIPS_PANEL, place / length, s->places, length);
            store_columns(to.weights + place % length * TRIPS_PANEL + j % TRIPS_PANEL * 4, s->rows + j, s->ldr);
        }
    }
#if VI_DOT4_LESS_128
    for (size_t g = 0; g < group_count(s->groups); g++)
        for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += VL)
            pack_corrections(igemm_group_at(s->values, j / TRIPS_PANEL, g, s->places, length), j % TRIPS_PANEL);
#endif
}

/// Rows of weights, with their scales [rows][groups], times the values' columns from `place->column` on.
INLINE void weighted_values_body(const int rows, const uint8_t *weights, size_t ldw, const float *row_scales,
                                 const igemm_place *place, float *out, size_t ldo, size_t columns) {
    vi sum[IGEMM_ROWS][IGEMM_WIDEST];
    igemm_outputs outputs[IGEMM_WIDEST];
    float total[IGEMM_FLOATS];
    for (size_t g = 0; g < place->groups; g++) {
        igemm_group_tile(rows, 2, sum, weights + g * place->group * INPUT_BYTES, ldw, place, g, outputs);
        UNROLLED_ROWS for (int i = 0; i < rows; i++) {
            vf scale = vf_set(row_scales[(size_t)i * place->groups + g]);
            UNROLLED for (int v = 0; v < 2; v++) {
                float *t = total + (i * 2 + v) * VL;
                vf x = vi_to_float(sum[i][v]);
                vf_store(t, g == 0 ? vf_mul(scale, x) : vf_fma(scale, x, vf_load(t)));
            }
        }
    }
    UNROLLED for (int v = 0; v < 2; v++) {
        size_t lanes = lanes_left(columns, v);
        UNROLLED_ROWS for (int i = 0; i < rows; i++)
            vf_store_n(out + (size_t)i * ldo + v * VL, lanes, vf_load(total + (i * 2 + v) * VL));
    }
}

#if IGEMM_AMX
INLINE void weighted_values(size_t rows, const uint8_t *weights, size_t ldw, const float *row_scales, const igemm_place *place,
                            float *out, size_t ldo, size_t columns) {
    weighted_values_body((int)rows, weights, ldw, row_scales, place, out, ldo, columns);
}
#else
typedef void (*weighted_values_tile)(const uint8_t *weights, size_t ldw, const float *row_scales, const igemm_place *place,
                                     float *out, size_t ldo, size_t columns);

#define WEIGHTED_VALUES(rows)                                                                                             \
    static void weighted_values_##rows(const uint8_t *weights, size_t ldw, const float *row_scales,                      \
                                       const igemm_place *place, float *out, size_t ldo, size_t columns) {               \
        weighted_values_body(rows, weights, ldw, row_scales, place, out, ldo, columns);                                  \
    }
#define WEIGHTED_VALUES_ENTRY(rows) weighted_values_##rows,
EACH_HEIGHT(IGEMM_ROWS, WEIGHTED_VALUES)
static const weighted_values_tile weighted_values_tiles[IGEMM_ROWS + 1] = {NULL, EACH_HEIGHT(IGEMM_ROWS, WEIGHTED_VALUES_ENTRY)};

INLINE void weighted_values(size_t rows, const uint8_t *weights, size_t ldw, const float *row_scales, const igemm_place *place,
                            float *out, size_t ldo, size_t columns) {
    weighted_values_tiles[rows](weights, ldw, row_scales, place, out, ldo, columns);
}
#endif

/// out [rows, d] = the rows of `s->weights` times the values.
static void weigh_values(const iattention_parts *s, float *out, size_t ldo, size_t rows, size_t d) {
    size_t groups = group_count(s->groups), tiles = (rows + IGEMM_ROWS - 1) / IGEMM_ROWS, row = 0;
    igemm_place place = {s->values, s->places, group_keys(s->groups), groups, 0, {s->values, 0}};
    for (size_t t = 0; t < tiles; t++) {
        size_t height = share(rows, tiles, t);
        // The scores are not needed any more, and took more room.
        igemm_inputs weights = prepare_rows((uint8_t *)s->scores, s->weights + row * s->ldw, s->ldw, height, s->places);
        begin_tiles(height, &place);
        for (place.column = 0; place.column < d; place.column += 2 * VL)
            weighted_values(height, weights.a, weights.lda, s->scales + row * groups, &place,
                            out + row * ldo + place.column, ldo, d - place.column);
        row += height;
    }
    end_tiles();
}

static void v_iattention(trips_byte_rows q, trips_byte_rows k, trips_byte_rows v, float *out, size_t ldo, size_t lq, size_t lk,
                       size_t d, float scale, const float *mask, size_t ldm, bool causal,
                       trips_fully_masked fully_masked, void *scratch) {
    iattention_parts s = iattention_parts_of(scratch, lk, d);
    pack_keys(&s, k, lk, d);
    pack_values(&s, v, lk, d);
    s.unit = scale_values(&s, v.scales, lk);
    // For places without a key, and for those that no row of a causal block has seen yet.
    memset(s.weights, 0, IATTENTION_ROWS * s.ldw);
    trips_epilogue shifts = {.bias = s.shifts};
    for (size_t i0 = 0; i0 < lq; i0 += IATTENTION_ROWS) {
        size_t rows = lq - i0 < IATTENTION_ROWS ? lq - i0 : IATTENTION_ROWS;
        float scales[IATTENTION_ROWS];
        for (size_t r = 0; r < rows; r++) scales[r] = q.scales[i0 + r] * (scale * LOG2_E);
        // Whole vectors: the shifts of lanes beyond the last key are −∞.
        v_igemm(q.bytes + i0 * q.ld, q.ld, scales, s.keys, lk, d, 0, s.scores, s.lds, 0, rows, 0, round_up(lk, KEY_BLOCK), &shifts);
        for (size_t r = 0; r < rows; r++) {
            const float *addends = mask ? mask + (i0 + r) * ldm : NULL;
            size_t own = causal ? visible_keys(i0 + r, lk) : mask ? lk : round_up(lk, KEY_BLOCK);
            softmax_bytes_masked(&s, s.weights + r * s.ldw, s.scales + r * group_count(s.groups), s.scores + r * s.lds, addends, own,
                                 fully_masked);
        }
        weigh_values(&s, out + i0 * ldo, ldo, rows, d);
    }
}
