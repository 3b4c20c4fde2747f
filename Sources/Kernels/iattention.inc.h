// Softmax attention of one head in 8 bits: both products are int8 products, softmax in between is fp32.
//
// Where a few keys draw all attention, they leave little weight to the many others, and their own values are small. Eight
// bits of weight would drop the others: there are sixteen, as two bytes that are two rows of the product. And a scale
// for each value's row, taken into its weight, keeps small values as exact as large ones.

/// Scores of VL keys times log₂ e, masked. Computed twice rather than stored in between.
INLINE vf score_at(const float *x, const float *mask, size_t lanes) {
    vf s = vf_load_n(x, lanes);
    return mask ? vf_fma(vf_set(LOG2_E), vf_load_n(mask, lanes), s) : s;
}

/// The largest of n scores.
INLINE float largest_score(const float *x, size_t n, const float *mask) {
    vf none = vf_set(-INFINITY), most[4] = {none, none, none, none};
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (size_t u = 0; u < 4; u++)
            most[u] = vf_max(most[u], score_at(x + i + u * VL, mask ? mask + i + u * VL : NULL, VL));
    for (; i < n; i += VL) {
        size_t left = lanes_left(n - i, 0);
        most[0] = vf_max(most[0], vf_first_n(left, score_at(x + i, mask ? mask + i : NULL, left), none));
    }
    return vf_maximum(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])));
}

/// Weights of up to 4 VL keys; adds them to `total`.
INLINE void weight_bytes(uint8_t *high, uint8_t *low, const float *x, size_t n, const float *mask, const float *factors, vf most,
                         vf *total) {
    vf weights[4];
    UNROLLED for (int u = 0; u < 4; u++) {
        size_t left = n == 4 * VL ? VL : lanes_left(n, u), at = (size_t)u * VL;
        weights[u] = vf_zero();
        if (left == 0) continue;
        vf y = vf_exp2_word(65535.0f, vf_sub(score_at(x + at, mask ? mask + at : NULL, left), most));
        if (left < VL) y = vf_first_n(left, y, vf_zero());
        total[u % 2] = vf_add(total[u % 2], y);
        weights[u] = vf_mul(y, vf_load_n(factors + at, left));
    }
    store_word_bytes(high, low, weights);
}

/// Weights 65535 exp(x + mask − maximum) of n scores, which come times log₂ e, times `factors`, rounded, as high and low
/// bytes; returns the weights' sum without factors and before rounding. Bytes from n to the next multiple of 4 VL are set to 0.
INLINE float softmax_bytes(uint8_t *high, uint8_t *low, const float *x, size_t n, const float *mask, const float *factors, float largest) {
    vf total[2] = {vf_zero(), vf_zero()}, most = vf_set(softmax_shift(largest));
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        weight_bytes(high + i, low + i, x + i, 4 * VL, mask ? mask + i : NULL, factors + i, most, total);
    if (i < n) weight_bytes(high + i, low + i, x + i, n - i, mask ? mask + i : NULL, factors + i, most, total);
    return vf_sum(vf_add(total[0], total[1]));
}

static float softmax_bytes_masked(uint8_t *high, uint8_t *low, float *x, size_t n, const float *mask, const float *factors) {
    if (mask) {
        float largest = largest_score(x, n, mask);
        if (largest != -INFINITY) return softmax_bytes(high, low, x, n, mask, factors, largest);
        // Finite addends as low as -FLT_MAX are not finite times log₂ e. Added as they are they leave nothing of a score, whatever
        // its unit, as they do in fp32.
        for (size_t i = 0; i < n; i++) x[i] += mask[i];
    }
    return softmax_bytes(high, low, x, n, NULL, factors, largest_score(x, n, NULL));
}

/// Largest magnitudes (as bits, so that NaN and infinity are above all numbers) to what they are divided by for 8 bits,
/// and to the scales that undo it.
INLINE void byte_scales(vi most, float *factors, float *scales) {
    float peaks[VL];
    vi_store((int32_t *)(void *)peaks, most);
    for (int i = 0; i < VL; i++) {
        bool finite = peaks[i] <= FLT_MAX, zero = peaks[i] < 1e-35f;
        factors[i] = finite && !zero ? 127.0f / peaks[i] : 0;
        scales[i] = !finite ? NAN : zero ? 0 : peaks[i] / 127.0f;
    }
}

/// Keys k [n, d], quantized as `quantize_rows` does, as the right-hand side of a product with biased bytes. They are
/// transposed first, so that each lane holds a key. `panel`: working memory [d, TRIPS_PANEL].
static void pack_keys(void *packed, const float *k, size_t ldk, size_t n, size_t d, float *panel) {
    for (size_t j = 0; j < n; j += TRIPS_PANEL) {
        size_t keys = n - j < TRIPS_PANEL ? n - j : TRIPS_PANEL;
        igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, 0, d, 0);
        v_sgemm_pack(panel, k + j * ldk, ldk, keys, d, 0, keys);
        for (size_t c = 0; c < TRIPS_PANEL; c += VL) {
            vi most = vi_zero(), sum = vi_zero();
            for (size_t p = 0; p < d; p++) most = vi_max(most, vf_magnitude(vf_load(panel + p * TRIPS_PANEL + c)));
            float factors[VL];
            byte_scales(most, factors, to.scales + c);
            vf factor = vf_load(factors);
            for (size_t p = 0; p < d; p += 4) {
                vf x[4];
                UNROLLED for (size_t u = 0; u < 4; u++)
                    x[u] = p + u < d ? vf_mul(factor, vf_load(panel + (p + u) * TRIPS_PANEL + c)) : vf_zero();
                vi bytes = vi_bytes(x[0], x[1], x[2], x[3]);
                sum = dot4(sum, prepare_inputs(vi_broadcast((const uint8_t *)"\1\1\1\1")), prepare_weights(bytes));
                vi_store((int32_t *)(void *)(to.weights + p * TRIPS_PANEL + c * 4), bytes);
            }
            int32_t *corrections = to.corrections + c;
            vi_store(corrections, sum);
            for (int i = 0; i < VL; i++) corrections[i] *= -128;
        }
    }
}

