// int8 product: rows of biased bytes (u8) times packed signed bytes, exact in 32 bits.
//
// A step takes 4 inputs of VL outputs at once. With VNNI, or ARM's dot products, that is one instruction. Without, even and
// odd bytes are widened to 16 bits, so that two multiply-adds of pairs give the same sums in the same lanes; 255 · 128 · 2 fits
// 32 bits, and nothing saturates. Weights are widened in registers, where all rows of a tile share them, inputs in memory, before
// a tile of rows passes over the columns.

/// Rows of inputs as tiles read them.
typedef struct igemm_inputs {
    const uint8_t *a;
    size_t lda; ///< in bytes
} igemm_inputs;

#if VI_DOT4
typedef vi vweights;
typedef vi vinputs;
/// Bytes that an input takes, and those of memory that a tile's inputs need.
enum { INPUT_BYTES = 1, WIDENED_BYTES = 1 };
INLINE vweights prepare_weights(vi w) { return w; }
INLINE vinputs load_inputs(const uint8_t *a) { return vi_broadcast(a); }
INLINE vi dot4(vi sum, vinputs a, vweights w) { return vi_dot4(sum, a, w); }
INLINE size_t igemm_height(size_t k) { return (void)k, IGEMM_ROWS; }
INLINE igemm_inputs prepare_rows(uint8_t *widened, const uint8_t *a, size_t lda, size_t rows, size_t k) {
    (void)widened, (void)rows, (void)k;
    return (igemm_inputs){a, lda};
}
#else
typedef struct vpair {
    vi even, odd;
} vpair;
typedef vpair vweights;
typedef vpair vinputs;
/// The memory holds one row of the longest K, or a tall tile of the usual ones.
enum { INPUT_BYTES = 2, WIDENED_BYTES = 2 * TRIPS_MOST_INPUTS + 64 };
INLINE vweights prepare_weights(vi w) { return (vweights){vi_even_signed(w), vi_odd_signed(w)}; }
INLINE vinputs load_inputs(const uint8_t *a) { return (vinputs){vi_broadcast(a), vi_broadcast(a + 4)}; }
INLINE vi dot4(vi sum, vinputs a, vweights w) { return vi_dot2(sum, a.even, w.even, a.odd, w.odd); }

/// Distance of widened rows: not a multiple of a page, which would make them evict each other from the first cache.
INLINE size_t widened_row_size(size_t k) { return round_up(k * INPUT_BYTES, 128) + 64; }

/// Rows of a tile at most.
INLINE size_t igemm_height(size_t k) {
    size_t rows = WIDENED_BYTES / widened_row_size(k);
    return rows < IGEMM_ROWS ? rows : IGEMM_ROWS;
}

/// Of every 4 inputs the even and then the odd ones, as 16-bit numbers.
INLINE igemm_inputs prepare_rows(uint8_t *restrict widened, const uint8_t *restrict a, size_t lda, size_t rows, size_t k) {
    size_t ldw = widened_row_size(k);
    for (size_t i = 0; i < rows; i++)
        for (size_t p = 0; p < k; p += 4) {
            uint32_t bytes, pairs[2];
            memcpy(&bytes, a + i * lda + p, sizeof bytes);
            pairs[0] = bytes & 0x00ff00ff;
            pairs[1] = bytes >> 8 & 0x00ff00ff;
            memcpy(widened + i * ldw + p * INPUT_BYTES, pairs, sizeof pairs);
        }
    return (igemm_inputs){widened, ldw};
}
#endif

/// Initial sums for VL outputs with these corrections.
INLINE vi sum_start(const int32_t *corrections) {
#if VI_DOT4_LESS_128
    return vi_sub(vi_zero(), vi_load(corrections));
#else
    (void)corrections;
    return vi_zero();
#endif
}

/// Where a tile starts in the packed weights, and how groups lie.
typedef struct igemm_place {
    const void *packed;
    size_t k, group, groups, column;
    ahead next;
} igemm_place;

