// The float part of INT4 inference: the cell, and quantization of activations.
#pragma once

#include "vector_math.h"

namespace quant4 {
namespace {

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
