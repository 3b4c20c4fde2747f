#include "table.h"

#include <stdatomic.h>
#if defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

typedef struct trips_variant {
    const char *name;
    const trips_table *table;
} trips_variant;

#if defined(__x86_64__)
#define X86(name) &trips_table_##name
#else
#define X86(name) NULL
#endif
#if defined(__aarch64__)
#define ARM(name) &trips_table_##name
#else
#define ARM(name) NULL
#endif

static const trips_variant variants[TRIPS_PATH_COUNT] = {
    {"scalar", &trips_table_scalar},
    {"avx2", X86(avx2)},
    {"avx2vnni", X86(avx2vnni)},
    {"avx512", X86(avx512)},
    {"avx512vnni", X86(avx512vnni)},
    {"avx512amx", X86(avx512amx)},
    {"neon", ARM(neon)},
    {"neondot", ARM(neondot)},
    {"neoni8mm", ARM(neoni8mm)},
};

const char *trips_path_name(trips_path path) {
    return (unsigned)path < TRIPS_PATH_COUNT ? variants[path].name : "unknown";
}

#if defined(__x86_64__)
/// Whether two paths give the same bits for small int8 products, with bytes and weights at both ends of their range.
static bool products_agree(const trips_table *left, const trips_table *right) {
    enum { M = 37, N = 61, K = 148, LDA = 192, MOST_BYTES = 64 * (K + 3 * 8) };
    static const size_t rows[] = {9, 16, 32, M}, groups[] = {0, 52, 64};
    uint8_t a[M * LDA] = {0};
    int8_t w[N * K];
    float scales[3 * N], row_scales[M], outputs[2][M * N];
    _Alignas(64) char packed[MOST_BYTES];
    for (size_t i = 0; i < sizeof a; i++) a[i] = (uint8_t)(i * 193 >> 3);
    for (size_t i = 0; i < sizeof w; i++) w[i] = (int8_t)(i * 151 >> 2);
    for (size_t i = 0; i < 3 * N; i++) scales[i] = (float)(i % 7 + 1) / 64;
    for (size_t i = 0; i < M; i++) row_scales[i] = (float)(i % 5 + 1) / 32;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        if (trips_igemm_pack_size(N, K, groups[g]) > sizeof packed) return false;
        trips_igemm_pack_ref(packed, w, K, scales, N, K, groups[g], 0, N);
        for (size_t m = 0; m < sizeof rows / sizeof *rows; m++) {
            left->igemm(a, LDA, row_scales, packed, N, K, groups[g], outputs[0], N, 0, rows[m], 0, N, NULL);
            right->igemm(a, LDA, row_scales, packed, N, K, groups[g], outputs[1], N, 0, rows[m], 0, N, NULL);
            if (memcmp(outputs[0], outputs[1], rows[m] * N * sizeof *outputs[0]) != 0) return false;
        }
    }
    return true;
}

/// Asks Linux for permission to use tiles, which it grants only on request. Linux before 5.16 refuses, and so does any where a
/// thread's signal stack has no room for them.
static bool tiles_permitted(void) {
    enum { REQUEST = 0x1023 /* ARCH_REQ_XCOMP_PERM */, TILES = 18 /* XFEATURE_XTILEDATA */ };
    return syscall(SYS_arch_prctl, REQUEST, TILES) == 0;
}

/// Whether tiles are permitted and agree with vectors. This is checked at run time as they were tested under emulation only.
static bool tiles_work(void) {
    static atomic_int answer = -1;
    int known = atomic_load_explicit(&answer, memory_order_relaxed);
    if (known >= 0) return known;
    bool work = tiles_permitted() && products_agree(&trips_table_avx512amx, &trips_table_avx512vnni);
    atomic_store_explicit(&answer, work, memory_order_relaxed);
    return work;
}
#endif

bool trips_path_available(trips_path path) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") &&
                __builtin_cpu_supports("bmi2");
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    switch (path) {
    case TRIPS_PATH_SCALAR: return true;
    case TRIPS_PATH_AVX2: return avx2;
    case TRIPS_PATH_AVX2_VNNI: return avx2 && __builtin_cpu_supports("avxvnni");
    case TRIPS_PATH_AVX512: return avx512;
    case TRIPS_PATH_AVX512_VNNI: return avx512 && __builtin_cpu_supports("avx512vnni");
    case TRIPS_PATH_AVX512_AMX:
        return avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("amx-int8") && tiles_work();
    default: return false;
    }
#elif defined(__aarch64__)
    bool dot = getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
    switch (path) {
    case TRIPS_PATH_SCALAR:
    case TRIPS_PATH_NEON: return true;
    case TRIPS_PATH_NEON_DOT: return dot;
    case TRIPS_PATH_NEON_I8MM: return dot && getauxval(AT_HWCAP2) & HWCAP2_I8MM;
    default: return false;
    }
#else
    return path == TRIPS_PATH_SCALAR;
