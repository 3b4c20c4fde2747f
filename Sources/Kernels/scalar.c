// The scalar references: what each kernel computes, in its simplest form. Products accumulate in the order that
// kernels.h promises; elementary functions are the C library's.
#include "table.h"

#include <stddef.h>

#include "bits.inc.h"

// MARK: - Epilogue

static float activation_of(float x, trips_activation activation) {
    switch (activation) {
    case TRIPS_ACTIVATION_NONE: return x;
    case TRIPS_ACTIVATION_GELU_ERF: return x * 0.5f * erfcf(x * -0.70710678f);
    case TRIPS_ACTIVATION_GELU_TANH: return x / (1 + expf(-x * (1.59576912f + 0.0713548163f * x * x)));
    case TRIPS_ACTIVATION_QUICK_GELU: return x / (1 + expf(-1.702f * x));
    case TRIPS_ACTIVATION_RELU: return x < 0 ? 0 : x;
    case TRIPS_ACTIVATION_SIGMOID: return 1 / (1 + expf(-x));
    case TRIPS_ACTIVATION_SWISH: return x / (1 + expf(-x));
    case TRIPS_ACTIVATION_TANH: return tanhf(x);
    case TRIPS_ACTIVATION_ERF: return erff(x);
    case TRIPS_ACTIVATION_EXP: return x < -87 ? 0 : expf(x);
    }
    return x;
}

static float epilogue_of(float x, size_t m, size_t n, const trips_epilogue *e) {
    if (e == NULL) return x;
    if (e->bias) x += e->bias[n];
    x = activation_of(x, e->activation);
    size_t row = e->residual_rows ? (size_t)e->residual_rows[m] : m;
    return e->residual ? x + e->residual[row * e->ldr + n] : x;
}

// MARK: - fp32 product

void trips_sgemm_pack_ref(float *packed, const float *rows, size_t ldw, size_t n, size_t k, size_t n_begin,
                          size_t n_end) {
    size_t end = n_end == n ? round_up(n, TRIPS_PANEL) : n_end;
    for (size_t j = n_begin; j < end; j++) {
        float *to = packed + j / TRIPS_PANEL * TRIPS_PANEL * k + j % TRIPS_PANEL;
        for (size_t p = 0; p < k; p++) to[p * TRIPS_PANEL] = j < n ? rows[(j - n_begin) * ldw + p] : 0;
    }
}

void trips_sgemm_pack_factor_ref(float *packed, const float *b, size_t ldb, size_t n, size_t k, bool transposed) {
    for (size_t j = 0; j < round_up(n, TRIPS_PANEL); j++) {
        float *to = packed + j / TRIPS_PANEL * TRIPS_PANEL * k + j % TRIPS_PANEL;
        for (size_t p = 0; p < k; p++) to[p * TRIPS_PANEL] = j >= n ? 0 : transposed ? b[j * ldb + p] : b[p * ldb + j];
    }
}

void trips_sgemm_ref(const float *a, size_t lda, const float *packed, size_t n, size_t k, float *c, size_t ldc,
                     size_t m_begin, size_t m_end, size_t n_begin, size_t n_end, const trips_epilogue *epilogue) {
    (void)n;
    for (size_t j0 = n_begin; j0 < n_end; j0 += TRIPS_PANEL) {
        const float *panel = packed + j0 * k;
        for (size_t m = m_begin; m < m_end; m++) {
            float sum[TRIPS_PANEL] = {0};
            for (size_t p = 0; p < k; p++) {
                float x = a[m * lda + p];
                for (size_t i = 0; i < TRIPS_PANEL; i++) sum[i] += x * panel[p * TRIPS_PANEL + i];
            }
            for (size_t j = j0; j < n_end && j < j0 + TRIPS_PANEL; j++)
                c[m * ldc + j] = epilogue_of(sum[j - j0], m, j, epilogue);
        }
    }
}

// MARK: - int8 product

