// Softmax attention of one head in 8 bits: both products are int8 products, softmax in between is fp32.
//
// Keys fall into groups of some 50 to 100, and weights are bytes with a scale for each group. Where a few keys draw all attention,
// only their own groups are rounded to 1/255 of that: 41 dB of a row are left however its attention is spread. And a scale for
// each value's row, taken into its weight, keeps small values as exact as large ones: to the scores, which are exponents of
// 2, its logarithm is added.

enum { BLOCK_VECTORS = KEY_BLOCK / VL };

/// Scores i … of up to VL keys, masked; −∞ in the lanes beyond. Computed twice rather than stored in between.
INLINE vf score_at(const float *x, const float *mask, size_t i, size_t lanes) {
    if (lanes == VL) return mask ? vf_fma(vf_set(LOG2_E), vf_load(mask + i), vf_load(x + i)) : vf_load(x + i);
    vf s = vf_load_n(x + i, lanes);
    if (mask) s = vf_fma(vf_set(LOG2_E), vf_load_n(mask + i, lanes), s);
    return vf_first_n(lanes, s, vf_set(-INFINITY));
}

/// The largest score of each group of a segment of n keys, in all lanes of the group.
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
        // A group that sees no key.
        shifts[v] = vf_max(vf_set(-FLT_MAX), peaks[v]);
        sums[v] = vf_zero();
    }
    // Backwards: four blocks are stored even where a group has fewer left, and the next group's first come later.
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
                           bool zero_masked) {
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
    float factor = softmax_factor(vf_sum(total), zero_masked);
    for (size_t g = 0; g < group_count(s->groups); g++)
        scales[g] = g < segments * SEGMENT_GROUPS ? factor * s->peaks[g * GROUP_KEYS] : 0;
    return largest;
}

