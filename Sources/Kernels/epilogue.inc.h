// What follows a matrix product, over a block of the output that is still in cache.

#define FOR_ACTIVATION(activation, BODY)                            \
    switch (activation) {                                           \
    case TRIPS_ACTIVATION_NONE: BODY(vf_same) break;                \
    case TRIPS_ACTIVATION_GELU_ERF: BODY(vf_gelu_erf) break;        \
    case TRIPS_ACTIVATION_GELU_TANH: BODY(vf_gelu_tanh) break;      \
    case TRIPS_ACTIVATION_QUICK_GELU: BODY(vf_quick_gelu) break;    \
    case TRIPS_ACTIVATION_RELU: BODY(vf_relu) break;                \
    }

INLINE vf vf_same(vf x) { return x; }

/// Rows [m0, m0 + rows), columns [n0, n1) of c, from sums that start at `from`.
static void apply_epilogue(const float *from, size_t ldf, float *c, size_t ldc, size_t m0, size_t rows, size_t n0, size_t n1,
                           const trips_epilogue *e) {
#define BODY(f)                                                                                    \
    for (size_t m = m0; m < m0 + rows; m++) {                                                      \
        const float *s = from + (m - m0) * ldf;                                                    \
        float *y = c + m * ldc;                                                                    \
        const float *r = e->residual ? e->residual + m * e->ldr : NULL;                            \
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
    FOR_ACTIVATION(e->activation, BODY)
#undef BODY
}
