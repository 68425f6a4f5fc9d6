// Vectors of floats in GCC's vector extensions: compiled once for every instruction set, with that
// set's registers. Width in floats: QUANT4_WIDTH.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels.h"

#ifndef QUANT4_WIDTH
#define QUANT4_WIDTH 4
#endif

namespace quant4 {
namespace {

typedef float Floats __attribute__((vector_size(QUANT4_WIDTH * 4)));
typedef int32_t Ints __attribute__((vector_size(QUANT4_WIDTH * 4)));
typedef int8_t Bytes __attribute__((vector_size(QUANT4_WIDTH)));

inline Floats load(const float* p) {
    Floats v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

inline Floats splat(float x) { return x - Floats{}; }

// A NaN in x stays.
inline Floats clamp(Floats x, float limit) {
#if defined(__AVX512F__) && QUANT4_WIDTH == 16
    return _mm512_max_ps(_mm512_set1_ps(-limit), _mm512_min_ps(_mm512_set1_ps(limit), x));
#elif defined(__AVX__) && QUANT4_WIDTH == 8
    return _mm256_max_ps(_mm256_set1_ps(-limit), _mm256_min_ps(_mm256_set1_ps(limit), x));
#else
    const Floats high = splat(limit), low = splat(-limit);
    x = high < x ? high : x;
    return low > x ? low : x;
#endif
}

// Rounds to the nearest integer, ties to even, for |x| < 2^22, in the default rounding mode.
inline Floats round_even(Floats x) {
    const Floats magic = splat(12582912.0f);  // 1.5 * 2^23
    return (x + magic) - magic;
}

// Beyond this, sigmoid(x) and tanh(x / 2) are 0 or 1 to float32's precision of a sum with 1.
constexpr float kFlat = 20.0f;
constexpr float kLog2E = 1.44269504088896341f;

// exp(factor * x / log2(e)) to about 1e-7 of its value, its argument limited to +-kFlat. 2^t is
// 2^n 2^r with n = round(t) and |r| <= 1/2; the polynomial is minimax in relative error with
// 2^0 = 1. The low bits of t + 1.5 * 2^23 are n, ready to be shifted into the exponent.
inline Floats exp_of(Floats x, float factor) {
    const Floats magic = splat(12582912.0f);
    const Floats t = clamp(x * factor, kFlat * kLog2E);
    const Floats shifted = t + magic;
    const Floats r = t - (shifted - magic);
    Floats p = splat(1.326472712e-3f);
    p = p * r + 9.671512645e-3f;
    p = p * r + 5.550733743e-2f;
    p = p * r + 2.402224209e-1f;
    p = p * r + 6.931469776e-1f;
    p = p * r + 1.0f;
    return reinterpret_cast<Floats>(reinterpret_cast<Ints>(p) +
                                    (reinterpret_cast<Ints>(shifted) << 23));
}

}  // namespace
}  // namespace quant4