void trips_quantize_rows_ref(uint8_t *q, size_t ldq, float *scale, const float *x, size_t ldx, size_t k,
                             size_t rows, const float *input_scale) {
    for (size_t m = 0; m < rows; m++) {
        const float *row = x + m * ldx;
        uint8_t *to = q + m * ldq;
        float most = 0;
        bool finite = true;
        for (size_t i = 0; i < k; i++) {
            float a = fabsf(input_scale ? row[i] * input_scale[i] : row[i]);
            most = a > most ? a : most;
            finite = finite && a <= FLT_MAX;
        }
        // Below this the reciprocal would not be finite: the row counts as zeros.
        bool zero = most < 1e-35f;
        float factor = !finite || zero ? 0 : 127.0f / most;
        scale[m] = !finite ? NAN : zero ? 0 : most / 127.0f;
        for (size_t i = 0; i < round_up(k, 4); i++) {
            float a = i < k && factor != 0 ? (input_scale ? row[i] * input_scale[i] : row[i]) * factor : 0;
            to[i] = (uint8_t)(128 + (int)lrintf(a));
        }
    }
}

void trips_igemm_pack_ref(void *packed, const int8_t *rows, size_t ldw, const float *scales, size_t n, size_t k,
                          size_t group, size_t n_begin, size_t n_end) {
    size_t end = n_end == n ? round_up(n, TRIPS_PANEL) : n_end, groups = trips_group_count(k, group);
    for (size_t j = n_begin; j < end; j++)
        for (size_t g = 0; g < groups; g++) {
            igemm_group to = igemm_group_at(packed, j / TRIPS_PANEL, g, k, group);
            size_t column = j % TRIPS_PANEL, start = g * group;
            int32_t sum = 0;
            for (size_t p = 0; p < to.k; p++) {
                int8_t w = j < n && start + p < k ? rows[(j - n_begin) * ldw + start + p] : 0;
                to.weights[p / 4 * 4 * TRIPS_PANEL + column * 4 + p % 4] = w;
                sum += w;
            }
            to.corrections[column] = -128 * sum;
            to.scales[column] = j < n ? scales[(j - n_begin) * groups + g] : 0;
        }
}

/// Σ (a − 128) w over one group, for the columns of one panel.
static void group_sums(int32_t *sum, const uint8_t *a, igemm_group group) {
    for (size_t i = 0; i < TRIPS_PANEL; i++) sum[i] = group.corrections[i];
    for (size_t p = 0; p < group.k; p += 4)
        for (size_t i = 0; i < TRIPS_PANEL; i++)
            for (size_t u = 0; u < 4; u++) sum[i] += a[p + u] * group.weights[p * TRIPS_PANEL + i * 4 + u];
}

void trips_igemm_ref(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                     size_t group, float *c, size_t ldc, size_t m_begin, size_t m_end, size_t n_begin, size_t n_end,
                     const trips_epilogue *epilogue) {
    (void)n;
    size_t groups = trips_group_count(k, group);
    for (size_t j0 = n_begin; j0 < n_end; j0 += TRIPS_PANEL)
        for (size_t m = m_begin; m < m_end; m++) {
            float total[TRIPS_PANEL] = {0};
            for (size_t g = 0; g < groups; g++) {
                igemm_group at = igemm_group_at(packed, j0 / TRIPS_PANEL, g, k, group);
                int32_t sum[TRIPS_PANEL];
                group_sums(sum, a + m * lda + g * group, at);
                for (size_t i = 0; i < TRIPS_PANEL; i++) total[i] += (float)sum[i] * at.scales[i];
            }
            for (size_t j = j0; j < n_end && j < j0 + TRIPS_PANEL; j++)
                c[m * ldc + j] = epilogue_of(total[j - j0] * a_scale[m], m, j, epilogue);
        }
}

void trips_igemm_bytes_ref(const uint8_t *a, size_t lda, const float *a_scale, const void *packed, size_t n, size_t k,
                           size_t group, uint8_t *q, float *scales, size_t rows, size_t part, size_t m_begin,
                           size_t m_end, size_t n_begin, size_t n_end, const float *bias) {
    float row[TRIPS_MOST_PART];
    for (size_t j = n_begin; j < n_end; j += part) {
        const char *panels = (const char *)packed + j / TRIPS_PANEL * igemm_panel_size(k, group);
        trips_epilogue epilogue = {.bias = bias ? bias + j : NULL};
        for (size_t m = m_begin; m < m_end; m++) {
            trips_igemm_ref(a + m * lda, lda, a_scale + m, panels, n - j, k, group, row, part, 0, 1, 0, part, &epilogue);
            size_t to = j / part * rows + m;
            trips_quantize_rows_ref(q + to * part, part, scales + to, row, part, part, 1, NULL);
        }
    }
}

