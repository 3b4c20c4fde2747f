// Convolutions as products whose right-hand side is read where it lies: with the kernel's element t, all windows read
// neighbouring numbers from offsets[t] on.

enum { FILTER_VECTORS = 8 };

/// `vectors` vectors of one output, of which the last holds `last` elements: chains enough for one row alone.
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

static void filter(float *y, const float *x, const size_t *offsets, const float *w, size_t taps, float bias, size_t n) {
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

/// A tile of `rows` outputs and 2 VL windows, or of `first` + `second` where it is not whole. Weights of an element lie side by
/// side, and `ldw` behind those of the element before; what is ahead is brought in on the way.
INLINE void convolve_tile_body(const int rows, const bool whole, float *y, size_t ldy, const float *x, const size_t *offsets,
                               const float *w, size_t ldw, size_t taps, const float *bias, size_t first, size_t second, ahead next) {
    vf sum[TILE_ROWS][2];
    UNROLLED for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = vf_set(bias ? bias[i] : 0);
    for (size_t t = 0; t < taps; t++, w += ldw) {
        const float *from = x + offsets[t];
        vf left = whole ? vf_load(from) : vf_load_n(from, first), right = whole ? vf_load(from + VL) : vf_load_n(from + VL, second);
        _mm_prefetch(next.at + t * next.step, _MM_HINT_T1);
        UNROLLED for (int i = 0; i < rows; i++) {
            vf factor = vf_set(w[i]);
            sum[i][0] = vf_fma(factor, left, sum[i][0]);
            sum[i][1] = vf_fma(factor, right, sum[i][1]);
        }
    }
    UNROLLED for (int i = 0; i < rows; i++) {
        float *to = y + (size_t)i * ldy;
        vf_store_n(to, first, sum[i][0]);
        vf_store_n(to + VL, second, sum[i][1]);
    }
}

typedef void (*convolve_tile)(float *y, size_t ldy, const float *x, const size_t *offsets, const float *w, size_t ldw, size_t taps,
                              const float *bias, size_t first, size_t second, ahead next);

#define CONVOLVE_TILE(rows, whole, name)                                                                                     \
    static void convolve_tile_##name(float *y, size_t ldy, const float *x, const size_t *offsets, const float *w, size_t ldw, \
                                     size_t taps, const float *bias, size_t first, size_t second, ahead next) {               \
        convolve_tile_body(rows, whole, y, ldy, x, offsets, w, ldw, taps, bias, first, second, next);                         \
    }
#define CONVOLVE_WHOLE(rows) CONVOLVE_TILE(rows, true, whole_##rows)
#define CONVOLVE_RAGGED(rows) CONVOLVE_TILE(rows, false, ragged_##rows)
#define WHOLE_ENTRY(rows) convolve_tile_whole_##rows,
#define RAGGED_ENTRY(rows) convolve_tile_ragged_##rows,

EACH_HEIGHT(TILE_ROWS, CONVOLVE_WHOLE)
EACH_HEIGHT(TILE_ROWS, CONVOLVE_RAGGED)
static const convolve_tile whole_tiles[TILE_ROWS + 1] = {NULL, EACH_HEIGHT(TILE_ROWS, WHOLE_ENTRY)};
static const convolve_tile ragged_tiles[TILE_ROWS + 1] = {NULL, EACH_HEIGHT(TILE_ROWS, RAGGED_ENTRY)};

static void v_convolve(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                       const float *bias, size_t m, size_t n, size_t tile_begin, size_t tile_end) {
    if (m == 1) return filter(y, x, offsets, packed, taps, bias ? *bias : 0, n);
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        size_t begin = filter_row(m, tile), end = filter_row(m, tile + 1), strips = (n + 2 * VL - 1) / (2 * VL);
        size_t parts = (end - begin + TILE_ROWS - 1) / TILE_ROWS;
        const float *weights = packed + begin * taps, *following = packed + end * taps;
        for (size_t part = 0, row = begin; part < parts; part++) {
            size_t height = share(end - begin, parts, part);
            for (size_t strip = 0; strip < strips; strip++) {
                size_t j = strip * 2 * VL, left = n - j, first = left < VL ? left : VL;
                size_t second = left < VL ? 0 : left < 2 * VL ? left - VL : VL;
                ahead next = ahead_of(following, (end - begin) * taps * sizeof(float), taps, part * strips + strip, parts * strips);
                (second == VL ? whole_tiles : ragged_tiles)[height](
                    y + row * ldy + j, ldy, x + j, offsets, weights + (row - begin), end - begin, taps, bias ? bias + row : NULL, first,
                    second, next);
            }
            row += height;
        }
    }
}

