// fp32 product with packed weights.
//
// A tile of the output stays in registers over the whole of K: with weights in panels and at most
// TILE_ROWS rows, loads (from L2, or L3 when prefetched) are well below what the multiply-adds take,
// so neither K nor A needs blocking, and the epilogue follows at once. The exception is rows of A that
// lie a multiple of half a page apart: they would evict each other from L1, so they are copied to a buffer,
// K_BLOCK inputs at a time, and the tile continues from the partial sums in the output.

#define PANEL_VECTORS (TRIPS_PANEL / VL)
/// Upper bound of a tile's size, narrow or wide.
#define TILE_FLOATS (32 * VL)
/// X(1) … X(rows), for a macro `rows`.
#define EACH_HEIGHT(rows, X) EACH_HEIGHT_(rows, X)
#define EACH_HEIGHT_(rows, X) EACH_HEIGHT_##rows(X)
#define EACH_HEIGHT_4(X) X(1) X(2) X(3) X(4)
#define EACH_HEIGHT_5(X) EACH_HEIGHT_4(X) X(5)
#define EACH_HEIGHT_6(X) EACH_HEIGHT_5(X) X(6)
#define EACH_HEIGHT_8(X) EACH_HEIGHT_6(X) X(7) X(8)
#define EACH_HEIGHT_13(X) EACH_HEIGHT_8(X) X(9) X(10) X(11) X(12) X(13)
#define EACH_HEIGHT_14(X) EACH_HEIGHT_13(X) X(14)

/// Prefetches the cache line of an address into L1 or L2.
INLINE void prefetch_l1(const void *p) { __builtin_prefetch(p, 0, 3); }
INLINE void prefetch_l2(const void *p) { __builtin_prefetch(p, 0, 2); }

/// Lanes of vector v of a tile that lie inside the matrix.
INLINE size_t lanes_left(size_t columns, int v) {
    size_t start = (size_t)v * VL;
    return columns <= start ? 0 : columns - start < VL ? columns - start : VL;
}

/// Weights to prefetch into L2 while a tile is computed: at input p those at `at` + p * step bytes.
typedef struct ahead {
    const char *at;
    size_t step;
} ahead;

/// Bytes that a single tile prefetches ahead in its own weights.
enum { OWN_AHEAD = 8 << 10 };

/// Of `bytes` at `following`, which are needed next, the part that tile t of `tiles` prefetches over k inputs. A model's weights
/// come from memory; spread over all tiles, prefetching stays below memory bandwidth. A single tile is bound by memory anyway:
/// it prefetches its `own` weights, `step` bytes for each input.
INLINE ahead ahead_of(const void *own, size_t step, const void *following, size_t bytes, size_t k, size_t t, size_t tiles) {
    if (k == 0 || tiles < 2) return (ahead){(const char *)own + OWN_AHEAD, step};
    size_t part = (bytes + tiles - 1) / tiles;
    return (ahead){(const char *)following + t * part, (part + k - 1) / k};
}

/// The first of k inputs of a tile, in whole steps of VL; returns the first input that is left.
INLINE size_t sgemm_blocks(const int rows, const int vectors, vf (*sum)[8], const float *a, size_t lda, const float *const *panel,
                           size_t k, ahead next) {
    size_t p = 0;
#if VF_LANES
    for (; p + VL <= k; p += VL) {
        vf x[TILE_ROWS];
        UNROLLED for (int i = 0; i < rows; i++) x[i] = vf_load(a + (size_t)i * lda + p);
        UNROLLED for (size_t u = 0; u < VL; u++) {
            prefetch_l2(next.at + (p + u) * next.step);
            UNROLLED for (int v = 0; v < vectors; v++) {
                vf w = vf_load(panel[v] + (p + u) * TRIPS_PANEL);
                if (v % (64 / sizeof(float) / VL) == 0) prefetch_l1(panel[v] + (p + u + 16) * TRIPS_PANEL);
                UNROLLED for (int i = 0; i < rows; i++) sum[i][v] = vf_fma_lane(x[i], (int)u, w, sum[i][v]);
            }
        }
    }
#else
    (void)rows, (void)vectors, (void)sum, (void)a, (void)lda, (void)panel, (void)k, (void)next;
#endif
    return p;
}