void trips_dequantize_rows_ref(float *y, size_t ldy, const int8_t *w, size_t ldw, const float *scales, size_t rows,
                               size_t k, size_t group, const float *input_scale) {
    size_t groups = trips_group_count(k, group);
    for (size_t r = 0; r < rows; r++)
        for (size_t i = 0; i < k; i++) {
            float x = (float)w[r * ldw + i] * scales[r * groups + (group ? i / group : 0)];
            y[r * ldy + i] = input_scale ? x * input_scale[i] : x;
        }
}

// MARK: - Attention

void trips_attention_ref(const float *q, size_t ldq, const float *k, size_t ldk, const float *v, size_t ldv,
                         float *out, size_t ldo, size_t lq, size_t lk, size_t d, float scale,
                         const float *mask, size_t ldm, bool causal, trips_fully_masked fully_masked, float *scratch) {
    for (size_t i = 0; i < lq; i++) {
        size_t seen = causal ? visible_keys(i, lk) : lk;
        float most = -INFINITY, sum = 0;
        for (size_t j = 0; j < seen; j++) {
            float s = 0;
            for (size_t p = 0; p < d; p++) s += q[i * ldq + p] * k[j * ldk + p];
            scratch[j] = s * scale + (mask ? mask[i * ldm + j] : 0);
            most = scratch[j] > most ? scratch[j] : most;
        }
        for (size_t j = 0; j < seen; j++) sum += scratch[j] = expf(scratch[j] - softmax_shift(most));
        if (drops_weights(sum, fully_masked)) {
            for (size_t j = 0; j < seen; j++) scratch[j] = 0;
            sum = 0;
        }
        for (size_t p = 0; p < d; p++) {
            float s = 0;
            for (size_t j = 0; j < seen; j++) s += scratch[j] * v[j * ldv + p];
            out[i * ldo + p] = s * softmax_factor(sum, fully_masked);
        }
    }
}

void trips_iattention_ref(trips_byte_rows q, trips_byte_rows k, trips_byte_rows v, float *out, size_t ldo, size_t lq, size_t lk,
                          size_t d, float scale, const float *mask, size_t ldm, bool causal,
                          trips_fully_masked fully_masked, void *scratch) {
    iattention_parts at = iattention_parts_of(scratch, lk, d);
    size_t group = group_keys(at.groups);
    float largest = 0, *peaks = at.scales, *parts = at.inverses;
    for (size_t j = 0; j < lk; j++) largest = fmaxf(v.scales[j], largest);
    for (size_t j = 0; j < lk; j++) {
        float part = largest > 0 ? v.scales[j] / largest : 1;
        parts[j] = part < LEAST_VALUE_SCALE ? LEAST_VALUE_SCALE : part;
    }
    for (size_t i = 0; i < lq; i++) {
        size_t seen = causal ? visible_keys(i, lk) : lk;
        float most = -INFINITY, sum = 0;
        for (size_t j = 0; j < seen; j++) {
            int32_t s = 0;
            for (size_t p = 0; p < d; p++) s += (q.bytes[i * q.ld + p] - 128) * (k.bytes[j * k.ld + p] - 128);
            at.scores[j] = (float)s * k.scales[j] * q.scales[i] * scale + (mask ? mask[i * ldm + j] : 0);
            most = at.scores[j] > most ? at.scores[j] : most;
        }
        for (size_t g = 0; g < group_count(at.groups); g++) peaks[g] = 0;
        for (size_t j = 0; j < seen; j++) {
            float weight = expf(at.scores[j] - softmax_shift(most)), *peak = &peaks[key_place(at.groups, j) / group];
            sum += weight;
            at.scores[j] = weight * parts[j];
            *peak = at.scores[j] > *peak ? at.scores[j] : *peak;
        }
        bool dropped = drops_weights(sum, fully_masked);
        for (size_t p = 0; p < d; p++) {
            float s = 0;
            // A row of values that holds NaN has the scale NaN.
            for (size_t j = 0; dropped && j < seen; j++) s += 0 * parts[j];
            for (size_t j = 0; !dropped && j < seen; j++) {
                float peak = peaks[key_place(at.groups, j) / group];
                // The inverse of a peak next to 0 could overflow.
                if (peak > 1e-30f) s += rintf(255 / peak * at.scores[j]) * (peak / 255) * (v.bytes[j * v.ld + p] - 128);
            }
            out[i * ldo + p] = s * largest * softmax_factor(dropped ? 0 : sum, fully_masked);
        }
    }
}