#endif
}

/// The best path that is available, once it is known.
static atomic_int best = -1;

/// What this thread is made to use. Tests run side by side, and numbers of other paths are rounded otherwise.
static _Thread_local int forced = -1;

trips_path trips_kernels_path(void) {
    if (forced >= 0) return (trips_path)forced;
    int path = atomic_load_explicit(&best, memory_order_relaxed);
    if (path >= 0) return (trips_path)path;
    path = TRIPS_PATH_COUNT - 1;
    while (!trips_path_available((trips_path)path)) path--;
    atomic_store_explicit(&best, path, memory_order_relaxed);
    return (trips_path)path;
}

bool trips_kernels_force(trips_path path) {
    if (!trips_path_available(path)) return false;
    forced = path;
    return true;
}

static inline const trips_table *table(void) { return variants[trips_kernels_path()].table; }

/// For int8 products: few rows are bound by loading weights, and tiles only add to that.
static inline const trips_table *table_for_rows(size_t rows) {
    trips_path path = trips_kernels_path();
    return variants[path == TRIPS_PATH_AVX512_AMX && rows < 4 ? TRIPS_PATH_AVX512_VNNI : path].table;
}

// MARK: - Sizes

size_t trips_sgemm_pack_size(size_t n, size_t k) { return round_up(n, TRIPS_PANEL) * k; }

size_t trips_quantized_row_size(size_t k) {
    size_t bytes = round_up(k, 64);
    return bytes % 1024 == 0 ? bytes + 64 : bytes;
}

size_t trips_group_count(size_t k, size_t group) { return group == 0 || k == 0 ? 1 : (k + group - 1) / group; }

size_t trips_igemm_pack_size(size_t n, size_t k, size_t group) {
    return round_up(n, TRIPS_PANEL) / TRIPS_PANEL * igemm_panel_size(k, group);
}

void trips_sgemm_unpack(float *rows, size_t ldw, const float *packed, size_t k, size_t n_begin, size_t n_end) {
    for (size_t j = n_begin; j < n_end; j++, rows += ldw) {
        const float *from = packed + j / TRIPS_PANEL * TRIPS_PANEL * k + j % TRIPS_PANEL;
        for (size_t p = 0; p < k; p++) rows[p] = from[p * TRIPS_PANEL];
    }
}

void trips_igemm_unpack(int8_t *rows, size_t ldw, const void *packed, size_t k, size_t group, size_t n_begin, size_t n_end) {
    for (size_t g = 0; g < trips_group_count(k, group); g++)
        for (size_t j = n_begin, start = g * group; j < n_end; j++) {
            igemm_group from = igemm_group_at(packed, j / TRIPS_PANEL, g, k, group);
            int8_t *to = rows + (j - n_begin) * ldw + start;
            for (size_t p = 0; p < from.k && start + p < k; p++)
                to[p] = from.weights[p / 4 * 4 * TRIPS_PANEL + j % TRIPS_PANEL * 4 + p % 4];
        }
}

size_t trips_attention_scratch(size_t lk, size_t d) {
    return trips_sgemm_pack_size(lk, d) + trips_sgemm_pack_size(d, lk) + TRIPS_QUERY_BLOCK * round_up(lk, TRIPS_PANEL);
}

size_t trips_iattention_scratch(size_t lk, size_t d) { return iattention_parts_of(NULL, lk, d).size; }

size_t trips_filter_tiles(size_t m) { return (m + TRIPS_FILTER_TILE - 1) / TRIPS_FILTER_TILE; }

size_t trips_filter_row(size_t m, size_t tile) { return filter_row(m, tile); }

void trips_filter_pack(float *packed, const float *rows, size_t taps, size_t m, size_t m_begin, size_t m_end) {
    for (size_t i = m_begin, tile = 0; i < m_end; i++, rows += taps) {
        while (filter_row(m, tile + 1) <= i) tile++;
        size_t begin = filter_row(m, tile), height = filter_row(m, tile + 1) - begin;
        float *to = packed + begin * taps + (i - begin);
        for (size_t t = 0; t < taps; t++) to[t * height] = rows[t];
    }
}

// MARK: - Forwarding

void trips_sgemm_pack(float *packed, const float *rows, size_t ldw, size_t n, size_t k, size_t n_begin,
                      size_t n_end) {
    table()->sgemm_pack(packed, rows, ldw, n, k, n_begin, n_end);
}

void trips_sgemm_pack_factor(float *packed, const float *b, size_t ldb, size_t n, size_t k, bool transposed) {
    table()->sgemm_pack_factor(packed, b, ldb, n, k, transposed);
}

void trips_sgemm(const float *a, size_t lda, const float *packed, size_t n, size_t k, float *c, size_t ldc,
                 size_t m_begin, size_t m_end, size_t n_begin, size_t n_end, const trips_epilogue *epilogue) {
    table()->sgemm(a, lda, packed, n, k, c, ldc, m_begin, m_end, n_begin, n_end, epilogue);
}

