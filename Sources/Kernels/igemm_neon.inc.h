// int8 product on ARM: the inputs of a tile in whole steps of a vector, or of the 8 inputs of an I8MM product.

#if VI_SQUARE

/// Two rows by two columns and eight inputs at once. Returns the first input that is left.
INLINE size_t igemm_blocks(const int rows, const int vectors, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda,
                           const int8_t *const *w, size_t k, const char *next, size_t step) {
    size_t p = 0;
    vi square[(IGEMM_ROWS + 1) / 2][8][2];
    UNROLLED for (int i = 0; i < rows; i += 2)
        UNROLLED for (int v = 0; v < vectors; v++) square[i / 2][v][0] = square[i / 2][v][1] = vi_zero();
    for (; p + 8 <= k; p += 8) {
        vi x[(IGEMM_ROWS + 1) / 2];
        UNROLLED for (int i = 0; i < rows; i += 2) {
            const uint8_t *row = a + (size_t)i * lda + p;
            x[i / 2] = vi_load_rows(row, i + 1 < rows ? row + lda : row);
        }
        prefetch_l2(next + p * step);
        prefetch_l2(next + (p + 4) * step);
        UNROLLED for (int v = 0; v < vectors; v++) {
            const int32_t *at = (const int32_t *)(const void *)(w[v] + p * TRIPS_PANEL);
            vi b = vi_load(at), c = vi_load(at + TRIPS_PANEL), first = vi_first_rows(b, c), last = vi_last_rows(b, c);
            if (v % (16 / VL) == 0) prefetch_l1(at + 16 * TRIPS_PANEL), prefetch_l1(at + 17 * TRIPS_PANEL);
            UNROLLED for (int i = 0; i < rows; i += 2) {
                square[i / 2][v][0] = vi_square(square[i / 2][v][0], x[i / 2], first);
                square[i / 2][v][1] = vi_square(square[i / 2][v][1], x[i / 2], last);
            }
        }
    }
    UNROLLED for (int i = 0; i < rows; i++)
        UNROLLED for (int v = 0; v < vectors; v++)
            sum[i][v] = (i % 2 ? vi_second_sums : vi_first_sums)(square[i / 2][v][0], square[i / 2][v][1]);
    return p;
}

#else

/// A vector of inputs of each row, of which each product takes 4. Returns the first input that is left.
INLINE size_t igemm_blocks(const int rows, const int vectors, vi (*sum)[IGEMM_WIDEST], const uint8_t *a, size_t lda,
                           const int8_t *const *w, size_t k, const char *next, size_t step) {
    size_t p = 0;
    for (; p + 4 * VL <= k; p += 4 * VL) {
        vi x[IGEMM_ROWS];
        UNROLLED for (int i = 0; i < rows; i++) x[i] = vi_load((const int32_t *)(const void *)(a + (size_t)i * lda + p));
        UNROLLED for (size_t u = 0; u < VL; u++) {
            prefetch_l2(next + (p + 4 * u) * step);
            UNROLLED for (int v = 0; v < vectors; v++) {
                const int8_t *at = w[v] + (p + 4 * u) * TRIPS_PANEL;
                vi b = vi_load((const int32_t *)(const void *)at);
                if (v % (16 / VL) == 0) prefetch_l1(at + 64 * TRIPS_PANEL);
                UNROLLED for (int i = 0; i < rows; i++) sum[i][v] = vi_dot4_lane(sum[i][v], x[i], (int)u, b);
            }
        }
    }
    return p;
}

#endif