/// Corrections and scales of a group's sums, for VL outputs.
typedef struct igemm_outputs {
    const int32_t *corrections;
    const float *scales;
} igemm_outputs;

#if IGEMM_AMX
#include "igemm_amx.inc.h"
#else
/// Vectors across a tile at most, and its numbers.
#define IGEMM_WIDEST 8
#define IGEMM_FLOATS TILE_FLOATS
#define UNROLLED_ROWS UNROLLED

/// Registers need no shape.
INLINE void begin_tiles(size_t rows, const igemm_place *place) { (void)rows, (void)place; }
INLINE void end_tiles(void) {}
#if VI_DOT4_LANES || VI_SQUARE
#include "igemm_neon.inc.h"
#else
/// No steps other than those of 4 inputs.
INLINE size_t igemm_blocks(const int rows, const int vectors, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda,
                           const int8_t *const *w, size_t k, const char *next, size_t step) {
    (void)rows, (void)vectors, (void)sum, (void)a, (void)lda, (void)w, (void)k, (void)next, (void)step;
    return 0;
}
#endif

/// Integer sums of one group for one register tile, not corrected yet: starting all rows from 0 is free, copying corrections into
/// them is not.
INLINE void igemm_group_tile(const int rows, const int vectors, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda,
                             const igemm_place *place, size_t g, igemm_outputs *outputs) {
    const int8_t *w[8];
    const char *next = place->next.at + g * place->group * place->next.step;
    size_t k = 0, step = place->next.step;
    igemm_group at;
    UNROLLED for (int v = 0; v < vectors; v++) {
        size_t column = place->column + (size_t)v * VL;
        // Tiles are as wide as a part of a panel, or as some panels.
        if (v % PANEL_VECTORS == 0) at = igemm_group_at(place->packed, column / TRIPS_PANEL, g, place->k, place->group);
        w[v] = at.weights + column % TRIPS_PANEL * 4;
        outputs[v] = (igemm_outputs){at.corrections + column % TRIPS_PANEL, at.scales + column % TRIPS_PANEL};
        k = at.k;
        UNROLLED for (int i = 0; i < rows; i++) sum[i][v] = sum_start(outputs[v].corrections);
    }
    for (size_t p = igemm_blocks(rows, vectors, sum, a, lda, w, k, next, step); p < k; p += 4) {
        vweights b[8];
        UNROLLED for (int v = 0; v < vectors; v++) {
            b[v] = prepare_weights(vi_load((const int32_t *)(const void *)(w[v] + p * TRIPS_PANEL)));
            if (v % (16 / VL) == 0) prefetch_l1(w[v] + (p + 64) * TRIPS_PANEL);
        }
        prefetch_l2(next + p * step);
        UNROLLED for (int i = 0; i < rows; i++) {
            vinputs x = load_inputs(a + (size_t)i * lda + p * INPUT_BYTES);
            UNROLLED for (int v = 0; v < vectors; v++) sum[i][v] = dot4(sum[i][v], x, b[v]);
        }
    }
}
#endif