void trips_selection_dots_ref(float *dots, const float *query, const float *keys, size_t ldk, size_t n, size_t begin, size_t end,
                              size_t heads, size_t d, bool shared) {
    for (size_t h = 0; h < heads; h++)
        for (size_t i = begin; i < end; i++) {
            float s = 0;
            for (size_t p = 0; p < d; p++) s += query[h * d + p] * keys[i * ldk + (shared ? 0 : h * d) + p];
            dots[h * n + i] = s;
        }
}

void trips_selection_scores_ref(float *scores, float *dots, size_t n, size_t heads, float scale) {
    for (size_t i = 0; i < n; i++) scores[i] = 0;
    for (size_t h = 0; h < heads; h++) {
        float *x = dots + h * n, most = -INFINITY, sum = 0;
        for (size_t i = 0; i < n; i++) most = scale * x[i] > most ? scale * x[i] : most;
        for (size_t i = 0; i < n; i++) sum += x[i] = expf(scale * x[i] - most);
        for (size_t i = 0; i < n; i++) scores[i] += x[i] / (sum * (float)heads);
    }
}

// MARK: - Rows

void trips_layernorm_rows_ref(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n,
                              const float *weight, const float *bias, float eps) {
    for (size_t r = 0; r < rows; r++) {
        const float *from = x + r * ldx;
        float *to = y + r * ldy;
        double total = 0, squares = 0;
        for (size_t i = 0; i < n; i++) total += from[i];
        double mean = total / (double)n;
        for (size_t i = 0; i < n; i++) squares += (from[i] - mean) * (from[i] - mean);
        double inverse = 1 / sqrt(squares / (double)n + (double)eps);
        for (size_t i = 0; i < n; i++)
            to[i] = (float)((from[i] - mean) * inverse) * (weight ? weight[i] : 1) + (bias ? bias[i] : 0);
    }
}

void trips_weighted_rows_ref(float *y, const float *x, size_t ldx, const int32_t *rows, const float *weights, size_t count, size_t n) {
    for (size_t j = 0; j < n; j++) {
        float s = 0;
        for (size_t i = 0; i < count; i++) s += weights[i] * x[(rows ? (size_t)rows[i] : i) * ldx + j];
        y[j] = s;
    }
}

void trips_softmax_rows_ref(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n) {
    for (size_t r = 0; r < rows; r++) {
        const float *from = x + r * ldx;
        float *to = y + r * ldy, most = -INFINITY, sum = 0;
        for (size_t i = 0; i < n; i++) most = from[i] > most ? from[i] : most;
        for (size_t i = 0; i < n; i++) sum += to[i] = expf(from[i] - most);
        for (size_t i = 0; i < n; i++) to[i] /= sum;
    }
}

void trips_transpose_ref(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t columns) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) memcpy(y + j * ldy + i, x + i * ldx + j, sizeof *y);
}

void trips_activate_ref(float *y, const float *x, size_t n, trips_activation activation) {
    for (size_t i = 0; i < n; i++) y[i] = activation_of(x[i], activation);
}

// MARK: - Convolutions