/// Values v [n, d] as the right-hand side of a product with unbiased bytes: v = scale of the channel · factor of the row ·
/// byte, with factors up to 1. `inverse`: working memory [d].
static void pack_values(void *packed, float *factors, const float *v, size_t ldv, size_t n, size_t d, float *inverse) {
    for (size_t j = 0; j < d; j += TRIPS_PANEL) {
        igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, 0, n, 0);
        vi most[PANEL_VECTORS];
        UNROLLED for (int u = 0; u < PANEL_VECTORS; u++) most[u] = vi_zero();
        for (size_t i = 0; i < n; i++)
            UNROLLED for (int u = 0; u < PANEL_VECTORS; u++)
                most[u] = vi_max(most[u], vf_magnitude(vf_load_n(v + i * ldv + j + u * VL, lanes_left(d - j, u))));
        UNROLLED for (int u = 0; u < PANEL_VECTORS; u++) {
            float own[VL];
            byte_scales(most[u], own, to.scales + u * VL);
            vf_store_n(inverse + j + u * VL, lanes_left(d - j, u), vf_load(own));
            vi_store(to.corrections + u * VL, vi_zero());
        }
    }
    for (size_t i = 0; i < n; i += 4) {
        const float *row[4];
        vf scale[4];
        UNROLLED for (size_t u = 0; u < 4; u++) {
            row[u] = v + (i + u < n ? i + u : i) * ldv;
            // The order of operands drops a NaN, whose channel gives NaN in any case.
            vf most = vf_zero();
            for (size_t j = 0; j < d; j += VL) {
                size_t lanes = lanes_left(d - j, 0);
                most = vf_max(vf_mul(vf_load_n(inverse + j, lanes), vf_abs(vf_load_n(row[u] + j, lanes))), most);
            }
            float peak = vf_maximum(most);
            bool used = i + u < n && peak > 1e-30f;
            if (i + u < n) factors[i + u] = peak * (1 / 127.0f);
            scale[u] = vf_set(used ? 127.0f / peak : 0);
        }
        for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += VL) {
            int8_t *to = igemm_group_at(packed, j / TRIPS_PANEL, 0, n, 0).weights + i * TRIPS_PANEL + j % TRIPS_PANEL * 4;
            size_t lanes = j < d ? lanes_left(d - j, 0) : 0;
            vf x[4], channel = vf_load_n(inverse + j, lanes);
            UNROLLED for (int u = 0; u < 4; u++) x[u] = vf_mul(vf_mul(channel, scale[u]), vf_load_n(row[u] + j, lanes));
            vi_store((int32_t *)(void *)to, vi_bytes(x[0], x[1], x[2], x[3]));
        }
    }
}

/// y = a + b
INLINE void add_row(float *y, const float *a, const float *b, size_t n) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) vf_store(y + i, vf_add(vf_load(a + i), vf_load(b + i)));
    if (i < n) vf_store_n(y + i, n - i, vf_add(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)));
}

static void v_iattention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                       size_t ldo, size_t lk, size_t d, size_t q_begin, size_t q_end, float scale,
                       const float *mask, size_t ldm, bool causal, bool zero_masked, void *scratch) {
    iattention_parts s = iattention_parts_of(scratch, lk, d);
    pack_keys(s.keys, k, ldk, lk, d, (float *)(void *)s.bytes);
    pack_values(s.values, s.factors, v, ldv, lk, d, s.sums);
    for (size_t i0 = q_begin; i0 < q_end; i0 += IATTENTION_ROWS) {
        size_t rows = q_end - i0 < IATTENTION_ROWS ? q_end - i0 : IATTENTION_ROWS, row = round_up(d, 4);
        float scales[2 * IATTENTION_ROWS];
        v_quantize_rows(s.bytes, row, scales, q + i0 * ldq, ldq, d, 0, rows, NULL);
        for (size_t r = 0; r < rows; r++) scales[r] *= scale * LOG2_E;
        v_igemm(s.bytes, row, scales, s.keys, lk, d, 0, s.scores, s.lds, 0, rows, 0, lk, NULL);
        for (size_t r = 0; r < rows; r++) {
            uint8_t *high = s.bytes + r * s.ldb, *low = s.bytes + (rows + r) * s.ldb;
            size_t own = causal ? visible_keys(i0 + r, lk) : lk;
            const float *addends = mask ? mask + (i0 + r) * ldm : NULL;
            float sum = softmax_bytes_masked(high, low, s.scores + r * s.lds, own, addends, s.factors);
            for (size_t j = own; j < round_up(lk, 4); j++) high[j] = low[j] = 0;
            float factor = softmax_factor(sum, zero_masked);
            scales[r] = 256.0f * factor;
            scales[rows + r] = factor;
        }
        v_igemm(s.bytes, s.ldb, scales, s.values, d, lk, 0, s.sums, d, 0, 2 * rows, 0, d, NULL);
        for (size_t r = 0; r < rows; r++) add_row(out + (i0 + r) * ldo, s.sums + r * d, s.sums + (rows + r) * d, d);
    }
}