INLINE void igemm_tile_body(const int rows, const int vectors, const uint8_t *a, size_t lda, const float *a_scale,
                            const igemm_place *place, const float *bias, float *c, size_t ldc, size_t columns) {
    vi sum[IGEMM_ROWS][IGEMM_WIDEST];
    igemm_outputs outputs[IGEMM_WIDEST];
    float total[IGEMM_FLOATS];
    // Of several groups, all but the last add up in memory: the integer sums need the registers.
    for (size_t g = 0; g + 1 < place->groups; g++) {
        igemm_group_tile(rows, vectors, sum, a + g * place->group * INPUT_BYTES, lda, place, g, outputs);
        UNROLLED for (int v = 0; v < vectors; v++) {
            vi correction = vi_load(outputs[v].corrections);
            vf s = vf_load(outputs[v].scales);
            UNROLLED_ROWS for (int i = 0; i < rows; i++) {
                float *t = total + (i * vectors + v) * VL;
                vf x = vi_to_float(vi_add(sum[i][v], correction));
                vf_store(t, g == 0 ? vf_mul(x, s) : vf_fma(x, s, vf_load(t)));
            }
        }
    }
    size_t last = place->groups - 1;
    igemm_group_tile(rows, vectors, sum, a + last * place->group * INPUT_BYTES, lda, place, last, outputs);
    UNROLLED for (int v = 0; v < vectors; v++) {
        if (columns <= (size_t)v * VL) return;
        size_t n = columns - (size_t)v * VL;
        vi correction = vi_load(outputs[v].corrections);
        vf s = vf_load(outputs[v].scales), addend = bias ? vf_load_n(bias + v * VL, lanes_left(n, 0)) : vf_zero();
        UNROLLED_ROWS for (int i = 0; i < rows; i++) {
            vf x = vi_to_float(vi_add(sum[i][v], correction));
            x = last == 0 ? vf_mul(x, s) : vf_fma(x, s, vf_load(total + (i * vectors + v) * VL));
            x = vf_fma(x, vf_set(a_scale[i]), addend);
            float *to = c + (size_t)i * ldc + v * VL;
            if (n >= VL) vf_store(to, x);
            else vf_store_n(to, n, x);
        }
    }
}

#if IGEMM_AMX
INLINE void igemm_any_tile(size_t rows, bool narrow, const uint8_t *a, size_t lda, const float *a_scale, const igemm_place *place,
                           const float *bias, float *c, size_t ldc, size_t columns) {
    (void)narrow;
    igemm_tile_body((int)rows, 2, a, lda, a_scale, place, bias, c, ldc, columns);
}
#else
typedef void (*igemm_tile)(const uint8_t *a, size_t lda, const float *a_scale, const igemm_place *place,
                           const float *bias, float *c, size_t ldc, size_t columns);

#define IGEMM_TILE(rows, vectors, name)                                                                            \
    _Static_assert((rows) * (vectors) * VL <= IGEMM_FLOATS && (vectors) <= IGEMM_WIDEST, "a tile's sums need room"); \
    static void igemm_tile_##name(const uint8_t *a, size_t lda, const float *a_scale, const igemm_place *place,    \
                                  const float *bias, float *c, size_t ldc, size_t columns) {                       \
        igemm_tile_body(rows, vectors, a, lda, a_scale, place, bias, c, ldc, columns);                             \
    }
#define IGEMM_NARROW(rows) IGEMM_TILE(rows, 2, narrow_##rows)
#define IGEMM_WIDE(rows) IGEMM_TILE(rows, IGEMM_VECTORS(rows), wide_##rows)
#define IGEMM_NARROW_ENTRY(rows) igemm_tile_narrow_##rows,
#define IGEMM_WIDE_ENTRY(rows) igemm_tile_wide_##rows,
EACH_HEIGHT(IGEMM_ROWS, IGEMM_NARROW)
EACH_HEIGHT(IGEMM_ROWS, IGEMM_WIDE)
static const igemm_tile igemm_narrow_tiles[IGEMM_ROWS + 1] = {NULL, EACH_HEIGHT(IGEMM_ROWS, IGEMM_NARROW_ENTRY)};
static const igemm_tile igemm_wide_tiles[IGEMM_ROWS + 1] = {NULL, EACH_HEIGHT(IGEMM_ROWS, IGEMM_WIDE_ENTRY)};

INLINE void igemm_any_tile(size_t rows, bool narrow, const uint8_t *a, size_t lda, const float *a_scale, const igemm_place *place,
                           const float *bias, float *c, size_t ldc, size_t columns) {
    (narrow ? igemm_narrow_tiles : igemm_wide_tiles)[rows](a, lda, a_scale, place, bias, c, ldc, columns);
}
#endif

/// A tile of rows on its way through the columns.
typedef struct igemm_rows {
    igemm_inputs inputs;
    const float *scales;
    size_t height, t, tiles; ///< tile t of so many
} igemm_rows;