/// Places [first, end) of a line that lie in the input in phase c.
INLINE void places_inside(const trips_phase_axis *axis, ptrdiff_t c, size_t *first, size_t *end) {
    ptrdiff_t stride = (ptrdiff_t)axis->stride, places = (ptrdiff_t)axis->places;
    ptrdiff_t before = axis->before - c, room = (ptrdiff_t)axis->size + before;
    ptrdiff_t from = before <= 0 ? 0 : (before + stride - 1) / stride, to = room <= 0 ? 0 : (room + stride - 1) / stride;
    if (from > places) from = places;
    if (to > places) to = places;
    *first = (size_t)from, *end = (size_t)(to < from ? from : to);
}

INLINE void copy_apart(float *to, const float *from, size_t step, size_t n) {
    size_t i = 0;
    if (step == 1) {
        for (; i + VL <= n; i += VL) vf_store(to + i, vf_load(from + i));
        if (i < n) vf_store_n(to + i, n - i, vf_load_n(from + i, n - i));
    } else if (step == 2) {
        for (; i < n; i++) to[i] = from[2 * i];
    } else {
        for (; i < n; i++) to[i] = from[step * i];
    }
}

INLINE void clear(float *to, size_t n) {
    for (; n >= VL; n -= VL, to += VL) vf_store(to, vf_zero());
    vf_store_n(to, n, vf_zero());
}

static void v_phases(float *to, const float *x, const trips_phase_axis axes[3]) {
    const trips_phase_axis *columns = &axes[2];
    for (size_t p = 0; p < axes[0].phases * axes[1].phases * columns->phases; p++) {
        ptrdiff_t c = (ptrdiff_t)(p % columns->phases), b = (ptrdiff_t)(p / columns->phases % axes[1].phases);
        ptrdiff_t a = (ptrdiff_t)(p / columns->phases / axes[1].phases);
        size_t first, end;
        places_inside(columns, c, &first, &end);
        for (size_t z = 0; z < axes[0].places; z++) {
            ptrdiff_t layer = (ptrdiff_t)(z * axes[0].stride) + a - axes[0].before;
            for (size_t row = 0; row < axes[1].places; row++, to += columns->places) {
                ptrdiff_t line = (ptrdiff_t)(row * axes[1].stride) + b - axes[1].before;
                bool inside = layer >= 0 && layer < (ptrdiff_t)axes[0].size && line >= 0 && line < (ptrdiff_t)axes[1].size;
                if (!inside || first == end) {
                    clear(to, columns->places);
                    continue;
                }
                ptrdiff_t start = (layer * (ptrdiff_t)axes[1].size + line) * (ptrdiff_t)columns->size;
                clear(to, first);
                copy_apart(to + first, x + start + (ptrdiff_t)(first * columns->stride) + c - columns->before, columns->stride, end - first);
                clear(to + end, columns->places - end);
            }
        }
    }
}

INLINE vf vf_line(vf x, const trips_finishing *f) {
    return vf_min(vf_set(f->high), vf_max(vf_set(f->low), vf_fma(vf_set(f->slope), x, vf_set(f->offset))));
}

static void v_finish(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *residual, size_t ldr,
                     const trips_finishing *f) {
    if (ldx == n && ldy == n && (!residual || ldr == n)) n *= rows, rows = rows > 0;
    const float *early = f->residual_first ? residual : NULL, *late = f->residual_first ? NULL : residual;
#define FINISH(g, left, load, store)                 \
    {                                                \
        vf s = load(from + i, left);                 \
        if (early) s = vf_add(s, load(early + r * ldr + i, left)); \
        vf v = g(s);                                 \
        if (f->gated) v = vf_mul(v, s);              \
        if (late) v = vf_add(v, load(late + r * ldr + i, left));   \
        store(to + i, left, v);                      \
    }
#define LOAD(p, left) vf_load(p)
#define STORE(p, left, v) vf_store(p, v)
#define BODY(g)                                                     \
    for (size_t r = 0; r < rows; r++) {                             \
        const float *from = x + r * ldx;                            \
        float *to = y + r * ldy;                                    \
        size_t i = 0;                                               \
        for (; i + VL <= n; i += VL) FINISH(g, VL, LOAD, STORE)     \
        if (i < n) FINISH(g, n - i, vf_load_n, vf_store_n)          \
    }
#define LINE(s) vf_line(s, f)
    if (f->activation == TRIPS_ACTIVATION_NONE) {
        BODY(LINE)
    } else {
        FOR_ACTIVATION(vf_, f->activation, BODY)
    }
#undef LINE
#undef BODY
#undef STORE
#undef LOAD
#undef FINISH
}
