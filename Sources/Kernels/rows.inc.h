// Kernels over rows and over plain arrays.

/// y[i] = EXPRESSION of the vector at x[i].
#define MAP(y, x, n, EXPRESSION)                                     \
    do {                                                             \
        size_t i_ = 0;                                               \
        for (; i_ + VL <= (n); i_ += VL) {                           \
            vf e = vf_load((x) + i_);                                \
            vf_store((y) + i_, EXPRESSION);                          \
        }                                                            \
        if (i_ < (n)) {                                              \
            vf e = vf_load_n((x) + i_, (n) - i_);                    \
            vf_store_n((y) + i_, (n) - i_, EXPRESSION);              \
        }                                                            \
    } while (0)

static void v_activate(float *y, const float *x, size_t n, trips_activation activation) {
#define BODY(f) MAP(y, x, n, f(e));
    FOR_ACTIVATION(activation, BODY)
#undef BODY
}
static void v_exp(float *y, const float *x, size_t n) { MAP(y, x, n, vf_exp(e)); }
static void v_erf(float *y, const float *x, size_t n) { MAP(y, x, n, vf_erf(e)); }
static void v_tanh(float *y, const float *x, size_t n) { MAP(y, x, n, vf_tanh(e)); }
static void v_sigmoid(float *y, const float *x, size_t n) { MAP(y, x, n, vf_sigmoid(e)); }

#define BINARY(name, f)                                                                              \
    static void name(float *y, const float *a, const float *b, size_t n) {                           \
        size_t i = 0;                                                                                \
        for (; i + VL <= n; i += VL) vf_store(y + i, f(vf_load(a + i), vf_load(b + i)));             \
        if (i < n) vf_store_n(y + i, n - i, f(vf_load_n(a + i, n - i), vf_load_n(b + i, n - i)));    \
    }
BINARY(v_add, vf_add)
BINARY(v_mul, vf_mul)

static void v_add_bias_rows(float *y, size_t ldy, const float *x, size_t ldx, const float *bias, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) v_add(y + r * ldy, x + r * ldx, bias, n);
}

static void v_softmax_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        float *row = y + r * ldy;
        if (row != x + r * ldx) memcpy(row, x + r * ldx, n * sizeof(float));
        scale_row(row, row, n, 1.0f / softmax_weights(row, n, 1.0f, NULL));
    }
}

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

static void v_layernorm_rows(float *y, size_t ldy, const float *x, size_t ldx, const float *residual, size_t ldr,
                           float *sum, size_t lds, size_t rows, size_t n, const float *weight, const float *bias,
                           float eps) {
    for (size_t r = 0; r < rows; r++) {
        float *to = y + r * ldy;
        const float *from = x + r * ldx;
        if (residual || sum) {
            float *s = sum ? sum + r * lds : to;
            if (residual) v_add(s, from, residual + r * ldr, n);
            else if (s != from) memcpy(s, from, n * sizeof(float));
            from = s;
        }
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

static void v_l2_normalize_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, float eps) {
    for (size_t r = 0; r < rows; r++) {
        float norm = sqrtf(sum_of_squares(x + r * ldx, n, 0));
        scale_row(y + r * ldy, x + r * ldx, n, 1.0f / (norm < eps ? eps : norm));
    }
}
