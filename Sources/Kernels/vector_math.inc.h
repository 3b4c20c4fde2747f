// Elementary functions over vectors. Included once per instruction set, after its simd header.
// Polynomials are weighted minimax fits; errors are stated for exact arithmetic.

#define UNROLLED _Pragma("clang loop unroll(full)")

#define LOG2_E 1.44269504f

/// Below it 2ˣ counts as 0. Results, and their products with ordinary numbers, stay clear of denormal ones, each of
/// which costs a processor some hundred cycles.
#define LEAST_EXPONENT (-100.0f)

/// 2ˣ for x ≤ 0, as 2ⁿ p(f) with |f| ≤ 1/2: relative error 1e-7; exactly 1 where x is 0, and 0 below LEAST_EXPONENT.
INLINE vf vf_exp2_negative(vf x) {
    vf least = vf_set(LEAST_EXPONENT), y = vf_max(least, x);
    vf n = vf_round(y), f = vf_sub(y, n);
    vf p = vf_set(1.32633583e-3f);
    p = vf_fma(p, f, vf_set(9.67258122e-3f));
    p = vf_fma(p, f, vf_set(5.55074662e-2f));
    p = vf_fma(p, f, vf_set(2.40222260e-1f));
    p = vf_fma(p, f, vf_set(6.93146944e-1f));
    return vf_if_less(x, least, vf_zero(), vf_scale(vf_fma(p, f, vf_set(1.0f)), n));
}

/// 255 · 2ˣ for x ≤ 0, for bytes: as 2ⁿ p(f) with 0 ≤ f < 1, relative error 9e-5; exactly 255 where x is 0, and 0
/// below LEAST_EXPONENT.
INLINE vf vf_exp2_byte(vf x) {
    vf least = vf_set(LEAST_EXPONENT), y = vf_max(least, x), f = vf_fraction(y);
    vf p = vf_set(255 * 7.70680314e-2f);
    p = vf_fma(p, f, vf_set(255 * 2.27643533e-1f));
    p = vf_fma(p, f, vf_set(255 * 6.95117286e-1f));
    return vf_if_less(x, least, vf_zero(), vf_scale_floor(vf_fma(p, f, vf_set(255.0f)), y));
}

/// eˣ within 1 ulp or so, for sigmoids: 1 + eˣ is 1 or infinity beyond the clamp, below which eˣ would be denormal.
/// ln 2 is subtracted in two parts. Min and max return their second operand for NaN, so NaN propagates.
INLINE vf vf_exp(vf x) {
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-87.0f), x));
    vf n = vf_round(vf_mul(x, vf_set(LOG2_E)));
    vf r = vf_fnma(n, vf_set(0.693359375f), x);
    r = vf_fnma(n, vf_set(-2.12194440e-4f), r);
    vf p = vf_set(1.38131448e-3f);
    p = vf_fma(p, r, vf_set(8.36941879e-3f));
    p = vf_fma(p, r, vf_set(4.16684560e-2f));
    p = vf_fma(p, r, vf_set(1.66665152e-1f));
    p = vf_fma(p, r, vf_set(4.99999940e-1f));
    p = vf_fma(p, vf_mul(r, r), r);
    return vf_scale(vf_add(p, vf_set(1.0f)), n);
}

INLINE vf vf_exp_or_zero(vf x) { return vf_if_less(x, vf_set(-87.0f), vf_zero(), vf_exp(x)); }

/// Relative error 3e-7: an odd polynomial near 0, where the other form cancels.
INLINE vf vf_tanh(vf x) {
    vf square = vf_mul(x, x), one = vf_set(1.0f);
    vf p = vf_set(-6.04476353e-3f);
    p = vf_fma(p, square, vf_set(2.09609467e-2f));
    p = vf_fma(p, square, vf_set(-5.38431396e-2f));
    p = vf_fma(p, square, vf_set(1.33327173e-1f));
    p = vf_fma(p, square, vf_set(-3.33333284e-1f));
    vf far = vf_sub(one, vf_div(vf_set(2.0f), vf_add(one, vf_exp(vf_add(x, x)))));
    return vf_if_less(vf_abs(x), vf_set(0.625f), vf_fma(vf_mul(p, square), x, x), far);
}

