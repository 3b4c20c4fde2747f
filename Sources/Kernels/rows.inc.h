// Kernels over rows.

/// Σ (x − mean)², in four sums, which shortens the chain and the rounding error.
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
