// Softmax attention of one head in 8 bits: both products are int8 products, softmax in between is fp32.
//
// Where a few keys draw all attention, they leave little weight to the many others, and their own values are small. Eight
// bits of weight would drop the others: there are sixteen, as two bytes that are two rows of the product. And a scale
// for each value's row, taken into its weight, keeps small values as exact as large ones.

/// Weights 65535 exp(scale x + mask − maximum) of n scores, times `factors`, rounded, as high and low bytes; returns the
/// weights' sum without factors and before rounding. Bytes from n to the next multiple of VL are set to 0.
static float softmax_bytes(uint8_t *high, uint8_t *low, const float *x, size_t n, float scale, const float *mask,
                           const float *factors) {
    vf s = vf_set(mask ? scale : scale * 1.44269504f), log2e = vf_set(1.44269504f), most[4], total[2] = {vf_zero(), vf_zero()};
#define SCORE(i) (mask ? vf_mul(log2e, vf_fma(s, vf_load(x + (i)), vf_load(mask + (i)))) : vf_mul(s, vf_load(x + (i))))
#define SCORE_N(i, left)                                                                                       \
    (mask ? vf_mul(log2e, vf_fma(s, vf_load_n(x + (i), left), vf_load_n(mask + (i), left))) : vf_mul(s, vf_load_n(x + (i), left)))
    UNROLLED for (int u = 0; u < 4; u++) most[u] = vf_set(-INFINITY);
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (int u = 0; u < 4; u++) most[u] = vf_max(most[u], SCORE(i + (size_t)u * VL));
    for (; i < n; i += VL) {
        size_t left = n - i < VL ? n - i : VL;
        most[0] = vf_max(most[0], vf_first_n(left, SCORE_N(i, left), vf_set(-INFINITY)));
    }
    vf m = vf_set(vf_maximum(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3]))));
    for (i = 0; i + 2 * VL <= n; i += 2 * VL)
        UNROLLED for (int u = 0; u < 2; u++) {
            vf y = vf_exp2_times(65535.0f, vf_sub(SCORE(i + (size_t)u * VL), m));
            store_word_bytes(high + i + u * VL, low + i + u * VL, vf_mul(y, vf_load(factors + i + u * VL)));
            total[u] = vf_add(total[u], y);
        }
    for (; i < n; i += VL) {
        size_t left = n - i < VL ? n - i : VL;
        vf y = vf_first_n(left, vf_exp2_times(65535.0f, vf_sub(SCORE_N(i, left), m)), vf_zero());
        store_word_bytes(high + i, low + i, vf_mul(y, vf_load_n(factors + i, left)));
        total[0] = vf_add(total[0], y);
    }
#undef SCORE
#undef SCORE_N
    return vf_sum(vf_add(total[0], total[1]));
}

/// Values v [n, d] as the right-hand side of a product with unbiased bytes: v = scale of the channel · factor of the row ·
/// byte / 127, with factors up to 1.
static void pack_values(void *packed, float *factors, const float *v, size_t ldv, size_t n, size_t d) {
    vf zero = vf_zero(), one = vf_set(1.0f), tiny = vf_set(1e-35f);
    for (size_t i = 0; i < n; i++) factors[i] = 0;
    for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += VL) {
        igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, 0, n, 0);
        size_t column = j % TRIPS_PANEL, lanes = d > j ? (d - j < VL ? d - j : VL) : 0;
        vf most = zero, wrong = zero;
        for (size_t i = 0; i < n; i++) {
            vf x = vf_load_n(v + i * ldv + j, lanes);
            most = vf_max(most, vf_abs(x));
            wrong = vf_add(wrong, vf_sub(x, x));
        }
        vf inverse = vf_if_less(most, tiny, zero, vf_div(one, most));
        vf_store(to.scales + column, vf_add(wrong, vf_if_less(most, tiny, zero, vf_div(most, vf_set(127.0f)))));
        vi_store(to.corrections + column, vi_zero());
        // Where a channel holds a NaN or an infinity, its output is NaN whatever its bytes are.
        for (size_t i = 0; i < n; i++) {
            float own = vf_maximum(vf_max(vf_mul(inverse, vf_abs(vf_load_n(v + i * ldv + j, lanes))), zero));
            factors[i] = own > factors[i] ? own : factors[i];
        }
    }
    for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += VL) {
        igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, 0, n, 0);
        size_t column = j % TRIPS_PANEL, lanes = d > j ? (d - j < VL ? d - j : VL) : 0;
        vf scale = vf_load(to.scales + column), inverse = vf_if_less(scale, tiny, zero, vf_div(one, scale));
        for (size_t i = 0; i < n; i += 4) {
            vf x[4];
            UNROLLED for (size_t u = 0; u < 4; u++) {
                bool inside = i + u < n && factors[i + u] > 1e-30f;
                x[u] = inside ? vf_mul(vf_mul(inverse, vf_set(1 / factors[i + u])), vf_load_n(v + (i + u) * ldv + j, lanes)) : zero;
            }
            vi_store((int32_t *)(void *)(to.weights + i * TRIPS_PANEL + column * 4), vi_bytes(x[0], x[1], x[2], x[3]));
        }
    }
}

/// Keys k [n, d] as the right-hand side of a product with biased bytes.
static void pack_keys(void *packed, const float *k, size_t ldk, size_t n, size_t d, uint8_t *bytes, float *scales) {
    size_t row = round_up(d, 4);
    v_quantize_rows(bytes, row, scales, k, ldk, d, 0, n, NULL);
    for (size_t i = 0; i < n * row; i++) bytes[i] ^= 128;
    v_igemm_pack(packed, (const int8_t *)bytes, row, scales, n, d, 0, 0, n);
}

static void v_iattention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                       size_t ldo, size_t lq, size_t lk, size_t d, size_t q_begin, size_t q_end, float scale,
                       const float *mask, size_t ldm, bool causal, void *scratch) {
    iattention_parts s = iattention_parts_of(scratch, lk, d);
    pack_keys(s.keys, k, ldk, lk, d, s.bytes, s.scores);
    pack_values(s.values, s.factors, v, ldv, lk, d);
    for (size_t i0 = q_begin; i0 < q_end; i0 += IATTENTION_ROWS) {
        size_t rows = q_end - i0 < IATTENTION_ROWS ? q_end - i0 : IATTENTION_ROWS, row = round_up(d, 4);
        float scales[2 * IATTENTION_ROWS];
        v_quantize_rows(s.bytes, row, scales, q + i0 * ldq, ldq, d, 0, rows, NULL);
        v_igemm(s.bytes, row, scales, s.keys, lk, d, 0, s.scores, s.lds, 0, rows, 0, lk, NULL);
        for (size_t r = 0; r < rows; r++) {
            uint8_t *high = s.bytes + r * s.ldb, *low = s.bytes + (rows + r) * s.ldb;
            size_t own = causal ? visible_keys(i0 + r, lq, lk) : lk;
            const float *addends = mask ? mask + (i0 + r) * ldm : NULL;
            float sum = softmax_bytes(high, low, s.scores + r * s.lds, own, scale, addends, s.factors);
            for (size_t j = own; j < round_up(lk, 4); j++) high[j] = low[j] = 0;
            scales[r] = 256.0f / sum;
            scales[rows + r] = 1.0f / sum;
        }
        v_igemm(s.bytes, s.ldb, scales, s.values, d, lk, 0, s.sums, d, 0, 2 * rows, 0, d, NULL);
        for (size_t r = 0; r < rows; r++) v_add(out + (i0 + r) * ldo, s.sums + r * d, s.sums + (rows + r) * d, d);
    }
}
