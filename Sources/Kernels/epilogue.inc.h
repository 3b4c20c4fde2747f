// The epilogue of a matrix product, over a block of the output that is still in cache.

/// `prefix`: vf_ or vf_coarse_.
#define FOR_ACTIVATION(prefix, activation, BODY)                        \
    switch (activation) {                                               \
    case TRIPS_ACTIVATION_NONE: BODY(vf_same) break;                    \
    case TRIPS_ACTIVATION_GELU_ERF: BODY(prefix##gelu_erf) break;       \
    case TRIPS_ACTIVATION_GELU_TANH: BODY(prefix##gelu_tanh) break;     \
    case TRIPS_ACTIVATION_QUICK_GELU: BODY(prefix##quick_gelu) break;   \
    case TRIPS_ACTIVATION_RELU: BODY(vf_relu) break;                    \
    case TRIPS_ACTIVATION_SIGMOID: BODY(vf_sigmoid) break;              \
    case TRIPS_ACTIVATION_SWISH: BODY(vf_swish) break;                  \
    case TRIPS_ACTIVATION_TANH: BODY(vf_tanh) break;                    \
    case TRIPS_ACTIVATION_ERF: BODY(vf_erf) break;                      \
    case TRIPS_ACTIVATION_EXP: BODY(vf_exp_or_zero) break;              \
    }

INLINE vf vf_same(vf x) { return x; }

/// Rows [m0, m0 + rows), columns [n0, n1) of c, from sums that start at `from`; `coarse`: activations are approximate.
INLINE void apply_any_epilogue(const bool coarse, const float *from, size_t ldf, float *c, size_t ldc, size_t m0, size_t rows,
                               size_t n0, size_t n1, const trips_epilogue *e) {
#define BODY(f)                                                                                    \
    for (size_t m = m0; m < m0 + rows; m++) {                                                      \
        const float *s = from + (m - m0) * ldf;                                                    \
        float *y = c + m * ldc;                                                                    \
        size_t row = e->residual_rows ? (size_t)e->residual_rows[m] : m;                           \
        const float *r = e->residual ? e->residual + row * e->ldr : NULL;                          \
        size_t n = n0;                                                                             \
        for (; n + VL <= n1; n += VL) {                                                            \
            vf x = vf_load(s + (n - n0));                                                           \
            if (e->bias) x = vf_add(x, vf_load(e->bias + n));                                      \
            x = f(x);                                                                              \
            if (r) x = vf_add(x, vf_load(r + n));                                                  \
            vf_store(y + n, x);                                                                    \
        }                                                                                          \
        if (n < n1) {                                                                              \
            vf x = vf_load_n(s + (n - n0), n1 - n);                                                \
            if (e->bias) x = vf_add(x, vf_load_n(e->bias + n, n1 - n));                            \
            x = f(x);                                                                              \
            if (r) x = vf_add(x, vf_load_n(r + n, n1 - n));                                        \
            vf_store_n(y + n, n1 - n, x);                                                          \
        }                                                                                          \
    }
    if (coarse) FOR_ACTIVATION(vf_coarse_, e->activation, BODY)
    else FOR_ACTIVATION(vf_, e->activation, BODY)
#undef BODY
}

static void apply_epilogue(const float *from, size_t ldf, float *c, size_t ldc, size_t m0, size_t rows, size_t n0, size_t n1,
                           const trips_epilogue *e) {
    apply_any_epilogue(false, from, ldf, c, ldc, m0, rows, n0, n1, e);
}

static void apply_coarse_epilogue(const float *from, size_t ldf, float *c, size_t ldc, size_t m0, size_t rows, size_t n0, size_t n1,
                                  const trips_epilogue *e) {
    apply_any_epilogue(true, from, ldf, c, ldc, m0, rows, n0, n1, e);
}

static void v_activate(float *y, const float *x, size_t n, trips_activation activation) {
    size_t i = 0;
#define BODY(f)                                                  \
    for (; i + VL <= n; i += VL) vf_store(y + i, f(vf_load(x + i))); \
    if (i < n) vf_store_n(y + i, n - i, f(vf_load_n(x + i, n - i)));
    FOR_ACTIVATION(vf_, activation, BODY)
#undef BODY
}
