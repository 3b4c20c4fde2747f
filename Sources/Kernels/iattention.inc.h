// Softmax attention of one head in 8 bits: both products are int8 products, softmax in between is fp32.
//
// Few keys may draw nearly all attention, and have small values themselves. What they leave to the others must not be
// lost: values have a scale for each row, which is taken into the weights, and so small values are as exact as large
// ones; and weights have a scale for each block of keys.

#define LOG2E 1.44269504f

/// Scores of VL keys, scaled and masked, times log₂ e: `scale` holds that factor where there is no mask. Computed twice
/// rather than stored in between.
INLINE vf score_at(const float *x, const float *mask, size_t lanes, vf scale) {
    vf s = vf_load_n(x, lanes);
    return mask ? vf_mul(vf_set(LOG2E), vf_fma(scale, s, vf_load_n(mask, lanes))) : vf_mul(scale, s);
}

/// The same less the largest. It may be above 0 by that one's rounding, by which all weights of the row are off alike.
INLINE vf score_below(const float *x, const float *mask, size_t lanes, vf scale, vf most) {
    vf s = vf_load_n(x, lanes);
    return mask ? vf_fms(vf_set(LOG2E), vf_fma(scale, s, vf_load_n(mask, lanes)), most) : vf_fms(scale, s, most);
}

/// The largest of n scores.
INLINE float largest_score(const float *x, size_t n, vf scale, const float *mask) {
    vf none = vf_set(-INFINITY), most[4] = {none, none, none, none};
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (size_t u = 0; u < 4; u++)
            most[u] = vf_max(most[u], score_at(x + i + u * VL, mask ? mask + i + u * VL : NULL, VL, scale));
    for (; i < n; i += VL) {
        size_t left = lanes_left(n - i, 0);
        most[0] = vf_max(most[0], vf_first_n(left, score_at(x + i, mask ? mask + i : NULL, left, scale), none));
    }
    return vf_maximum(vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3])));
}

/// Weights of up to WEIGHT_BLOCK keys, times `factors`, as bytes that reach up to 255; returns what they stand for. Adds
/// the weights without factors to `total`.
INLINE float weight_bytes(uint8_t *bytes, const float *x, size_t n, vf scale, const float *mask, const float *factors,
                          vf most, vf *total) {
    vf weights[WEIGHT_BLOCK / VL], largest[2] = {vf_zero(), vf_zero()};
    UNROLLED for (int u = 0; u < WEIGHT_BLOCK / VL; u++) {
        size_t left = n == WEIGHT_BLOCK ? VL : lanes_left(n, u), at = (size_t)u * VL;
        vf y = vf_exp2_negative(score_below(x + at, mask ? mask + at : NULL, left, scale, most));
        if (left < VL) y = vf_first_n(left, y, vf_zero());
        total[u % 2] = vf_add(total[u % 2], y);
        weights[u] = vf_mul(y, vf_load_n(factors + at, left));
        largest[u % 2] = vf_max(weights[u], largest[u % 2]);
    }
    float peak = vf_maximum(vf_max(largest[0], largest[1]));
    vf factor = vf_set(peak > 1e-30f ? 255.0f / peak : 0);
    UNROLLED for (int u = 0; u < WEIGHT_BLOCK / VL; u++) weights[u] = vf_mul(weights[u], factor);
    store_bytes(bytes, weights);
    return peak / 255.0f;
}

/// Weights exp(scale x + mask − maximum) of n scores, times `factors`, as bytes with a scale for each block; returns the
/// weights' sum without factors and before rounding.
INLINE float softmax_bytes(uint8_t *bytes, float *scales, const float *x, size_t n, float scale, const float *mask,
                           const float *factors) {
    vf s = vf_set(mask ? scale : scale * LOG2E), total[2] = {vf_zero(), vf_zero()};
    vf most = vf_set(largest_score(x, n, s, mask));
    size_t i = 0;
    for (; i + WEIGHT_BLOCK <= n; i += WEIGHT_BLOCK)
        *scales++ = weight_bytes(bytes + i, x + i, WEIGHT_BLOCK, s, mask ? mask + i : NULL, factors + i, most, total);
    if (i < n) *scales = weight_bytes(bytes + i, x + i, n - i, s, mask ? mask + i : NULL, factors + i, most, total);
    return vf_sum(vf_add(total[0], total[1]));
}

