// Tables of the tails of GELU and similar activations, computed when the library is loaded.
#include "table.h"

tail_table trips_tails[TAIL_COUNT];

static double gelu_erf_tail(double a) { return a * 0.5 * erfc(a * 0.70710678118654752); }
static double gelu_tanh_tail(double a) { return a / (1 + exp(1.59576912160573071 * (a + 0.044715 * a * a * a))); }
static double quick_gelu_tail(double a) { return a / (1 + exp(1.702 * a)); }

/// The coefficients, by rising power, of the polynomial through points (x, y), by Newton's divided differences.
static void interpolate(double *c, const double *x, double *y) {
    for (int k = 1; k <= TAIL_DEGREE; k++)
        for (int i = TAIL_DEGREE; i >= k; i--) y[i] = (y[i] - y[i - 1]) / (x[i] - x[i - k]);
    for (int i = 0; i <= TAIL_DEGREE; i++) c[i] = 0;
    for (int k = TAIL_DEGREE; k >= 0; k--) {
        for (int i = TAIL_DEGREE; i > 0; i--) c[i] = c[i - 1] - x[k] * c[i];
        c[0] = y[k] - x[k] * c[0];
    }
}

static void fill(tail_table *table, double (*tail)(double), double reach) {
    double step = reach / (TAIL_PARTS - 0.5);
    table->inverse_step = (float)(1 / step);
    for (int part = 0; part < TAIL_PARTS; part++) {
        double x[TAIL_DEGREE + 1], y[TAIL_DEGREE + 1], c[TAIL_DEGREE + 1];
        for (int i = 0; i <= TAIL_DEGREE; i++) {
            // Extrema of Chebyshev's polynomial: they include both ends, so that parts join, and 0 maps to 0. The first part begins at
            // its middle.
            double at = 0.5 * cos(3.14159265358979324 * i / TAIL_DEGREE);
            x[i] = part == 0 ? 0.25 + 0.5 * at : at;
            y[i] = part + x[i] < TAIL_PARTS - 0.5 ? tail((part + x[i]) * step) : 0;
        }
        interpolate(c, x, y);
        for (int i = 0; i <= TAIL_DEGREE; i++) table->coefficients[i][part] = (float)c[i];
    }
}

__attribute__((constructor)) static void fill_tails(void) {
    fill(&trips_tails[TAIL_GELU_ERF], gelu_erf_tail, 4.8);
    fill(&trips_tails[TAIL_GELU_TANH], gelu_tanh_tail, 4.8);
    fill(&trips_tails[TAIL_QUICK_GELU], quick_gelu_tail, 7.5);
}