/// Computes columns from j on, as many as a register tile takes but not beyond `end`, into `to`; returns the first column that is
/// left. All tiles of rows pass over the columns [n0, n1) before the next columns.
INLINE size_t igemm_step(const igemm_rows *r, igemm_place *place, size_t j, size_t end, size_t n0, size_t n1, const float *bias,
                         float *to, size_t ldt) {
    size_t wide = (size_t)IGEMM_VECTORS((int)r->height) * VL, panel = igemm_panel_size(place->k, place->group);
    bool narrow = end - j < wide;
    size_t width = narrow ? 2 * VL : wide;
    if (j + width < end) end = j + width;
    place->column = j;
    const char *own = (const char *)place->packed + j / TRIPS_PANEL * panel, *following = own + (n1 - n0) / TRIPS_PANEL * panel;
    place->next = ahead_of(own, TRIPS_PANEL, following, width * place->k, place->k, r->t, r->tiles);
    igemm_any_tile(r->height, narrow, r->inputs.a, r->inputs.lda, r->scales, place, bias ? bias + j : NULL, to, ldt, end - j);
    return end;
}

static void v_igemm(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                  size_t group, float *c, size_t ldc, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                  const trips_epilogue *epilogue) {
    (void)n;
    if (m_begin >= m_end) return;
    size_t rows = m_end - m_begin, tallest = igemm_height(k), tiles = (rows + tallest - 1) / tallest;
    size_t pass = panels_per_pass(k, 1) * TRIPS_PANEL;
    _Alignas(64) uint8_t widened[WIDENED_BYTES];
    igemm_place place = {packed, k, group, trips_group_count(k, group), 0, {packed, 0}};
    // The bias is added in registers; for the rest of the epilogue sums go to a buffer, so that the residual may be the output.
    bool aside = epilogue && (epilogue->activation != TRIPS_ACTIVATION_NONE || epilogue->residual);
    trips_epilogue rest = epilogue ? *epilogue : (trips_epilogue){0};
    const float *bias = rest.bias;
    rest.bias = NULL;
    for (size_t n0 = n_begin; n0 < n_end; n0 += pass) {
        size_t n1 = n_end - n0 < pass ? n_end : n0 + pass, m = m_begin;
        for (size_t t = 0; t < tiles; t++) {
            size_t height = share(rows, tiles, t);
            igemm_rows r = {prepare_rows(widened, a + m * lda, lda, height, k), a_scale + m, height, t, tiles};
            begin_tiles(height, &place);
            for (size_t j = n0; j < n1;) {
                float tile[IGEMM_FLOATS];
                size_t width = (size_t)IGEMM_VECTORS((int)r.height) * VL;
                size_t end = igemm_step(&r, &place, j, n1, n0, n1, bias, aside ? tile : c + m * ldc + j, aside ? width : ldc);
                if (aside) apply_coarse_epilogue(tile, width, c, ldc, m, r.height, j, end, &rest);
                j = end;
            }
            m += r.height;
        }
    }
    end_tiles();
}