void trips_quantize_rows(uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k, size_t rows,
                         const float *input_scale) {
    table()->quantize_rows(q, ldq, scale, x, ldx, k, rows, input_scale);
}

void trips_igemm_pack(void *packed, const int8_t *rows, size_t ldw, const float *scales, size_t n, size_t k,
                      size_t group, size_t n_begin, size_t n_end) {
    table()->igemm_pack(packed, rows, ldw, scales, n, k, group, n_begin, n_end);
}

void trips_igemm(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                 size_t group, float *c, size_t ldc, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                 const trips_epilogue *epilogue) {
    table_for_rows(m_end - m_begin)->igemm(a, lda, a_scale, packed, n, k, group, c, ldc, m_begin, m_end, n_begin, n_end, epilogue);
}

void trips_igemm_bytes(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                       size_t group, uint8_t *q, float *scales, size_t rows, size_t part, size_t m_begin, size_t m_end,
                       size_t n_begin, size_t n_end, const float *bias) {
    table_for_rows(m_end - m_begin)->igemm_bytes(a, lda, a_scale, packed, n, k, group, q, scales, rows, part, m_begin, m_end, n_begin, n_end, bias);
}

void trips_dequantize_rows(float *y, size_t ldy, const int8_t *w, size_t ldw, const float *scales, size_t rows,
                           size_t k, size_t group, const float *input_scale) {
    table()->dequantize_rows(y, ldy, w, ldw, scales, rows, k, group, input_scale);
}

void trips_attention(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv, float *out,
                     size_t ldo, size_t lq, size_t lk, size_t d, float scale,
                     const float *mask, size_t ldm, bool causal, trips_fully_masked fully_masked, float *scratch) {
    table()->attention(q, ldq, k, ldk, v, ldv, out, ldo, lq, lk, d, scale, mask, ldm, causal, fully_masked, scratch);
}

void trips_iattention(trips_byte_rows q, trips_byte_rows k, trips_byte_rows v, float *out, size_t ldo, size_t lq, size_t lk,
                      size_t d, float scale, const float *mask, size_t ldm, bool causal, trips_fully_masked fully_masked,
                      void *scratch) {
    table_for_rows(lq)->iattention(q, k, v, out, ldo, lq, lk, d, scale, mask, ldm, causal, fully_masked, scratch);
}

void trips_selection_dots(float *dots, const float *query, const float *keys, size_t ldk, size_t n, size_t begin, size_t end,
                          size_t heads, size_t d, bool shared) {
    table()->selection_dots(dots, query, keys, ldk, n, begin, end, heads, d, shared);
}

void trips_selection_scores(float *scores, float *dots, size_t n, size_t heads, float scale) {
    table()->selection_scores(scores, dots, n, heads, scale);
}

void trips_layernorm_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *weight,
                          const float *bias, float eps) {
    table()->layernorm_rows(y, ldy, x, ldx, rows, n, weight, bias, eps);
}

void trips_weighted_rows(float *y, const float *x, size_t ldx, const int32_t *rows, const float *weights, size_t count, size_t n) {
    table()->weighted_rows(y, x, ldx, rows, weights, count, n);
}

void trips_softmax_rows(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n) {
    table()->softmax_rows(y, ldy, x, ldx, rows, n);
}

void trips_transpose(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t columns) {
    table()->transpose(y, ldy, x, ldx, rows, columns);
}

void trips_activate(float *y, const float *x, size_t n, trips_activation activation) {
    table()->activate(y, x, n, activation);
}

void trips_convolve(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                    const float *bias, size_t m, size_t n, size_t tile_begin, size_t tile_end) {
    table()->convolve(y, ldy, x, offsets, packed, taps, bias, m, n, tile_begin, tile_end);
}

void trips_depthwise(float *y, const float *x, const trips_phase_axis axes[2], const float *w, size_t kernel, float bias) {
    table()->depthwise(y, x, axes, w, kernel, bias);
}

void trips_phases(float *to, const float *x, const trips_phase_axis axes[3]) { table()->phases(to, x, axes); }

void trips_finish(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *residual, size_t ldr,
                  const trips_finishing *finishing) {
    table()->finish(y, ldy, x, ldx, rows, n, residual, ldr, finishing);
}

void trips_f16_to_f32(float *y, const uint16_t *x, size_t n) { table()->f16_to_f32(y, x, n); }
void trips_bf16_to_f32(float *y, const uint16_t *x, size_t n) { table()->bf16_to_f32(y, x, n); }

void trips_planes_split(uint8_t *dst, const void *src, size_t n, size_t width, bool rotate) {
    table()->planes_split(dst, src, n, width, rotate);
}

void trips_planes_merge(void *dst, const uint8_t *src, size_t n, size_t width, bool rotate) {
    table()->planes_merge(dst, src, n, width, rotate);
}
