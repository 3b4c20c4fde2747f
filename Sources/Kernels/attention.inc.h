// Softmax attention of one head, blocked over queries so that a block's scores stay in cache.

/// Query rows of a block.
#define QUERY_BLOCK (2 * TILE_ROWS)
_Static_assert(QUERY_BLOCK <= TRIPS_QUERY_BLOCK, "scratch is laid out for TRIPS_QUERY_BLOCK rows of scores");

/// x = exp(scale x + mask − maximum) over n scores; returns the sum, which is 0 where all of them are −∞. Scores are scaled and
/// masked twice rather than stored in between.
static float softmax_weights(float *x, size_t n, float scale, const float *mask) {
    vf s = vf_set(scale), log2e = vf_set(LOG2_E), most[4], total[2] = {vf_zero(), vf_zero()};
#define SCORE(i) (mask ? vf_fma(s, vf_load(x + (i)), vf_load(mask + (i))) : vf_mul(s, vf_load(x + (i))))
#define SCORE_N(i, left)                                                              \
    (mask ? vf_fma(s, vf_load_n(x + (i), left), vf_load_n(mask + (i), left)) : vf_mul(s, vf_load_n(x + (i), left)))
    UNROLLED for (int u = 0; u < 4; u++) most[u] = vf_set(-INFINITY);
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (int u = 0; u < 4; u++) most[u] = vf_max(most[u], SCORE(i + (size_t)u * VL));
    for (; i < n; i += VL) {
        size_t left = n - i < VL ? n - i : VL;
        most[0] = vf_max(most[0], vf_first_n(left, SCORE_N(i, left), vf_set(-INFINITY)));
    }
    vf m = vf_set(softmax_shift(vf_maximum(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])))));
    for (i = 0; i + 2 * VL <= n; i += 2 * VL)
        UNROLLED for (int u = 0; u < 2; u++) {
            vf y = vf_exp2_negative(vf_mul(log2e, vf_sub(SCORE(i + (size_t)u * VL), m)));
            vf_store(x + i + (size_t)u * VL, y);
            total[u] = vf_add(total[u], y);
        }
    for (; i < n; i += VL) {
        size_t left = n - i < VL ? n - i : VL;
        vf y = vf_exp2_negative(vf_mul(log2e, vf_sub(SCORE_N(i, left), m)));
        vf_store_n(x + i, left, y);
        total[0] = vf_add(total[0], vf_first_n(left, y, vf_zero()));
    }
#undef SCORE
#undef SCORE_N
    return vf_sum(vf_add(total[0], total[1]));
}

static void scale_row(float *y, const float *x, size_t n, float factor) {
    vf f = vf_set(factor);
    size_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, vf_mul(f, vf_load(x + i)));
    if (i < n) vf_store_n(y + i, n - i, vf_mul(f, vf_load_n(x + i, n - i)));
}

static void v_softmax_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        float *row = y + r * ldy;
        if (row != x + r * ldx) memcpy(row, x + r * ldx, n * sizeof(float));
        scale_row(row, row, n, 1.0f / softmax_weights(row, n, 1, NULL));
    }
}

static void v_attention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                      size_t ldo, size_t lq, size_t lk, size_t d, float scale,
                      const float *mask, size_t ldm, bool causal, trips_fully_masked fully_masked, float *scratch) {
    float *keys = scratch, *values = keys + trips_sgemm_pack_size(lk, d), *scores = values + trips_sgemm_pack_size(d, lk);
    size_t lds = (lk + TRIPS_PANEL - 1) / TRIPS_PANEL * TRIPS_PANEL;
    v_sgemm_pack_factor(keys, k, ldk, lk, d, true);
    v_sgemm_pack_factor(values, v, ldv, d, lk, false);
    for (size_t i0 = 0; i0 < lq; i0 += QUERY_BLOCK) {
        size_t rows = lq - i0 < QUERY_BLOCK ? lq - i0 : QUERY_BLOCK;
        // Queries of a causal block see different numbers of keys: scores beyond a row's own are zero weights.
        size_t seen = causal ? visible_keys(i0 + rows - 1, lk) : lk;
        v_sgemm(q + i0 * ldq, ldq, keys, lk, d, scores, lds, 0, rows, 0, seen, NULL);
        float sums[QUERY_BLOCK];
        for (size_t r = 0; r < rows; r++) {
            float *row = scores + r * lds;
            size_t own = causal ? visible_keys(i0 + r, lk) : lk;
            sums[r] = softmax_weights(row, own, scale, mask ? mask + (i0 + r) * ldm : NULL);
            if (drops_weights(sums[r], fully_masked)) sums[r] = 0, own = 0;
            for (size_t j = own; j < seen; j++) row[j] = 0;
        }
        sgemm_inputs(scores, lds, values, lk, seen, out + i0 * ldo, ldo, 0, rows, 0, d, NULL);
        for (size_t r = 0; r < rows; r++) {
            float *row = out + (i0 + r) * ldo;
            scale_row(row, row, d, softmax_factor(sums[r], fully_masked));
        }
    }
}