/// c[rows, columns] = a b for one register tile. `b` is the first vector's column in the packed panels;
/// vectors beyond a panel's width continue in the next one. Fewer than `vectors` * VL columns are written
/// where the matrix ends.
///
/// The panels have k rows, of which the tile takes [p0, p1); it starts from 0 where p0 is 0, else from c.
INLINE void sgemm_tile_body(const int rows, const int vectors, const float *a, size_t lda, const float *b, size_t k,
                            size_t p0, size_t p1, float *c, size_t ldc, size_t columns, ahead next) {
    vf sum[TILE_ROWS][8];
    const float *panel[8];
    UNROLLED for (int v = 0; v < vectors; v++)
        panel[v] = b + ((size_t)(v / PANEL_VECTORS) * k + p0) * TRIPS_PANEL + (v % PANEL_VECTORS) * VL;
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int v = 0; v < vectors; v++) sum[i][v] = vf_zero();
    if (p0 > 0) {
        UNROLLED for (int v = 0; v < vectors; v++) {
            size_t n = lanes_left(columns, v);
            UNROLLED for (int i = 0; i < rows; i++) sum[i][v] = vf_load_n(c + (size_t)i * ldc + v * VL, n);
        }
    }
    for (size_t p = sgemm_blocks(rows, vectors, sum, a, lda, panel, p1 - p0, next); p < p1 - p0; p++) {
        vf w[8];
        UNROLLED for (int v = 0; v < vectors; v++) {
            w[v] = vf_load(panel[v] + p * TRIPS_PANEL);
            if (v % (64 / sizeof(float) / VL) == 0) prefetch_l1(panel[v] + (p + 16) * TRIPS_PANEL);
        }
        prefetch_l2(next.at + p * next.step);
        UNROLLED for (int i = 0; i < rows; i++) {
            vf x = vf_set(a[(size_t)i * lda + p]);
            UNROLLED for (int v = 0; v < vectors; v++) sum[i][v] = vf_fma(x, w[v], sum[i][v]);
        }
    }
    if (columns >= (size_t)vectors * VL) {
        UNROLLED for (int i = 0; i < rows; i++)
            UNROLLED for (int v = 0; v < vectors; v++) vf_store(c + (size_t)i * ldc + v * VL, sum[i][v]);
        return;
    }
    UNROLLED for (int v = 0; v < vectors; v++) {
        size_t n = lanes_left(columns, v);
        UNROLLED for (int i = 0; i < rows; i++) vf_store_n(c + (size_t)i * ldc + v * VL, n, sum[i][v]);
    }
}

typedef void (*sgemm_tile)(const float *a, size_t lda, const float *b, size_t k, size_t p0, size_t p1,
                           float *c, size_t ldc, size_t columns, ahead next);

// One function per tile height; the wide ones keep enough multiply-adds in flight when rows are few.
#define SGEMM_TILE(rows, vectors, name)                                                                             \
    _Static_assert((rows) * (vectors) * VL <= TILE_FLOATS && (vectors) <= 8, "a tile's sums need room");             \
    static void sgemm_tile_##name(const float *a, size_t lda, const float *b, size_t k, size_t p0,           \
                                    size_t p1, float *c, size_t ldc, size_t columns, ahead next) {                  \
        sgemm_tile_body(rows, vectors, a, lda, b, k, p0, p1, c, ldc, columns, next);                                \
    }
#define SGEMM_NARROW(rows) SGEMM_TILE(rows, 2, narrow_##rows)
#define SGEMM_WIDE(rows) SGEMM_TILE(rows, TILE_VECTORS(rows), wide_##rows)
#define NARROW_ENTRY(rows) sgemm_tile_narrow_##rows,
#define WIDE_ENTRY(rows) sgemm_tile_wide_##rows,

EACH_HEIGHT(TILE_ROWS, SGEMM_NARROW)
EACH_HEIGHT(TILE_ROWS, SGEMM_WIDE)
static const sgemm_tile narrow_tiles[TILE_ROWS + 1] = {NULL, EACH_HEIGHT(TILE_ROWS, NARROW_ENTRY)};
static const sgemm_tile wide_tiles[TILE_ROWS + 1] = {NULL, EACH_HEIGHT(TILE_ROWS, WIDE_ENTRY)};

