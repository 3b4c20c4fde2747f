// Kernels over rows.

/// Σ (x − mean)², in four partial sums, which shortens the chain and reduces the rounding error.
INLINE float sum_of_squares(const float *x, size_t n, float mean) {
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()}, m = vf_set(mean);
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (int u = 0; u < 4; u++) {
            vf e = vf_sub(vf_load(x + i + (size_t)u * VL), m);
            s[u] = vf_fma(e, e, s[u]);
        }
    for (; i + VL <= n; i += VL) {
        vf e = vf_sub(vf_load(x + i), m);
        s[0] = vf_fma(e, e, s[0]);
    }
    if (i < n) {
        vf e = vf_first_n(n - i, vf_sub(vf_load_n(x + i, n - i), m), vf_zero());
        s[1] = vf_fma(e, e, s[1]);
    }
    return vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

INLINE float sum_of(const float *x, size_t n) {
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL)
        UNROLLED for (int u = 0; u < 4; u++) s[u] = vf_add(s[u], vf_load(x + i + (size_t)u * VL));
    for (; i + VL <= n; i += VL) s[0] = vf_add(s[0], vf_load(x + i));
    if (i < n) s[1] = vf_add(s[1], vf_load_n(x + i, n - i));
    return vf_sum(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

INLINE vf normalized(vf x, vf mean, vf inverse, vf weight, vf bias) {
    return vf_fma(vf_mul(vf_sub(x, mean), inverse), weight, bias);
}

static void v_layernorm_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *weight,
                             const float *bias, float eps) {
    for (size_t r = 0; r < rows; r++) {
        float *to = y + r * ldy;
        const float *from = x + r * ldx;
        float mean = sum_of(from, n) / (float)n;
        float inverse = 1.0f / sqrtf(sum_of_squares(from, n, mean) / (float)n + eps);
        vf m = vf_set(mean), f = vf_set(inverse), one = vf_set(1.0f), zero = vf_zero();
        size_t i = 0;
        for (; i + VL <= n; i += VL)
            vf_store(to + i, normalized(vf_load(from + i), m, f, weight ? vf_load(weight + i) : one,
                                        bias ? vf_load(bias + i) : zero));
        if (i < n)
            vf_store_n(to + i, n - i, normalized(vf_load_n(from + i, n - i), m, f, weight ? vf_load_n(weight + i, n - i) : one,
                                                 bias ? vf_load_n(bias + i, n - i) : zero));
    }
}

/// Rows that are prefetched: they are too far apart for the hardware's prefetcher.
enum { ROWS_AHEAD = 8 };

/// `vectors` vectors of columns of a sum of rows, the last one with `last` lanes.
INLINE void weighted_columns(const int vectors, size_t last, float *y, const float *x, size_t ldx, const int32_t *rows,
                             const float *weights, size_t count) {
    vf sum[8];
    UNROLLED for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (size_t i = 0; i < count; i++) {
        size_t later = i + ROWS_AHEAD < count ? i + ROWS_AHEAD : i;
        const float *row = x + (rows ? (size_t)rows[i] : i) * ldx, *ahead = x + (rows ? (size_t)rows[later] : later) * ldx;
        vf weight = vf_set(weights[i]);
        UNROLLED for (int v = 0; v < vectors; v++) {
            if (v % (64 / sizeof(float) / VL) == 0) prefetch_l1(ahead + v * VL);
            sum[v] = vf_fma(weight, last == VL ? vf_load(row + v * VL) : vf_load_n(row, last), sum[v]);
        }
    }
    UNROLLED for (int v = 0; v < vectors; v++) {
        if (last == VL) vf_store(y + v * VL, sum[v]);
        else vf_store_n(y, last, sum[v]);
    }
}

static void v_weighted_rows(float *y, const float *x, size_t ldx, const int32_t *rows, const float *weights, size_t count, size_t n) {
    size_t j = 0;
    for (; j + 8 * VL <= n; j += 8 * VL) weighted_columns(8, VL, y + j, x + j, ldx, rows, weights, count);
    for (; j + VL <= n; j += VL) weighted_columns(1, VL, y + j, x + j, ldx, rows, weights, count);
    if (j < n) weighted_columns(1, n - j, y + j, x + j, ldx, rows, weights, count);
}