void trips_convolve_ref(float *y, size_t ldy, const float *x, const size_t *offsets, const float *packed, size_t taps,
                        const float *bias, size_t m, size_t n, size_t tile_begin, size_t tile_end) {
    for (size_t tile = tile_begin; tile < tile_end; tile++) {
        size_t begin = filter_row(m, tile), height = filter_row(m, tile + 1) - begin;
        for (size_t i = begin; i < begin + height; i++) {
            const float *w = packed + begin * taps + (i - begin);
            for (size_t j = 0; j < n; j++) y[i * ldy + j] = bias ? bias[i] : 0;
            for (size_t t = 0; t < taps; t++)
                for (size_t j = 0; j < n; j++) y[i * ldy + j] += w[t * height] * x[offsets[t] + j];
        }
    }
}

/// Where place i of a phase lies in the input; −1 outside.
static ptrdiff_t place_of(const trips_phase_axis *axis, size_t phase, size_t i) {
    ptrdiff_t at = (ptrdiff_t)(i * axis->stride + phase) - axis->before;
    return at < (ptrdiff_t)axis->size && at >= 0 ? at : -1;
}

void trips_phases_ref(float *to, const float *x, const trips_phase_axis axes[3]) {
    const trips_phase_axis *a = axes, *b = axes + 1, *c = axes + 2;
    for (size_t p = 0; p < a->phases * b->phases * c->phases; p++)
        for (size_t i = 0; i < a->places * b->places * c->places; i++) {
            ptrdiff_t layer = place_of(a, p / c->phases / b->phases, i / c->places / b->places);
            ptrdiff_t row = place_of(b, p / c->phases % b->phases, i / c->places % b->places);
            ptrdiff_t column = place_of(c, p % c->phases, i % c->places);
            bool inside = layer >= 0 && row >= 0 && column >= 0;
            *to++ = inside ? x[(layer * (ptrdiff_t)b->size + row) * (ptrdiff_t)c->size + column] : 0;
        }
}

void trips_depthwise_ref(float *y, const float *x, const trips_phase_axis axes[2], const float *w, size_t kernel, float bias) {
    size_t rows = axes[0].places + 1 - kernel, columns = axes[1].places + 1 - kernel;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            float s = bias;
            for (size_t t = 0; t < kernel * kernel; t++) {
                ptrdiff_t row = place_of(axes, 0, i + t / kernel), column = place_of(axes + 1, 0, j + t % kernel);
                s += w[t] * (row >= 0 && column >= 0 ? x[row * (ptrdiff_t)axes[1].size + column] : 0);
            }
            *y++ = s;
        }
}

static float finished(float x, const trips_finishing *f) {
    float y = activation_of(x, f->activation);
    if (f->activation == TRIPS_ACTIVATION_NONE) {
        y = f->slope * x + f->offset;
        if (y < f->low) y = f->low;
        if (y > f->high) y = f->high;
    }
    return f->gated ? y * x : y;
}

void trips_finish_ref(float *y, size_t ldy, const float *x, size_t ldx, size_t rows, size_t n, const float *residual, size_t ldr,
                      const trips_finishing *f) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < n; j++) {
            float r = residual ? residual[i * ldr + j] : 0, s = x[i * ldx + j];
            y[i * ldy + j] = f->residual_first ? finished(s + r, f) : finished(s, f) + r;
        }
}

// MARK: - Conversions and bytes

static float f16_value(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 0) return (sign ? -1.0f : 1.0f) * (float)fraction * 0x1p-24f;
    uint32_t bits = sign | (exponent == 31 ? 0xff : exponent + 112) << 23 | fraction << 13;
    if (exponent == 31 && fraction) bits |= 0x400000;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

void trips_f16_to_f32_ref(float *y, const uint16_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = f16_value(x[i]);
}

void trips_bf16_to_f32_ref(float *y, const uint16_t *x, size_t n) { v_bf16_to_f32(y, x, n); }

void trips_planes_split_ref(uint8_t *dst, const void *src, size_t n, size_t width, bool rotate) {
    v_planes_split(dst, src, n, width, rotate);
}

void trips_planes_merge_ref(void *dst, const uint8_t *src, size_t n, size_t width, bool rotate) {
    v_planes_merge(dst, src, n, width, rotate);
}

#define SCALAR_ENTRY(name) .name = trips_##name##_ref,
const trips_table trips_table_scalar = {TRIPS_EACH_KERNEL(SCALAR_ENTRY)};
