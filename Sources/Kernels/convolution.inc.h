// Convolutions as products whose right-hand side is read where it lies: with the kernel's element t, all windows read
// neighbouring numbers from offsets[t] on.

enum { FILTER_VECTORS = 8 };

/// `vectors` vectors of one output, of which the last holds `last` elements: as many independent chains as hide the latency.
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
    // As many vectors as there is work for, as their chains run in parallel.
    size_t last = (n - 1) % VL + 1;
    switch ((n - 1) / VL) {
#define CASE(v) case v - 1: return filter_block(y, x, offsets, w, taps, bias, v, last)
        CASE(1); CASE(2); CASE(3); CASE(4); CASE(5); CASE(6); CASE(7); CASE(8);
#undef CASE
    }
}

/// A tile of `rows` outputs and 2 VL windows, or `first` + `second` windows where it is not `whole`. Weights of a kernel element are
/// contiguous, with distance `ldw` between elements; `next` is prefetched.
INLINE void convolve_tile_body(const int rows, const bool whole, float *y, size_t ldy, const float *x, const size_t *offsets,
                               const float *w, size_t ldw, size_t taps, const float *bias, size_t first, size_t second, ahead next) {
    vf sum[TILE_ROWS][2];
    UNROLLED for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = vf_set(bias ? bias[i] : 0);
    for (size_t t = 0; t < taps; t++, w += ldw) {
        const float *from = x + offsets[t];
        vf left = whole ? vf_load(from) : vf_load_n(from, first);
        vf right = whole ? vf_load(from + VL) : vf_load_n(from + VL, second);
        prefetch_l2(next.at + t * next.step);
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

/// A single window: its outputs are the lanes, and several tiles run in parallel.
static void convolve_point(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                           const float *bias, size_t m, size_t tile_begin, size_t tile_end) {
    enum { TILES = 4, VECTORS = (TRIPS_FILTER_TILE + VL - 1) / VL };
    for (size_t tile = tile_begin; tile < tile_end; tile += TILES) {
        vf sum[TILES][VECTORS];
        const float *w[TILES];
        size_t begin[TILES], height[TILES];
        UNROLLED for (size_t i = 0; i < TILES; i++) {
            // Beyond the last tile, that tile's sums are computed again.
            size_t at = tile + i < tile_end ? tile + i : tile_end - 1;
            begin[i] = filter_row(m, at), height[i] = filter_row(m, at + 1) - begin[i], w[i] = packed + begin[i] * taps;
            UNROLLED for (int v = 0; v < VECTORS; v++)
                sum[i][v] = bias ? vf_load_n(bias + begin[i] + v * VL, lanes_left(height[i], v)) : vf_zero();
        }
        for (size_t t = 0; t < taps; t++) {
            vf factor = vf_set(x[offsets[t]]);
            UNROLLED for (size_t i = 0; i < TILES; i++, w[i - 1] += height[i - 1])
                UNROLLED for (int v = 0; v < VECTORS; v++)
                    sum[i][v] = vf_fma(factor, vf_load_n(w[i] + v * VL, lanes_left(height[i], v)), sum[i][v]);
        }
        for (size_t i = 0; i < TILES; i++) {
            float lanes[VECTORS * VL];
            for (int v = 0; v < VECTORS; v++) vf_store(lanes + v * VL, sum[i][v]);
            for (size_t r = 0; r < height[i]; r++) y[(begin[i] + r) * ldy] = lanes[r];
        }
    }
}

static void v_convolve(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                       const float *bias, size_t m, size_t n, size_t tile_begin, size_t tile_end) {
    if (m == 1) return filter(y, x, offsets, packed, taps, bias ? *bias : 0, n);
    if (n == 1) return convolve_point(y, ldy, x, offsets, packed, taps, bias, m, tile_begin, tile_end);
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        size_t begin = filter_row(m, tile), end = filter_row(m, tile + 1), strips = (n + 2 * VL - 1) / (2 * VL);
        size_t parts = (end - begin + TILE_ROWS - 1) / TILE_ROWS;
        const float *weights = packed + begin * taps, *following = packed + end * taps;
        for (size_t part = 0, row = begin; part < parts; part++) {
            size_t height = share(end - begin, parts, part);
            for (size_t strip = 0; strip < strips; strip++) {
                size_t j = strip * 2 * VL, left = n - j, first = left < VL ? left : VL;
                size_t second = left < VL ? 0 : left < 2 * VL ? left - VL : VL;
                size_t step = (end - begin) * sizeof(float);
                ahead next = ahead_of(weights, step, following, step * taps, taps, part * strips + strip, parts * strips);
                (second == VL ? whole_tiles : ragged_tiles)[height](
                    y + row * ldy + j, ldy, x + j, offsets, weights + (row - begin), end - begin, taps, bias ? bias + row : NULL, first,
                    second, next);
            }
            row += height;
        }
    }
}

/// ⌈n / stride⌉, 0 for negative n. Without a division where it can be avoided: it would dominate the time of small planes.
INLINE size_t steps(ptrdiff_t n, size_t stride) {
    if (n <= 0) return 0;
    size_t room = (size_t)n + stride - 1;
    return (stride & (stride - 1)) == 0 ? room >> __builtin_ctzll(stride) : room / stride;
}

/// The places from `inside[0]` up to `inside[1]` that lie in the input in phase c of an axis.
INLINE void places_inside(const trips_phase_axis *axis, ptrdiff_t c, size_t inside[2]) {
    ptrdiff_t before = axis->before - c;
    size_t from = steps(before, axis->stride), to = steps((ptrdiff_t)axis->size + before, axis->stride);
    inside[0] = from < axis->places ? from : axis->places;
    to = to < axis->places ? to : axis->places;
    inside[1] = to < inside[0] ? inside[0] : to;
}

/// Every second of 2 VL numbers.
INLINE vf vf_even(vf a, vf b) {
#if VL == 16
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif VL == 8
    return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
    return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}

/// Every step-th number.
INLINE void copy_apart(float *to, const float *from, size_t step, size_t n) {
    size_t i = 0;
    if (step == 1) {
        for (; i + VL <= n; i += VL) vf_store(to + i, vf_load(from + i));
        if (i < n) vf_store_n(to + i, n - i, vf_load_n(from + i, n - i));
    } else if (step == 2) {
        // Nothing after the last number is read.
        for (; i + VL < n; i += VL) vf_store(to + i, vf_even(vf_load(from + 2 * i), vf_load(from + 2 * i + VL)));
        if (i == n) return;
        size_t left = 2 * (n - i) - 1, first = left < VL ? left : VL;
        vf a = vf_load_n(from + 2 * i, first), b = left > VL ? vf_load_n(from + 2 * i + VL, left - VL) : vf_zero();
        vf_store_n(to + i, n - i, vf_even(a, b));
    } else {
        for (; i < n; i++) to[i] = from[step * i];
    }
}

INLINE void clear(float *to, size_t n) {
    for (; n > VL; n -= VL, to += VL) vf_store(to, vf_zero());
    if (n > 0) vf_store_n(to, n, vf_zero());
}

/// One phase. The padding after one line and before the next is cleared at once.
static void phase(float *to, const float *x, const trips_phase_axis axes[3], ptrdiff_t a, ptrdiff_t b, ptrdiff_t c) {
    const trips_phase_axis *rows = &axes[1], *columns = &axes[2];
    size_t layers[2], lines[2], inside[2];
    places_inside(&axes[0], a, layers), places_inside(rows, b, lines), places_inside(columns, c, inside);
    size_t count = inside[1] - inside[0], width = columns->places, plane = rows->places * width;
    bool empty = count == 0 || lines[0] == lines[1];
    for (size_t z = 0; z < axes[0].places; z++, to += plane) {
        if (empty || z < layers[0] || z >= layers[1]) {
            clear(to, plane);
            continue;
        }
        ptrdiff_t layer = (ptrdiff_t)(z * axes[0].stride) + a - axes[0].before;
        ptrdiff_t line = (ptrdiff_t)(lines[0] * rows->stride) + b - rows->before;
        ptrdiff_t column = (ptrdiff_t)(inside[0] * columns->stride) + c - columns->before;
        const float *from = x + (layer * (ptrdiff_t)rows->size + line) * (ptrdiff_t)columns->size + column;
        float *at = to + lines[0] * width + inside[0];
        clear(to, (size_t)(at - to));
        for (size_t row = lines[0]; row < lines[1]; row++, from += rows->stride * columns->size, at += width) {
            copy_apart(at, from, columns->stride, count);
            clear(at + count, row + 1 < lines[1] ? width - count : (size_t)(to + plane - at) - count);
        }
    }
}

static void v_phases(float *to, const float *x, const trips_phase_axis axes[3]) {
    size_t places = axes[0].places * axes[1].places * axes[2].places;
    for (size_t a = 0; a < axes[0].phases; a++)
        for (size_t b = 0; b < axes[1].phases; b++)
            for (size_t c = 0; c < axes[2].phases; c++, to += places) phase(to, x, axes, (ptrdiff_t)a, (ptrdiff_t)b, (ptrdiff_t)c);
}

#if !VF_MASKS
/// Lanes from `begin` up to `end`.
typedef struct {
    size_t begin, end;
} vf_lanes;

INLINE vf_lanes vf_lanes_of(size_t begin, size_t end) { return (vf_lanes){begin, end}; }
/// Zeros in the other lanes, which are not read.
INLINE vf vf_load_lanes(const float *p, vf_lanes lanes) {
    if (lanes.begin == 0) return vf_load_n(p, lanes.end);
    float x[VL] = {0};
    for (size_t i = lanes.begin; i < lanes.end; i++) x[i] = p[i];
    return vf_load(x);
}
#endif

/// TRIPS_DEPTHWISE_LINES lines of `n` windows, n ≤ VL, the first of which reads from `x` on. A line of the input is loaded once for
/// all lines of windows that read it: windows are unaligned, and loads across cache lines take longer than the sums.
/// `lanes`: for each column of the kernel the lanes that lie in the input; `line`: the index of the first line read, of `size`;
/// `inside`: all lines that are read exist.
INLINE void depthwise_block(const int kernel, const bool inside, float *y, size_t ldy, size_t n, const float *x, const vf_lanes *lanes,
                            ptrdiff_t line, size_t size, size_t ldx, const float *w, float bias) {
    vf sum[TRIPS_DEPTHWISE_LINES];
    UNROLLED for (int l = 0; l < TRIPS_DEPTHWISE_LINES; l++) sum[l] = vf_set(bias);
    UNROLLED for (int row = 0; row < TRIPS_DEPTHWISE_LINES + kernel - 1; row++) {
        bool there = inside || (size_t)(line + row) < size;
        UNROLLED for (int column = 0; column < kernel; column++) {
            vf from = there ? vf_load_lanes(x + (ptrdiff_t)ldx * row + column, lanes[column]) : vf_zero();
            UNROLLED for (int l = 0; l < TRIPS_DEPTHWISE_LINES; l++)
                if (row >= l && row - l < kernel) sum[l] = vf_fma(vf_set(w[(row - l) * kernel + column]), from, sum[l]);
        }
    }
    UNROLLED for (int l = 0; l < TRIPS_DEPTHWISE_LINES; l++) vf_store_n(y + (size_t)l * ldy, n, sum[l]);
}

INLINE size_t lanes_before(ptrdiff_t place) { return place < 0 ? 0 : place < VL ? (size_t)place : VL; }

INLINE void depthwise(const int kernel, float *y, const float *x, const trips_phase_axis axes[2], const float *w, float bias) {
    const trips_phase_axis *lines = &axes[0], *columns = &axes[1];
    size_t rows = lines->places + 1 - (size_t)kernel, width = columns->places + 1 - (size_t)kernel;
    for (size_t j = 0; j < width; j += VL) {
        ptrdiff_t column = (ptrdiff_t)j - columns->before;
        vf_lanes lanes[7];
        for (int c = 0; c < kernel; c++) {
            size_t begin = lanes_before(-column - c), end = lanes_before((ptrdiff_t)columns->size - column - c);
            lanes[c] = vf_lanes_of(begin, end < begin ? begin : end);
        }
        for (size_t i = 0; i < rows; i += TRIPS_DEPTHWISE_LINES) {
            // The last block computes some lines again rather than be smaller.
            size_t at = i + TRIPS_DEPTHWISE_LINES <= rows ? i : rows - TRIPS_DEPTHWISE_LINES;
            ptrdiff_t line = (ptrdiff_t)at - lines->before;
            const float *from = x + line * (ptrdiff_t)columns->size + column;
            float *to = y + at * width + j;
            bool inside = line >= 0 && (size_t)line + TRIPS_DEPTHWISE_LINES + (size_t)kernel - 1 <= lines->size;
            if (inside) {
                depthwise_block(kernel, true, to, width, lanes_left(width - j, 0), from, lanes, line, lines->size, columns->size, w, bias);
            } else {
                depthwise_block(kernel, false, to, width, lanes_left(width - j, 0), from, lanes, line, lines->size, columns->size, w, bias);
            }
        }
    }
}

static void v_depthwise(float *y, const float *x, const trips_phase_axis axes[2], const float *w, size_t kernel, float bias) {
    switch (kernel) {
    case 3: return depthwise(3, y, x, axes, w, bias);
    case 5: return depthwise(5, y, x, axes, w, bias);
    case 7: return depthwise(7, y, x, axes, w, bias);
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