/// x[i] … times the input scale; `load` reads VL numbers, or the first few with their count as a further argument.
#define SCALED(x, i, load, ...)                                                                                                   \
    (input_scale ? vf_mul(load((x) + (i), ##__VA_ARGS__), load(input_scale + (i), ##__VA_ARGS__)) : load((x) + (i), ##__VA_ARGS__))

/// The bits of the largest magnitude of a row, in one of the lanes. As integers, infinity is above all numbers and NaN above
/// infinity.
INLINE vi row_peak(const float *x, size_t k, const float *input_scale) {
    vi most[2] = {vi_zero(), vi_zero()};
    size_t i = 0;
    for (; i + 2 * VL <= k; i += 2 * VL)
        UNROLLED for (size_t u = 0; u < 2; u++) most[u] = vi_max(most[u], vf_magnitude(SCALED(x, i + u * VL, vf_load)));
    for (; i < k; i += VL) most[0] = vi_max(most[0], vf_magnitude(SCALED(x, i, vf_load_n, lanes_left(k - i, 0))));
    return vi_max(most[0], most[1]);
}

INLINE void row_bytes(uint8_t *to, const float *x, size_t k, const float *input_scale, float factor) {
    size_t i = 0;
    for (; i + 4 * VL <= k; i += 4 * VL) {
        vf line[4];
        UNROLLED for (size_t u = 0; u < 4; u++) line[u] = vf_mul(SCALED(x, i + u * VL, vf_load), vf_set(factor));
        store_biased_line(to + i, line);
    }
    for (; i + VL <= k; i += VL) store_biased_bytes(to + i, vf_mul(SCALED(x, i, vf_load), vf_set(factor)));
    if (i < k) {
        uint8_t tail[VL];
        store_biased_bytes(tail, vf_mul(SCALED(x, i, vf_load_n, k - i), vf_set(factor)));
        memcpy(to + i, tail, round_up(k, 4) - i);
    }
}
#undef SCALED

/// For rows with these peaks the factors that map them to 8 bits, 0 for rows of zeros, and the scales that undo it.
INLINE void byte_scales(vf peaks, vf *factors, vf *scales) {
    vf least = vf_set(1e-35f), infinity = vf_set(INFINITY), zero = vf_zero(), most = vf_set(127);
    *factors = vf_if_less(peaks, least, zero, vf_if_less(peaks, infinity, vf_div(most, peaks), zero));
    *scales = vf_if_less(peaks, least, zero, vf_if_less(peaks, infinity, vf_div(peaks, most), vf_set(NAN)));
}

/// Up to `most_rows` rows, which share their divisions.
INLINE void quantize_block(const size_t most_rows, uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k,
                           size_t rows, const float *input_scale) {
    vi peaks[VL];
    float factors[VL];
    vf factor, scales;
    UNROLLED for (size_t r = 0; r < VL; r++)
        peaks[r] = r < most_rows ? row_peak(x + (r < rows ? r : 0) * ldx, k, input_scale) : vi_zero();
    byte_scales(vi_as_float(vi_maxima(peaks)), &factor, &scales);
    vf_store(factors, factor);
    vf_store_n(scale, rows, scales);
    for (size_t r = 0; r < rows; r++) row_bytes(q + r * ldq, x + r * ldx, k, input_scale, factors[r]);
    float total = vf_sum(scales);
    for (size_t r = 0; r < rows && total != total; r++)
        if (scale[r] != scale[r]) memset(q + r * ldq, 128, round_up(k, 4));
}

static void v_quantize_rows(uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k, size_t rows,
                          const float *input_scale) {
    // Rows are read twice, the second time from the first cache.
    if (k <= 256)
        for (size_t m = 0; m < rows; m += VL)
            quantize_block(VL, q + m * ldq, ldq, scale + m, x + m * ldx, ldx, k, rows - m < VL ? rows - m : VL, input_scale);
    else
        for (size_t m = 0; m < rows; m++) quantize_block(1, q + m * ldq, ldq, scale + m, x + m * ldx, ldx, k, 1, input_scale);
}

/// A tile of the product's outputs, rows of `part`.
INLINE void quantize_tile(uint8_t *q, float *scales, const float *tile, size_t part, size_t rows) {
    for (size_t i = 0; i < rows; i += VL)
        quantize_block(VL, q + i * part, part, scales + i, tile + i * part, part, part, rows - i < VL ? rows - i : VL, NULL);
}

static void v_igemm_bytes(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k, size_t group,
                        uint8_t *q, float *scales, size_t rows, size_t part, size_t m_begin, size_t m_end,
                        size_t n_begin, size_t n_end, const float *bias) {
    (void)n;
    if (m_begin >= m_end) return;
    size_t all = m_end - m_begin, tallest = igemm_height(k), tiles = (all + tallest - 1) / tallest;
    _Alignas(64) uint8_t widened[WIDENED_BYTES];
    size_t pass = panels_per_pass(k, 1) * TRIPS_PANEL / part * part;
    if (pass == 0) pass = part;
    igemm_place place = {packed, k, group, trips_group_count(k, group), 0, {packed, 0}};
    for (size_t n0 = n_begin; n0 < n_end; n0 += pass) {
        size_t n1 = n_end - n0 < pass ? n_end : n0 + pass, m = m_begin;
        for (size_t t = 0; t < tiles; t++) {
            size_t height = share(all, tiles, t);
            igemm_rows r = {prepare_rows(widened, a + m * lda, lda, height, k), a_scale + m, height, t, tiles};
            begin_tiles(height, &place);
            for (size_t p = n0; p < n1; p += part) {
                float tile[IGEMM_ROWS * TRIPS_MOST_PART];
                for (size_t j = p; j < p + part;)
                    j = igemm_step(&r, &place, j, p + part, n0, n1, bias, tile + (j - p), part);
                size_t to = p / part * rows + m;
                // The usual size of a head, as a constant: loops are then unrolled.
                if (part == 64) quantize_tile(q + to * 64, scales + to, tile, 64, r.height);
                else quantize_tile(q + to * part, scales + to, tile, part, r.height);
            }
            m += r.height;
        }
    }
    end_tiles();
}

static void v_dequantize_rows(float *y, size_t ldy, const int8_t *w, size_t ldw, const float *scales, size_t rows,
                            size_t k, size_t group, const float *input_scale) {
    size_t groups = trips_group_count(k, group), length = group ? group : k;
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < groups; g++) {
            size_t i = g * length, end = k - i < length ? k : i + length;
            float s = scales[r * groups + g];
            for (; i + VL <= end; i += VL) {
                vf x = vf_mul(vf_load_bytes(w + r * ldw + i), vf_set(s));
                vf_store(y + r * ldy + i, input_scale ? vf_mul(x, vf_load(input_scale + i)) : x);
            }
            for (; i < end; i++) {
                float x = (float)w[r * ldw + i] * s;
                y[r * ldy + i] = input_scale ? x * input_scale[i] : x;
            }
        }
}

/// Packs one output of a group: its weights from p on, the correction for all of its weights, and the scale.
static void pack_output(igemm_group to, size_t column, const int8_t *from, size_t p, size_t count, float scale) {
    int8_t *place = to.weights + column * 4;
    int32_t sum = 0;
    for (; p + 4 <= count; p += 4) memcpy(place + p * TRIPS_PANEL, from + p, 4);
    for (size_t i = 0; i < count; i++) sum += from[i];
    for (; p < to.k; p++) place[p / 4 * 4 * TRIPS_PANEL + p % 4] = p < count ? from[p] : 0;
    to.corrections[column] = -128 * sum;
    to.scales[column] = scale;
}

static void v_igemm_pack(void *packed, const int8_t *rows, size_t ldw, const float *scales, size_t n, size_t k,
                       size_t group, size_t n_begin, size_t n_end) {
    size_t end = n_end == n ? round_up(n, TRIPS_PANEL) : n_end, groups = trips_group_count(k, group);
    for (size_t g = 0; g < groups; g++)
        for (size_t j = n_begin; j < end;) {
            igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, g, k, group);
            size_t start = g * group, p = 0, height = j % VL == 0 && j + VL <= n_end && ldw % 4 == 0 ? VL : 1;
            size_t count = j >= n ? 0 : k - start < to.k ? k - start : to.k;
            const int8_t *from = rows + (j - n_begin) * ldw + start;
            // Four weights are as wide as a float: a block of outputs is packed as sgemm's are.
            if (height == VL)
                for (; p + 4 * VL <= count; p += 4 * VL)
                    transpose_block(false, (float *)(void *)(to.weights + p * TRIPS_PANEL + j % TRIPS_PANEL * 4), TRIPS_PANEL,
                                    (const float *)(const void *)(from + p), ldw / 4);
            for (size_t i = 0; i < height; i++)
                pack_output(to, j % TRIPS_PANEL + i, from + i * ldw, p, count, j < n ? scales[(j + i - n_begin) * groups + g] : 0);
            j += height;
        }
}