/// Rows of tile i when `rows` are spread evenly over `tiles`.
INLINE size_t share(size_t rows, size_t tiles, size_t i) { return rows / tiles + (i < rows % tiles ? 1 : 0); }

/// Panels that stay in L2 while the row tiles pass over them.
INLINE size_t panels_per_pass(size_t k, size_t element_size) {
    size_t bytes = k * TRIPS_PANEL * element_size, budget = 512 << 10;
    size_t panels = bytes == 0 ? 8 : budget / bytes;
    return panels < 4 ? 4 : panels;
}

/// Columns [n0, n1) of rows m… of c, over inputs [p0, p1); `a` points to the first row and to input p0.
/// Sums go to a buffer before their epilogue, so that the residual may be the output, unless c already holds partial sums.
/// This is tile t of `tiles`; after all of them, the inputs from p1 on follow, or the columns from n1 on.
static void sgemm_row_tile(const float *a, size_t lda, const float *packed, size_t k, size_t p0, size_t p1, float *c,
                           size_t ldc, size_t m, size_t height, size_t n0, size_t n1, size_t t, size_t tiles,
                           const trips_epilogue *epilogue) {
    size_t wide = (size_t)TILE_VECTORS((int)height) * VL;
    bool aside = epilogue && p0 == 0;
    for (size_t j = n0; j < n1;) {
        bool narrow = n1 - j < wide;
        size_t width = narrow ? 2 * VL : wide, end = n1 - j < width ? n1 : j + width;
        const float *b = packed + j / TRIPS_PANEL * TRIPS_PANEL * k + j % TRIPS_PANEL;
        float tile[TILE_FLOATS], *to = aside ? tile : c + m * ldc + j;
        size_t ldt = aside ? width : ldc;
        const float *own = b + p0 * TRIPS_PANEL, *following = p1 < k ? b + p1 * TRIPS_PANEL : b + (n1 - n0) * k;
        ahead next = ahead_of(own, TRIPS_PANEL * sizeof(float), following, width * (p1 - p0) * sizeof(float), p1 - p0, t, tiles);
        (narrow ? narrow_tiles : wide_tiles)[height](a, lda, b, k, p0, p1, to, ldt, aside ? width : end - j, next);
        if (epilogue) apply_epilogue(to, ldt, c, ldc, m, height, j, end, epilogue);
        j = end;
    }
}

enum { K_BLOCK = 256, COPY_STRIDE = K_BLOCK + 16, HALF_PAGE = 2048 };

/// The product over the first `used` of k inputs.
static void sgemm_inputs(const float *a, size_t lda, const float *packed, size_t k, size_t used, float *c, size_t ldc,
                         size_t m_begin, size_t m_end, size_t n_begin, size_t n_end, const trips_epilogue *epilogue) {
    if (m_begin >= m_end) return;
    size_t rows = m_end - m_begin, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    bool in_place = epilogue && epilogue->residual == c;
    bool aliased = lda * sizeof(float) % HALF_PAGE == 0 && rows > 4 && !in_place;
    size_t block = aliased && used > K_BLOCK ? K_BLOCK : used;
    size_t pass = panels_per_pass(block, sizeof(float)) * TRIPS_PANEL;
    for (size_t n0 = n_begin; n0 < n_end; n0 += pass) {
        size_t n1 = n_end - n0 < pass ? n_end : n0 + pass, p0 = 0;
        do {
            size_t p1 = used - p0 < block ? used : p0 + block, m = m_begin;
            for (size_t t = 0; t < tiles; t++) {
                size_t height = share(rows, tiles, t), stride = lda;
                const float *from = a + m * lda + p0;
                float copy[TILE_ROWS * COPY_STRIDE];
                if (aliased) {
                    for (size_t i = 0; i < height; i++)
                        memcpy(copy + i * COPY_STRIDE, from + i * lda, (p1 - p0) * sizeof(float));
                    from = copy, stride = COPY_STRIDE;
                }
                sgemm_row_tile(from, stride, packed, k, p0, p1, c, ldc, m, height, n0, n1, t, tiles, p1 == used ? epilogue : NULL);
                m += height;
            }
            p0 = p1;
        } while (p0 < used);
    }
}

