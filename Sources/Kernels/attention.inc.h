// Softmax attention of one head, blocked over queries so that a block's scores stay in cache.

/// Query rows of a block.
#define QUERY_BLOCK (2 * TILE_ROWS)

/// x = v_exp(scale x + mask − maximum) over n scores; returns the sum.
static float softmax_weights(float *x, size_t n, float scale, const float *mask) {
    vf most = vf_set(-INFINITY), s = vf_set(scale), total = vf_zero();
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vf y = vf_mul(s, vf_load(x + i));
        if (mask) y = vf_add(y, vf_load(mask + i));
        vf_store(x + i, y);
        most = vf_max(most, y);
    }
    if (i < n) {
        vf y = vf_mul(s, vf_load_n(x + i, n - i));
        if (mask) y = vf_add(y, vf_load_n(mask + i, n - i));
        vf_store_n(x + i, n - i, y);
        most = vf_max(most, vf_first_n(n - i, y, vf_set(-INFINITY)));
    }
    vf m = vf_set(vf_maximum(most));
    for (i = 0; i + VL <= n; i += VL) {
        vf y = vf_exp(vf_sub(vf_load(x + i), m));
        vf_store(x + i, y);
        total = vf_add(total, y);
    }
    if (i < n) {
        vf y = vf_first_n(n - i, vf_exp(vf_sub(vf_load_n(x + i, n - i), m)), vf_zero());
        vf_store_n(x + i, n - i, y);
        total = vf_add(total, y);
    }
    return vf_sum(total);
}

static void scale_row(float *y, const float *x, size_t n, float factor) {
    vf f = vf_set(factor);
    size_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, vf_mul(f, vf_load(x + i)));
    if (i < n) vf_store_n(y + i, n - i, vf_mul(f, vf_load_n(x + i, n - i)));
}

static void v_attention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                      size_t ldo, size_t lq, size_t lk, size_t d, size_t q_begin, size_t q_end, float scale,
                      const float *mask, size_t ldm, bool causal, float *scratch) {
    float *keys = scratch, *values = keys + trips_sgemm_pack_size(lk, d), *scores = values + trips_sgemm_pack_size(d, lk);
    size_t lds = (lk + TRIPS_PANEL - 1) / TRIPS_PANEL * TRIPS_PANEL;
    v_sgemm_pack(keys, k, ldk, lk, d, 0, lk);
    v_sgemm_pack_kn(values, v, ldv, d, lk, 0, d);
    for (size_t i0 = q_begin; i0 < q_end; i0 += QUERY_BLOCK) {
        size_t rows = q_end - i0 < QUERY_BLOCK ? q_end - i0 : QUERY_BLOCK;
        // Queries of a causal block see different numbers of keys: scores beyond a row's own are zero weights.
        size_t seen = causal ? visible_keys(i0 + rows - 1, lq, lk) : lk;
        v_sgemm(q + i0 * ldq, ldq, keys, lk, d, scores, lds, 0, rows, 0, seen, NULL);
        float sums[QUERY_BLOCK];
        for (size_t r = 0; r < rows; r++) {
            float *row = scores + r * lds;
            size_t own = causal ? visible_keys(i0 + r, lq, lk) : lk;
            sums[r] = softmax_weights(row, own, scale, mask ? mask + (i0 + r) * ldm : NULL);
            for (size_t j = own; j < seen; j++) row[j] = 0;
        }
        v_sgemm(scores, lds, values, d, seen, out + i0 * ldo, ldo, 0, rows, 0, d, NULL);
        for (size_t r = 0; r < rows; r++) {
            float *row = out + (i0 + r) * ldo;
            scale_row(row, row, d, 1.0f / sums[r]);
        }
    }
}

static void v_selection_scores(float *scores, const float *query, const float *keys, size_t ldk, size_t n, size_t heads,
                             size_t d, float scale, float *scratch) {
    for (size_t i = 0; i < n; i++) scores[i] = 0;
    for (size_t h = 0; h < heads; h++) {
        const float *q = query + h * d;
        for (size_t i = 0; i < n; i++) {
            const float *key = keys + i * ldk + h * d;
            vf s = vf_zero();
            size_t j = 0;
            for (; j + VL <= d; j += VL) s = vf_fma(vf_load(q + j), vf_load(key + j), s);
            if (j < d) s = vf_fma(vf_load_n(q + j, d - j), vf_load_n(key + j, d - j), s);
            scratch[i] = vf_sum(s);
        }
        float share_of_head = 1.0f / (softmax_weights(scratch, n, scale, NULL) * (float)heads);
        vf f = vf_set(share_of_head);
        size_t i = 0;
        for (; i + VL <= n; i += VL) vf_store(scores + i, vf_fma(f, vf_load(scratch + i), vf_load(scores + i)));
        if (i < n) vf_store_n(scores + i, n - i, vf_fma(f, vf_load_n(scratch + i, n - i), vf_load_n(scores + i, n - i)));
    }
}
