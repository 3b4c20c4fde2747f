// int8 product: rows of biased bytes (u8) times packed signed bytes, exact in 32 bits.
//
// A step takes 4 inputs of VL outputs at once. With VNNI that is one instruction. Without, even and odd
// bytes are widened to 16 bits in place, so that two multiply-adds of pairs give the same sums in the same
// lanes; 255 · 128 · 2 fits 32 bits, and nothing saturates.

#if IGEMM_VNNI
typedef vi vweights;
typedef vi vinputs;
INLINE vweights prepare_weights(vi w) { return w; }
INLINE vinputs prepare_inputs(vi a) { return a; }
INLINE vi dot4(vi sum, vinputs a, vweights w) { return vi_dot4(sum, a, w); }
#else
typedef struct vpair {
    vi even, odd;
} vpair;
typedef vpair vweights;
typedef vpair vinputs;
INLINE vweights prepare_weights(vi w) { return (vweights){vi_even_signed(w), vi_odd_signed(w)}; }
INLINE vinputs prepare_inputs(vi a) { return (vinputs){vi_even(a), vi_odd(a)}; }
INLINE vi dot4(vi sum, vinputs a, vweights w) {
    return vi_add(sum, vi_add(vi_madd(a.even, w.even), vi_madd(a.odd, w.odd)));
}
#endif

/// Where a tile starts in the packed weights, and how groups lie.
typedef struct igemm_place {
    const void *packed;
    size_t k, group, groups, column;
    ahead next;
} igemm_place;

/// What turns a group's sums for VL outputs into numbers.
typedef struct igemm_outputs {
    const int32_t *corrections;
    const float *scales;
} igemm_outputs;

/// Integer sums of one group for one register tile, not corrected yet: to start from 0 costs nothing, and to start all rows from the
/// same register does.
INLINE void igemm_group_tile(const int rows, const int vectors, vi (*sum)[8], const uint8_t *a, size_t lda,
                             const igemm_place *place, size_t g, igemm_outputs *outputs) {
    const int8_t *w[8];
    const char *next = place->next.at + g * place->group * place->next.step;
    size_t k = 0, step = place->next.step;
    UNROLLED for (int v = 0; v < vectors; v++) {
        size_t column = place->column + (size_t)v * VL;
        igemm_group at = igemm_group_at(place->packed, column / TRIPS_PANEL, g, place->k, place->group);
        w[v] = at.weights + column % TRIPS_PANEL * 4;
        outputs[v] = (igemm_outputs){at.corrections + column % TRIPS_PANEL, at.scales + column % TRIPS_PANEL};
        k = at.k;
        UNROLLED for (int i = 0; i < rows; i++) sum[i][v] = vi_zero();
    }
    for (size_t p = 0; p < k; p += 4) {
        vweights b[8];
        UNROLLED for (int v = 0; v < vectors; v++) {
            b[v] = prepare_weights(vi_load((const int32_t *)(const void *)(w[v] + p * TRIPS_PANEL)));
            if (v % (16 / VL) == 0) _mm_prefetch((const char *)(w[v] + (p + 64) * TRIPS_PANEL), _MM_HINT_T0);
        }
        _mm_prefetch(next + p * step, _MM_HINT_T1);
        UNROLLED for (int i = 0; i < rows; i++) {
            vinputs x = prepare_inputs(vi_broadcast(a + (size_t)i * lda + p));
            UNROLLED for (int v = 0; v < vectors; v++) sum[i][v] = dot4(sum[i][v], x, b[v]);
        }
    }
}

INLINE void igemm_tile_body(const int rows, const int vectors, const uint8_t *a, size_t lda, const float *a_scale,
                            const igemm_place *place, const float *bias, float *c, size_t ldc, size_t columns) {
    vi sum[IGEMM_ROWS][8];
    igemm_outputs outputs[8];
    float total[TILE_FLOATS];
    // Of several groups, all but the last add up in memory: the integer sums need the registers.
    for (size_t g = 0; g + 1 < place->groups; g++) {
        igemm_group_tile(rows, vectors, sum, a + g * place->group, lda, place, g, outputs);
        UNROLLED for (int v = 0; v < vectors; v++) {
            vi correction = vi_load(outputs[v].corrections);
            vf s = vf_load(outputs[v].scales);
            UNROLLED for (int i = 0; i < rows; i++) {
                float *t = total + (i * vectors + v) * VL;
                vf x = vi_to_float(vi_add(sum[i][v], correction));
                vf_store(t, g == 0 ? vf_mul(x, s) : vf_fma(x, s, vf_load(t)));
            }
        }
    }
    size_t last = place->groups - 1;
    igemm_group_tile(rows, vectors, sum, a + last * place->group, lda, place, last, outputs);
    UNROLLED for (int v = 0; v < vectors; v++) {
        if (columns <= (size_t)v * VL) return;
        size_t n = columns - (size_t)v * VL;
        vi correction = vi_load(outputs[v].corrections);
        vf s = vf_load(outputs[v].scales), addend = bias ? vf_load_n(bias + v * VL, lanes_left(n, 0)) : vf_zero();
        UNROLLED for (int i = 0; i < rows; i++) {
            vf x = vi_to_float(vi_add(sum[i][v], correction));
            x = last == 0 ? vf_mul(x, s) : vf_fma(x, s, vf_load(total + (i * vectors + v) * VL));
            x = vf_fma(x, vf_set(a_scale[i]), addend);
            float *to = c + (size_t)i * ldc + v * VL;
            if (n >= VL) vf_store(to, x);
            else vf_store_n(to, n, x);
        }
    }
}

