// The float part, in GCC's vector extensions: compiled once for every instruction set, with that
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

// NaN, which has no code, becomes 0.
inline Floats codes_of(Floats x, float clip, float scale) {
    const Floats codes = round_even(clamp(x, clip) / scale);
    return codes == codes ? codes : Floats{};
}

inline void store_codes(int8_t* p, Floats codes) {
#if defined(__AVX2__) && QUANT4_WIDTH == 8
    const __m256i numbers = _mm256_cvttps_epi32(codes);
    const __m128i words =
        _mm_packs_epi32(_mm256_castsi256_si128(numbers), _mm256_extracti128_si256(numbers, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(words, words));
#else
    const Bytes bytes =
        __builtin_convertvector(__builtin_convertvector(codes, Ints), Bytes);
    std::memcpy(p, &bytes, sizeof bytes);
#endif
}

// c = sigmoid(f) c + sigmoid(i) tanh(g), h = sigmoid(o) tanh(c), with two divisions in all:
// sigmoid(x) = 1 / (1 + e^-x), tanh(x) = (1 - e^-2x) / (1 + e^-2x), brought to one denominator.
void cell_update(const float* gates, int64_t begin, int64_t end, float* cell, float* hidden,
                 int8_t* codes, float clip, int hidden_max) {
    const float scale = hidden_max > 0 ? clip / static_cast<float>(hidden_max) : 1.0f;
    const auto gate = [gates](int64_t unit, int64_t which) {
        return load(gates + unit / kUnitsPerBlock * kUnitsPerBlock * kGates +
                    which * kUnitsPerBlock + unit % kUnitsPerBlock);
    };
    // Two passes: the chains of dependent operations are half as long, so that the processor
    // works at several of them at once.
    for (int64_t unit = begin; unit < end; unit += QUANT4_WIDTH) {
        const Floats in = exp_of(gate(unit, 0), -kLog2E) + 1.0f;
        const Floats forget = exp_of(gate(unit, 1), -kLog2E) + 1.0f;
        const Floats candidate = exp_of(gate(unit, 2), -2.0f * kLog2E);
        const Floats joint = in * (candidate + 1.0f);
        const Floats c =
            (load(cell + unit) * joint + (1.0f - candidate) * forget) / (joint * forget);
        store(cell + unit, c);
    }
    for (int64_t unit = begin; unit < end; unit += QUANT4_WIDTH) {
        const Floats out = exp_of(gate(unit, 3), -kLog2E) + 1.0f;
        const Floats e = exp_of(load(cell + unit), -2.0f * kLog2E);
        const Floats h = (1.0f - e) / (out * (e + 1.0f));
        store(hidden + unit, h);
        if (hidden_max > 0) store_codes(codes + unit, codes_of(h, clip, scale));
    }
}

bool quantize_row(const float* x, int64_t count, float clip, int max_code, int8_t* codes) {
    const float scale = clip / static_cast<float>(max_code);
    Ints numbers = ~Ints{};
    int64_t i = 0;
    for (; i + QUANT4_WIDTH <= count; i += QUANT4_WIDTH) {
        const Floats v = load(x + i);
        numbers &= v == v;
        store_codes(codes + i, codes_of(v, clip, scale));
    }
    bool all = true;
    for (int lane = 0; lane < QUANT4_WIDTH; ++lane) all = all && numbers[lane];
    if (i < count) {
        float rest[QUANT4_WIDTH] = {};
        int8_t rest_codes[QUANT4_WIDTH];
        std::memcpy(rest, x + i, static_cast<size_t>(count - i) * sizeof(float));
        const Floats v = load(rest);
        const Ints ordered = v == v;
        for (int lane = 0; lane < QUANT4_WIDTH; ++lane) all = all && ordered[lane];
        store_codes(rest_codes, codes_of(v, clip, scale));
        std::memcpy(codes + i, rest_codes, static_cast<size_t>(count - i));
    }
    return all;
}

}  // namespace
}  // namespace quant4
