// int8 product by AMX: tiles of 16 rows of 64 bytes in place of vector registers.
//
// Four tiles hold the sums of up to 32 rows and 32 outputs, two the inputs, two the weights: four loads for four products, of which
// none waits for the previous one. The packed weights of 16 outputs and the biased inputs are tiles as they lie in memory. A tile of
// sums can only be read through memory, so sums are kept in memory.

#define IGEMM_WIDEST 2
#define IGEMM_FLOATS (IGEMM_ROWS * TRIPS_PANEL)
#define UNROLLED_ROWS

/// The largest tile.
enum { AMX_ROWS = 16, AMX_BYTES = 64 };

/// Tiles, by the half of the rows and the half of the outputs.
enum { SUMS_00, SUMS_01, SUMS_10, SUMS_11, INPUTS_0, INPUTS_1, WEIGHTS_0, WEIGHTS_1, AMX_TILES };

/// What `_tile_loadconfig` reads.
typedef struct amx_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} amx_shapes;

/// Inputs of a product of tiles: a multiple of 4 up to 64. Steps are as even as possible, so that few inputs of a group remain.
INLINE size_t amx_step(const igemm_place *place) {
    size_t inputs = igemm_group_at(place->packed, 0, 0, place->k, place->group).k, steps = (inputs + AMX_BYTES - 1) / AMX_BYTES;
    return steps == 0 ? AMX_BYTES : inputs / 4 / steps * 4;
}

/// Shapes tiles for blocks of so many rows. The shapes are a state of the thread until `end_tiles`: meanwhile a switch of threads
/// saves and restores the tiles' 8 KB, and the core cannot sleep deeply.
INLINE void begin_tiles(size_t rows, const igemm_place *place) {
    size_t step = amx_step(place), upper = rows < AMX_ROWS ? rows : AMX_ROWS;
    // An unused tile needs a shape as well.
    size_t lower = rows > AMX_ROWS ? rows - AMX_ROWS : AMX_ROWS;
    amx_shapes shapes = {.palette = 1};
    const size_t heights[AMX_TILES] = {upper, upper, lower, lower, upper, lower, step / 4, step / 4};
    for (int t = 0; t < AMX_TILES; t++) {
        shapes.rows[t] = (uint8_t)heights[t];
        shapes.row_bytes[t] = (uint16_t)(t == INPUTS_0 || t == INPUTS_1 ? step : AMX_BYTES);
    }
    _tile_loadconfig(&shapes);
}

INLINE void end_tiles(void) { _tile_release(); }

/// Integer sums over the first of k inputs, as many as whole steps take; returns their number. `tall`: more rows than a tile has.
INLINE size_t amx_sums(const bool tall, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda, const int8_t *weights, size_t k,
                       size_t step, ahead next) {
    size_t p = 0;
    _tile_zero(SUMS_00);
    _tile_zero(SUMS_01);
    if (tall) _tile_zero(SUMS_10);
    if (tall) _tile_zero(SUMS_11);
    for (; p + step <= k; p += step) {
        for (size_t line = 0; line < next.step; line++) prefetch_l2(next.at + p * next.step + line * 64);
        _tile_loadd(INPUTS_0, a + p, lda);
        _tile_loadd(WEIGHTS_0, weights + p * TRIPS_PANEL, TRIPS_PANEL * 4);
        _tile_loadd(WEIGHTS_1, weights + p * TRIPS_PANEL + AMX_BYTES, TRIPS_PANEL * 4);
        _tile_dpbusd(SUMS_00, INPUTS_0, WEIGHTS_0);
        _tile_dpbusd(SUMS_01, INPUTS_0, WEIGHTS_1);
        if (!tall) continue;
        _tile_loadd(INPUTS_1, a + AMX_ROWS * lda + p, lda);
        _tile_dpbusd(SUMS_10, INPUTS_1, WEIGHTS_0);
        _tile_dpbusd(SUMS_11, INPUTS_1, WEIGHTS_1);
    }
    _tile_stored(SUMS_00, sum, sizeof *sum);
    _tile_stored(SUMS_01, &sum[0][1], sizeof *sum);
    if (tall) _tile_stored(SUMS_10, sum + AMX_ROWS, sizeof *sum);
    if (tall) _tile_stored(SUMS_11, &sum[AMX_ROWS][1], sizeof *sum);
    return p;
}

/// Integer sums of one group for a block of one panel, not corrected yet.
INLINE void igemm_group_tile(const int rows, const int vectors, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda,
                             const igemm_place *place, size_t g, igemm_outputs *outputs) {
    igemm_group at = igemm_group_at(place->packed, place->column / TRIPS_PANEL, g, place->k, place->group);
    ahead next = {place->next.at + g * place->group * place->next.step, place->next.step};
    size_t step = amx_step(place), done = rows > AMX_ROWS ? amx_sums(true, sum, a, lda, at.weights, at.k, step, next)
                                                          : amx_sums(false, sum, a, lda, at.weights, at.k, step, next);
    for (int v = 0; v < vectors; v++) {
        outputs[v] = (igemm_outputs){at.corrections + v * VL, at.scales + v * VL};
        for (int i = 0; i < rows; i++) {
            vi rest = sum[i][v];
            for (size_t p = done; p < at.k; p += 4) {
                const void *weights = at.weights + p * TRIPS_PANEL + v * AMX_BYTES;
                rest = dot4(rest, vi_broadcast(a + (size_t)i * lda + p), vi_load(weights));
            }
            sum[i][v] = rest;
        }
    }
}