static void softmax_bytes_masked(const iattention_parts *s, uint8_t *bytes, float *scales, float *x, const float *mask, size_t n,
                                 bool zero_masked) {
    if (softmax_bytes(s, bytes, scales, x, mask, n, zero_masked) != -INFINITY || !mask) return;
    // Finite addends as low as -FLT_MAX are not finite times log₂ e. Added as they are they leave nothing of a score, whatever
    // its unit, as they do in fp32.
    float most = -INFINITY;
    for (size_t j = 0; j < n; j++) {
        x[j] += mask[j];
        most = x[j] > most ? x[j] : most;
    }
    for (size_t j = 0; j < n; j++) x[j] = x[j] - softmax_shift(most) + s->shifts[j];
    softmax_bytes(s, bytes, scales, x, NULL, n, zero_masked);
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

/// The group of a panel of values that have the places from `place` on; `at`: where in it.
INLINE igemm_group value_group(const iattention_parts *s, size_t panel, size_t place, size_t *at) {
    size_t length = group_keys(s->groups);
    *at = place % length;
    return igemm_group_at(s->values, panel, place / length, s->places, length);
}

/// A scale for each channel of values v [n, d], into all groups; `s->channels` is what they are divided by for 8 bits.
static void scale_channels(const iattention_parts *s, const float *v, size_t ldv, size_t n, size_t d) {
    for (size_t j = 0; j < d; j += TRIPS_PANEL) {
        vi most[PANEL_VECTORS];
        float scales[TRIPS_PANEL];
        UNROLLED for (int u = 0; u < PANEL_VECTORS; u++) most[u] = vi_zero();
        for (size_t i = 0; i < n; i++)
            UNROLLED for (int u = 0; u < PANEL_VECTORS; u++)
                most[u] = vi_max(most[u], vf_magnitude(vf_load_n(v + i * ldv + j + u * VL, lanes_left(d - j, u))));
        UNROLLED for (int u = 0; u < PANEL_VECTORS; u++) {
            float own[VL];
            byte_scales(most[u], own, scales + u * VL);
            vf_store_n(s->channels + j + u * VL, lanes_left(d - j, u), vf_load(own));
        }
        for (size_t g = 0; g < group_count(s->groups); g++) {
            igemm_group to = igemm_group_at(s->values, j / TRIPS_PANEL, g, s->places, group_keys(s->groups));
            memcpy(to.scales, scales, sizeof scales);
        }
    }
}

/// `value_shift` of each lane.
INLINE vf value_shifts(vf peaks) {
    vf line = vf_fma(vi_to_float(vf_magnitude(peaks)), vf_set(0x1p-23f), vf_set(-127)), part = vf_fraction(line);
    return vf_add(vf_fma(part, vf_fnma(part, vf_set(0.3436f), vf_set(0.3436f)), line), vf_set(0.0086f));
}

/// A factor for each row of values v [n, d], whose channels have their scales: its logarithm and its inverse.
static void scale_rows(const iattention_parts *s, const float *v, size_t ldv, size_t n, size_t d) {
    for (size_t i = 0; i < n; i++) {
        // The order of operands drops a NaN, whose channel gives NaN in any case.
        vf most = vf_zero();
        for (size_t j = 0; j < d; j += VL) {
            size_t lanes = lanes_left(d - j, 0);
            most = vf_max(vf_mul(vf_load_n(s->channels + j, lanes), vf_abs(vf_load_n(v + i * ldv + j, lanes))), most);
        }
        s->inverses[i] = vf_maximum(most);
    }
    for (size_t i = n; i < s->lds; i++) s->inverses[i] = 0;
    for (size_t i = 0; i < s->lds; i += VL) {
        vf peaks = vf_max(vf_set(0x1p-20f), vf_mul(vf_set(1 / 127.0f), vf_load(s->inverses + i)));
        vf shifts = value_shifts(peaks);
        vf_store(s->inverses + i, vf_div(vf_set(1), vf_exp2_negative(shifts)));
        vf_store(s->shifts + i, vf_first_n(n < i ? 0 : lanes_left(n - i, 0), shifts, vf_set(-INFINITY)));
    }
}

/// Values v [n, d] as the right-hand side of a product with unbiased bytes: v = scale of the channel · factor of the row · byte.
static void pack_values(const iattention_parts *s, const float *v, size_t ldv, size_t n, size_t d) {
    scale_channels(s, v, ldv, n, d);
    scale_rows(s, v, ldv, n, d);
    for (size_t i = 0; i < n; i += GROUP_KEYS)
        for (size_t j = 0; j < round_up(d, TRIPS_PANEL); j += VL) {
            size_t place, lanes = j < d ? lanes_left(d - j, 0) : 0;
            igemm_group to = value_group(s, j / TRIPS_PANEL, key_place(s->groups, i), &place);
            vf x[GROUP_KEYS], channels = vf_load_n(s->channels + j, lanes);
            UNROLLED for (size_t u = 0; u < GROUP_KEYS; u++) {
                x[u] = i + u < n ? vf_mul(channels, vf_load_n(v + (i + u) * ldv + j, lanes)) : vf_zero();
                x[u] = vf_mul(vf_set(s->inverses[i + u]), x[u]);
            }
            vi_store((int32_t *)(void *)(to.weights + place * TRIPS_PANEL + j % TRIPS_PANEL * 4), vi_bytes(x[0], x[1], x[2], x[3]));
        }
}

/// Rows of weights, with their scales [rows][groups], times the values' columns from `place->column` on.
INLINE void weighted_values_body(const int rows, const uint8_t *weights, size_t ldw, const float *row_scales,
                                 const igemm_place *place, float *out, size_t ldo, size_t columns) {
    vi sum[IGEMM_ROWS][8];
    igemm_outputs outputs[8];
    float total[TILE_FLOATS];
    for (size_t g = 0; g < place->groups; g++) {
        igemm_group_tile(rows, 2, sum, weights + g * place->group, ldw, place, g, outputs);
        UNROLLED for (int i = 0; i < rows; i++) {
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
        UNROLLED for (int i = 0; i < rows; i++)
            vf_store_n(out + (size_t)i * ldo + v * VL, lanes, vf_mul(vf_load(outputs[v].scales), vf_load(total + (i * 2 + v) * VL)));
    }
}

typedef void (*weighted_values)(const uint8_t *weights, size_t ldw, const float *row_scales, const igemm_place *place, float *out,
                                size_t ldo, size_t columns);

#define WEIGHTED_VALUES(rows)                                                                                             \
    static void weighted_values_##rows(const uint8_t *weights, size_t ldw, const float *row_scales,                      \
                                       const igemm_place *place, float *out, size_t ldo, size_t columns) {               \
        weighted_values_body(rows, weights, ldw, row_scales, place, out, ldo, columns);                                  \
    }
#define WEIGHTED_VALUES_ENTRY(rows) weighted_values_##rows,
EACH_HEIGHT(IGEMM_ROWS, WEIGHTED_VALUES)
static const weighted_values weighted_values_tiles[IGEMM_ROWS + 1] = {NULL, EACH_HEIGHT(IGEMM_ROWS, WEIGHTED_VALUES_ENTRY)};

/// out [rows, d] = the rows of `s->weights` times the values.
static void weigh_values(const iattention_parts *s, float *out, size_t ldo, size_t rows, size_t d) {
    size_t groups = group_count(s->groups), tiles = (rows + IGEMM_ROWS - 1) / IGEMM_ROWS, row = 0;
    igemm_place place = {s->values, s->places, group_keys(s->groups), groups, 0, {s->values, 0}};
    for (size_t t = 0; t < tiles; t++) {
        size_t height = share(rows, tiles, t);
        for (place.column = 0; place.column < d; place.column += 2 * VL)
            weighted_values_tiles[height](s->weights + row * s->ldw, s->ldw, s->scales + row * groups, &place,
                                          out + row * ldo + place.column, ldo, d - place.column);
        row += height;
    }
}

static void v_iattention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                       size_t ldo, size_t lk, size_t d, size_t q_begin, size_t q_end, float scale,
                       const float *mask, size_t ldm, bool causal, bool zero_masked, void *scratch) {
    iattention_parts s = iattention_parts_of(scratch, lk, d);
    pack_keys(s.keys, k, ldk, lk, d, (float *)(void *)s.bytes);
    pack_values(&s, v, ldv, lk, d);
    // Weights of places without a key, and of those that no row of a causal block has seen yet.
    memset(s.weights, 0, IATTENTION_ROWS * s.ldw);
    trips_epilogue shifts = {.bias = s.shifts};
    for (size_t i0 = q_begin; i0 < q_end; i0 += IATTENTION_ROWS) {
        size_t rows = q_end - i0 < IATTENTION_ROWS ? q_end - i0 : IATTENTION_ROWS, row = round_up(d, 4);
        float scales[IATTENTION_ROWS];
        v_quantize_rows(s.bytes, row, scales, q + i0 * ldq, ldq, d, 0, rows, NULL);
        for (size_t r = 0; r < rows; r++) scales[r] *= scale * LOG2_E;
        // Up to whole vectors, whose shifts make −∞ of what is no key.
        v_igemm(s.bytes, row, scales, s.keys, lk, d, 0, s.scores, s.lds, 0, rows, 0, round_up(lk, KEY_BLOCK), &shifts);
        for (size_t r = 0; r < rows; r++) {
            const float *addends = mask ? mask + (i0 + r) * ldm : NULL;
            size_t own = causal ? visible_keys(i0 + r, lk) : mask ? lk : round_up(lk, KEY_BLOCK);
            softmax_bytes_masked(&s, s.weights + r * s.ldw, s.scales + r * group_count(s.groups), s.scores + r * s.lds, addends, own,
                                 zero_masked);
        }
        weigh_values(&s, out + i0 * ldo, ldo, rows, d);
    }
}
