// Sums of shifted rows.

enum { FILTER_VECTORS = 8 };

/// `vectors` vectors of y, of which the last holds `last` elements.
INLINE void filter_block(float *y, const float *x, const size_t *offsets, const float *w, size_t taps, float bias, int vectors,
                         size_t last) {
    vf s[FILTER_VECTORS];
    UNROLLED for (int v = 0; v < vectors; v++) s[v] = vf_set(bias);
    for (size_t t = 0; t < taps; t++) {
        const float *from = x + offsets[t];
        vf factor = vf_set(w[t]);
        UNROLLED for (int v = 0; v < vectors - 1; v++) s[v] = vf_fma(factor, vf_load(from + v * VL), s[v]);
        const float *end = from + (vectors - 1) * VL;
        s[vectors - 1] = vf_fma(factor, last == VL ? vf_load(end) : vf_load_n(end, last), s[vectors - 1]);
    }
    UNROLLED for (int v = 0; v < vectors - 1; v++) vf_store(y + v * VL, s[v]);
    vf_store_n(y + (vectors - 1) * VL, last, s[vectors - 1]);
}

static void v_filter(float *y, const float *x, const size_t *offsets, const float *w, size_t taps, float bias, size_t n) {
    const size_t block = FILTER_VECTORS * VL;
    for (; n >= block; n -= block, x += block, y += block) filter_block(y, x, offsets, w, taps, bias, FILTER_VECTORS, VL);
    if (n == 0) return;
    // As many vectors as there is work for: their chains run side by side.
    size_t last = (n - 1) % VL + 1;
    switch ((n - 1) / VL) {
#define CASE(v) case v - 1: return filter_block(y, x, offsets, w, taps, bias, v, last)
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
#undef CASE
    }
}