static float softmax_bytes_masked(uint8_t *bytes, float *scales, const float *x, size_t n, float scale, const float *mask,
                                  const float *factors) {
    return mask ? softmax_bytes(bytes, scales, x, n, scale, mask, factors)
                : softmax_bytes(bytes, scales, x, n, scale, NULL, factors);
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

/// c[rows, 2 VL] = Σ over blocks of (scale of row and block · Σ weights · values), times row and channel scales.
INLINE void weighted_tile_body(const int rows, const uint8_t *a, size_t lda, const float *block_scales, size_t lds,
                               const float *row_scales, igemm_group values, size_t column, float *c, size_t ldc,
                               size_t columns) {
    vf total[WEIGHTED_ROWS][2];
    UNROLLED for (int i = 0; i < rows; i++) total[i][0] = total[i][1] = vf_zero();
    const int8_t *w = values.weights + column * 4;
    for (size_t p0 = 0; p0 < values.k; p0 += WEIGHT_BLOCK, block_scales++) {
        size_t p1 = values.k - p0 < WEIGHT_BLOCK ? values.k : p0 + WEIGHT_BLOCK;
        vi sum[WEIGHTED_ROWS][2];
        UNROLLED for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = vi_zero();
        for (size_t p = p0; p < p1; p += 4) {
            vweights b[2];
            UNROLLED for (int v = 0; v < 2; v++)
                b[v] = prepare_weights(vi_load((const int32_t *)(const void *)(w + p * TRIPS_PANEL + v * VL * 4)));
            UNROLLED for (int i = 0; i < rows; i++) {
                vinputs x = prepare_inputs(vi_broadcast(a + (size_t)i * lda + p));
                UNROLLED for (int v = 0; v < 2; v++) sum[i][v] = dot4(sum[i][v], x, b[v]);
            }
        }
        UNROLLED for (int i = 0; i < rows; i++) {
            vf s = vf_set(block_scales[(size_t)i * lds]);
            UNROLLED for (int v = 0; v < 2; v++) total[i][v] = vf_fma(vi_to_float(sum[i][v]), s, total[i][v]);
        }
    }
    UNROLLED for (int v = 0; v < 2; v++) {
        vf channel = vf_load(values.scales + column + v * VL);
        UNROLLED for (int i = 0; i < rows; i++)
            vf_store_n(c + (size_t)i * ldc + v * VL, lanes_left(columns, v), vf_mul(total[i][v], vf_mul(channel, vf_set(row_scales[i]))));
    }
}

typedef void (*weighted_tile)(const uint8_t *a, size_t lda, const float *block_scales, size_t lds, const float *row_scales,
                              igemm_group values, size_t column, float *c, size_t ldc, size_t columns);
#define WEIGHTED_TILE(rows)                                                                                             \
    static void weighted_tile_##rows(const uint8_t *a, size_t lda, const float *block_scales, size_t lds,               \
                                     const float *row_scales, igemm_group values, size_t column, float *c, size_t ldc,  \
                                     size_t columns) {                                                                  \
        weighted_tile_body(rows, a, lda, block_scales, lds, row_scales, values, column, c, ldc, columns);               \
    }
#define WEIGHTED_ENTRY(rows) weighted_tile_##rows,
EACH_HEIGHT(WEIGHTED_ROWS, WEIGHTED_TILE)
static const weighted_tile weighted_tiles[WEIGHTED_ROWS + 1] = {NULL, EACH_HEIGHT(WEIGHTED_ROWS, WEIGHTED_ENTRY)};

static void v_iattention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                       size_t ldo, size_t lq, size_t lk, size_t d, size_t q_begin, size_t q_end, float scale,
                       const float *mask, size_t ldm, bool causal, void *scratch) {
    iattention_parts s = iattention_parts_of(scratch, lk, d);
    pack_keys(s.keys, k, ldk, lk, d, (float *)(void *)s.bytes);
    pack_values(s.values, s.factors, v, ldv, lk, d, s.inverse);
    for (size_t i0 = q_begin; i0 < q_end; i0 += IATTENTION_ROWS) {
        size_t rows = q_end - i0 < IATTENTION_ROWS ? q_end - i0 : IATTENTION_ROWS, row = round_up(d, 4);
        float scales[IATTENTION_ROWS];
        v_quantize_rows(s.bytes, row, scales, q + i0 * ldq, ldq, d, 0, rows, NULL);
        v_igemm(s.bytes, row, scales, s.keys, lk, d, 0, s.scores, s.lds, 0, rows, 0, lk, NULL);
        for (size_t r = 0; r < rows; r++) {
            uint8_t *bytes = s.bytes + r * s.ldb;
            float *block_scales = s.block_scales + r * s.blocks;
            size_t own = causal ? visible_keys(i0 + r, lq, lk) : lk;
            scales[r] = 1.0f / softmax_bytes_masked(bytes, block_scales, s.scores + r * s.lds, own, scale,
                                                    mask ? mask + (i0 + r) * ldm : NULL, s.factors);
            for (size_t b = (own + WEIGHT_BLOCK - 1) / WEIGHT_BLOCK; b < s.blocks; b++) {
                block_scales[b] = 0;
                memset(bytes + b * WEIGHT_BLOCK, 0, WEIGHT_BLOCK);
            }
        }
        size_t tiles = (rows + WEIGHTED_ROWS - 1) / WEIGHTED_ROWS, r = 0;
        for (size_t t = 0; t < tiles; t++) {
            size_t height = share(rows, tiles, t);
            for (size_t j = 0; j < d; j += 2 * VL)
                weighted_tiles[height](s.bytes + r * s.ldb, s.ldb, s.block_scales + r * s.blocks, s.blocks, scales + r,
                                       igemm_group_at(s.values, j / TRIPS_PANEL, 0, lk, 0), j % TRIPS_PANEL,
                                       out + (i0 + r) * ldo + j, ldo, d - j);
            r += height;
        }
    }
}