typedef void (*igemm_tile)(const uint8_t *a, size_t lda, const float *a_scale, const igemm_place *place,
                           const float *bias, float *c, size_t ldc, size_t columns);

#define IGEMM_TILE(rows, vectors, name)                                                                            \
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

static void v_igemm(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                  size_t group, float *c, size_t ldc, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                  const trips_epilogue *epilogue) {
    (void)n;
    if (m_begin >= m_end) return;
    size_t rows = m_end - m_begin, tiles = (rows + IGEMM_ROWS - 1) / IGEMM_ROWS;
    size_t pass = panels_per_pass(k, 1) * TRIPS_PANEL, panel = igemm_panel_size(k, group);
    igemm_place place = {packed, k, group, trips_group_count(k, group), 0, {packed, 0}};
    // The bias is added in registers; what else follows waits aside, so that the residual may be the output.
    bool aside = epilogue && (epilogue->activation != TRIPS_ACTIVATION_NONE || epilogue->residual);
    trips_epilogue rest = epilogue ? *epilogue : (trips_epilogue){0};
    const float *bias = rest.bias;
    rest.bias = NULL;
    for (size_t n0 = n_begin; n0 < n_end; n0 += pass) {
        size_t n1 = n_end - n0 < pass ? n_end : n0 + pass, m = m_begin;
        for (size_t t = 0; t < tiles; t++) {
            size_t height = share(rows, tiles, t), wide = (size_t)IGEMM_VECTORS((int)height) * VL;
            for (size_t j = n0; j < n1;) {
                bool narrow = n1 - j < wide;
                size_t width = narrow ? 2 * VL : wide, end = n1 - j < width ? n1 : j + width;
                place.column = j;
                place.next = ahead_of((const char *)packed + (n1 - n0 + j) / TRIPS_PANEL * panel, width * k, k, t, tiles);
                float tile[TILE_FLOATS], *to = aside ? tile : c + m * ldc + j;
                (narrow ? igemm_narrow_tiles : igemm_wide_tiles)[height](
                    a + m * lda, lda, a_scale + m, &place, bias ? bias + j : NULL, to, aside ? width : ldc, end - j);
                if (aside) apply_coarse_epilogue(tile, width, c, ldc, m, height, j, end, &rest);
                j = end;
            }
            m += height;
        }
    }
}

static void v_quantize_rows(uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k, size_t m_begin,
                          size_t m_end, const float *input_scale) {
    for (size_t m = m_begin; m < m_end; m++) {
        const float *row = x + m * ldx;
        uint8_t *to = q + m * ldq;
#define SCALED(i, load, ...)                                                                                  \
    (input_scale ? vf_mul(load(row + (i), ##__VA_ARGS__), load(input_scale + (i), ##__VA_ARGS__)) : load(row + (i), ##__VA_ARGS__))
        vi most[2] = {vi_zero(), vi_zero()};
        size_t i = 0;
        for (; i + 2 * VL <= k; i += 2 * VL)
            UNROLLED for (size_t u = 0; u < 2; u++) most[u] = vi_max(most[u], vf_magnitude(SCALED(i + u * VL, vf_load)));
        for (; i < k; i += VL) most[0] = vi_max(most[0], vf_magnitude(SCALED(i, vf_load_n, lanes_left(k - i, 0))));
        int32_t bits = vi_maximum(vi_max(most[0], most[1]));
        float peak;
        memcpy(&peak, &bits, sizeof peak);
        bool finite = peak <= FLT_MAX, zero = peak < 1e-35f;
        scale[m] = !finite ? NAN : zero ? 0 : peak / 127.0f;
        if (!finite || zero) {
            memset(to, 128, round_up(k, 4));
            continue;
        }
        vf factor = vf_set(127.0f / peak);
        for (i = 0; i + VL <= k; i += VL) store_biased_bytes(to + i, vf_mul(SCALED(i, vf_load), factor));
        if (i < k) {
            uint8_t tail[VL];
            store_biased_bytes(tail, vf_mul(SCALED(i, vf_load_n, k - i), factor));
            memcpy(to + i, tail, round_up(k, 4) - i);
        }
#undef SCALED
    }
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

/// Packs what an output has of one group: its weights from p on, the correction for all of them, and the scale.
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
                    transpose_block((float *)(void *)(to.weights + p * TRIPS_PANEL + j % TRIPS_PANEL * 4), TRIPS_PANEL,
                                    (const float *)(const void *)(from + p), ldw / 4);
            for (size_t i = 0; i < height; i++)
                pack_output(to, j % TRIPS_PANEL + i, from + i * ldw, p, count, j < n ? scales[(j + i - n_begin) * groups + g] : 0);
            j += height;
        }
}