/// Keys and heads whose dot products are computed together: as many sums as registers hold, as each load then serves several.
enum { SIDE_KEYS = 6, SIDE_HEADS = TILE_ROWS < 12 ? 2 : 4 };

/// dots[h * distance + i] = the query of head h times key i; heads that are not `apart` have the same keys.
INLINE void key_dots(const bool apart, const int keys, const int heads, float *dots, size_t distance, const float *query,
                     const float *key, size_t ldk, size_t d) {
    vf sum[SIDE_KEYS][SIDE_HEADS], q[SIDE_HEADS];
    UNROLLED for (int i = 0; i < keys; i++)
        UNROLLED for (int h = 0; h < heads; h++) sum[i][h] = vf_zero();
#define ADD(load, ...)                                                                                                 \
    UNROLLED for (size_t h = 0; h < (size_t)heads; h++) q[h] = load(query + h * d + j, ##__VA_ARGS__);                 \
    UNROLLED for (size_t i = 0; i < (size_t)keys; i++) {                                                               \
        vf x = load(key + i * ldk + j, ##__VA_ARGS__);                                                                 \
        UNROLLED for (size_t h = 0; h < (size_t)heads; h++) {                                                          \
            if (apart && h > 0) x = load(key + i * ldk + h * d + j, ##__VA_ARGS__);                                    \
            sum[i][h] = vf_fma(q[h], x, sum[i][h]);                                                                    \
        }                                                                                                              \
    }
    size_t j = 0;
    for (; j + VL <= d; j += VL) { ADD(vf_load) }
    if (j < d) { ADD(vf_load_n, d - j) }
#undef ADD
    UNROLLED for (int h = 0; h < heads; h++)
        UNROLLED for (int i = 0; i < keys; i++) dots[(size_t)h * distance + i] = vf_sum(sum[i][h]);
}

INLINE void side_dots(const bool apart, float *dots, const float *query, const float *keys, size_t ldk, size_t n, size_t begin,
                      size_t end, size_t heads, size_t d) {
    for (size_t i = begin, side; i < end; i += side) {
        side = end - begin < SIDE_KEYS ? 1 : SIDE_KEYS;
        // The last ones are computed together with some that are done, whose results stay the same.
        if (end - i < side) i = end - side;
        for (size_t h = 0, group; h < heads; h += group) {
            group = heads - h < SIDE_HEADS ? 1 : SIDE_HEADS;
            float *to = dots + h * n + i;
            const float *q = query + h * d, *k = keys + i * ldk + (apart ? h * d : 0);
            if (side > 1 && group > 1) key_dots(apart, SIDE_KEYS, SIDE_HEADS, to, n, q, k, ldk, d);
            else if (side > 1) key_dots(apart, SIDE_KEYS, 1, to, n, q, k, ldk, d);
            else if (group > 1) key_dots(apart, 1, SIDE_HEADS, to, n, q, k, ldk, d);
            else key_dots(apart, 1, 1, to, n, q, k, ldk, d);
        }
    }
}

static void v_selection_dots(float *dots, const float *query, const float *keys, size_t ldk, size_t n, size_t begin, size_t end,
                             size_t heads, size_t d, bool shared) {
    if (shared) side_dots(false, dots, query, keys, ldk, n, begin, end, heads, d);
    else side_dots(true, dots, query, keys, ldk, n, begin, end, heads, d);
}

static void v_selection_scores(float *scores, float *dots, size_t n, size_t heads, float scale) {
    for (size_t i = 0; i < n; i++) scores[i] = 0;
    for (size_t h = 0; h < heads; h++) {
        float *weights = dots + h * n;
        vf f = vf_set(1.0f / (softmax_weights(weights, n, scale, NULL) * (float)heads));
        for (size_t i = 0; i < n; i += VL) {
            size_t left = lanes_left(n - i, 0);
            vf_store_n(scores + i, left, vf_fma(f, vf_load_n(weights + i, left), vf_load_n(scores + i, left)));
        }
    }
}
