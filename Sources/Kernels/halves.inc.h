// Half precision, by the processor's own conversion.

static void v_f16_to_f32(float *restrict y, const uint16_t *restrict x, size_t n) {
    typedef _Float16 half __attribute__((may_alias));
    const half *restrict from = (const half *)x;
    for (size_t i = 0; i < n; i++) y[i] = (float)from[i];
}