static void v_sgemm(const float *a, size_t lda, const float *packed, size_t n, size_t k, float *c, size_t ldc,
                    size_t m_begin, size_t m_end, size_t n_begin, size_t n_end, const trips_epilogue *epilogue) {
    (void)n;
    sgemm_inputs(a, lda, packed, k, k, c, ldc, m_begin, m_end, n_begin, n_end, epilogue);
}

#if !VF_STREAM
INLINE void vf_stream(float *p, vf x) { vf_store(p, x); }
INLINE void vf_stream_end(void) {}
#endif

/// Writes the transpose of VL rows of VL floats to `to`; `far`: not to be read soon, so that stores bypass the caches where they can.
INLINE void transpose_block(const bool far, float *to, size_t ldt, const float *from, size_t ldf) {
    vf columns[VL];
    transpose(columns, from, ldf);
    bool streams = far && (uintptr_t)to % 64 == 0 && ldt * sizeof(float) % 64 == 0;
    UNROLLED for (size_t i = 0; i < VL; i++) {
        if (streams) vf_stream(to + i * ldt, columns[i]);
        else vf_store(to + i * ldt, columns[i]);
    }
}

static void v_transpose(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t columns) {
    size_t whole = rows / VL * VL, width = columns / VL * VL;
    for (size_t i = 0; i < whole; i += VL)
        for (size_t j = 0; j < width; j += VL) transpose_block(false, y + j * ldy + i, ldy, x + i * ldx + j, ldx);
    trips_transpose_ref(y + width * ldy, ldy, x + width, ldx, whole, columns - width);
    trips_transpose_ref(y + whole, ldy, x + whole * ldx, ldx, rows - whole, columns);
}

INLINE void pack_outputs(const bool far, float *packed, const float *rows, size_t ldw, size_t n, size_t k, size_t n_begin, size_t n_end) {
    for (size_t j = n_begin; j < n_end; j += VL) {
        float *to = packed + j / TRIPS_PANEL * TRIPS_PANEL * k + j % TRIPS_PANEL;
        const float *from = rows + (j - n_begin) * ldw;
        size_t count = n_end - j < VL ? n_end - j : VL, p = 0;
        if (count == VL)
            for (; p + VL <= k; p += VL) transpose_block(far, to + p * TRIPS_PANEL, TRIPS_PANEL, from + p, ldw);
        for (; p < k; p++)
            for (size_t i = 0; i < count; i++) to[p * TRIPS_PANEL + i] = from[i * ldw + p];
    }
    if (n_end == n && n % TRIPS_PANEL) {
        float *panel = packed + n / TRIPS_PANEL * TRIPS_PANEL * k;
        for (size_t p = 0; p < k; p++)
            for (size_t i = n % TRIPS_PANEL; i < TRIPS_PANEL; i++) panel[p * TRIPS_PANEL + i] = 0;
    }
}

/// Weights exceed the caches by far, and are not read before all of them are packed.
static void v_sgemm_pack(float *packed, const float *rows, size_t ldw, size_t n, size_t k, size_t n_begin,
                       size_t n_end) {
    pack_outputs(true, packed, rows, ldw, n, k, n_begin, n_end);
    vf_stream_end();
}

static void v_sgemm_pack_factor(float *packed, const float *b, size_t ldb, size_t n, size_t k, bool transposed) {
    if (transposed) return pack_outputs(false, packed, b, ldb, n, k, 0, n);
    for (size_t j = 0; j < n; j += TRIPS_PANEL) {
        float *panel = packed + j * k;
        size_t count = n - j < TRIPS_PANEL ? n - j : TRIPS_PANEL;
        for (size_t p = 0; p < k; p++)
            for (size_t i = 0; i < TRIPS_PANEL; i += VL) {
                size_t left = count > i ? count - i : 0;
                vf_store(panel + p * TRIPS_PANEL + i, vf_load_n(b + p * ldb + j + (left ? i : 0), left < VL ? left : VL));
            }
    }
}