/// Φ(−a) = erfc(a/√2)/2 for a ≥ 0, as 2 to a polynomial, which needs no division: absolute error 3e-8, and
/// a Φ(−a) likewise. The leading coefficient is negative, so large a go to 0, infinity as well.
INLINE vf vf_normal_tail(vf a) {
    vf p = vf_set(-1.67423434e-6f);
    p = vf_fma(p, a, vf_set(2.57921329e-5f));
    p = vf_fma(p, a, vf_set(-1.23218240e-4f));
    p = vf_fma(p, a, vf_set(-2.84902082e-4f));
    p = vf_fma(p, a, vf_set(7.25078443e-3f));
    p = vf_fma(p, a, vf_set(-5.26211150e-2f));
    p = vf_fma(p, a, vf_set(-4.59168971e-1f));
    p = vf_fma(p, a, vf_set(-1.15110946f));
    p = vf_fma(p, a, vf_set(-1.0f));
    return vf_exp2_negative(p);
}

/// Relative error 2e-7: an odd polynomial up to 1, and ±(1 − 2 Φ(−|x| √2)) beyond.
INLINE vf vf_erf(vf x) {
    vf a = vf_abs(x), square = vf_mul(x, x), zero = vf_zero();
    vf p = vf_set(7.85380663e-5f);
    p = vf_fma(p, square, vf_set(-8.01017672e-4f));
    p = vf_fma(p, square, vf_set(5.18832568e-3f));
    p = vf_fma(p, square, vf_set(-2.68538108e-2f));
    p = vf_fma(p, square, vf_set(1.12835851e-1f));
    p = vf_fma(p, square, vf_set(-3.76126258e-1f));
    p = vf_fma(p, square, vf_set(1.12837917f));
    vf far = vf_fnma(vf_set(2.0f), vf_normal_tail(vf_mul(a, vf_set(1.41421356f))), vf_set(1.0f));
    return vf_if_less(a, vf_set(1.0f), vf_mul(p, x), vf_if_less(x, zero, vf_sub(zero, far), far));
}

INLINE vf vf_sigmoid(vf x) {
    vf one = vf_set(1.0f);
    return vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), x))));
}

/// x Φ(x) = max(x, 0) − |x| Φ(−|x|): no cancellation for negative x.
INLINE vf vf_gelu_erf(vf x) {
    vf a = vf_abs(x);
    return vf_fnma(vf_min(vf_set(16.0f), a), vf_normal_tail(a), vf_max(vf_zero(), x));
}

/// x/2 (1 + tanh u) = x sigmoid(2u).
INLINE vf vf_gelu_tanh(vf x) {
    vf u = vf_mul(x, vf_fma(vf_mul(x, x), vf_set(0.0713548163f), vf_set(1.59576912f)));
    return vf_mul(x, vf_sigmoid(u));
}

INLINE vf vf_swish(vf x) { return vf_mul(x, vf_sigmoid(x)); }

INLINE vf vf_quick_gelu(vf x) { return vf_mul(x, vf_sigmoid(vf_mul(x, vf_set(1.702f)))); }

// Approximate activations, for results that are quantized next: error below 1e-5 max(1, |x|), of quick GELU 4e-5 max(1, |x|).
#if VF_LOOKUP
_Static_assert(TAIL_PARTS == VL, "a vector holds one coefficient of each part");

INLINE vf vf_coarse(vf x, const tail_table *table) {
    // At half a step beyond the last part's middle, rounding would give an index that is too large.
    vf a = vf_min(vf_set(TAIL_PARTS - 0.501f), vf_mul(vf_abs(x), vf_set(table->inverse_step)));
    // Adding 2²³ rounds to an integer, the part's index, which is then in the lowest bits.
    vf part = vf_add(a, vf_set(0x1p23f)), f = vf_sub(a, vf_sub(part, vf_set(0x1p23f)));
    vf p = vf_lookup(table->coefficients[TAIL_DEGREE], part);
    UNROLLED for (int i = TAIL_DEGREE - 1; i >= 0; i--) p = vf_fma(p, f, vf_lookup(table->coefficients[i], part));
    return vf_sub(vf_max(vf_zero(), x), p);
}

INLINE vf vf_coarse_gelu_erf(vf x) { return vf_coarse(x, &trips_tails[TAIL_GELU_ERF]); }
INLINE vf vf_coarse_gelu_tanh(vf x) { return vf_coarse(x, &trips_tails[TAIL_GELU_TANH]); }
INLINE vf vf_coarse_quick_gelu(vf x) { return vf_coarse(x, &trips_tails[TAIL_QUICK_GELU]); }
#else
INLINE vf vf_coarse_gelu_erf(vf x) { return vf_gelu_erf(x); }
INLINE vf vf_coarse_gelu_tanh(vf x) { return vf_gelu_tanh(x); }
INLINE vf vf_coarse_quick_gelu(vf x) { return vf_quick_gelu(x); }
#endif

INLINE vf vf_relu(vf x) { return vf_max(vf_zero(), x); }
