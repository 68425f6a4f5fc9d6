// One step of an LSTM in training, forward and backward, in float32, which `lstm_training.cpp` runs over
// time, and fake quantization (`fake_quantize.cpp`). Compiled once for every instruction set, like vector_math.h.
#pragma once

#include <algorithm>

#include "elementwise.h"
#include "training_kernels.h"

namespace quant4 {
namespace {

constexpr int64_t kPanel = 2 * QUANT4_WIDTH;  // columns of a packed weight that lie side by side
// Rows that share one load of weights: as many as leave registers for the weights themselves.
constexpr int kRowTile = QUANT4_WIDTH == 16 ? 12 : 6;

// ---- products ------------------------------------------------------------------------------

// weight(k, n) = weight[k * k_stride + n * n_stride], in panels of kPanel columns, zeros behind the last.
void pack_panels(const float* weight, int64_t k_stride, int64_t n_stride, int64_t depth,
                 int64_t columns, float* packed) {
    for (int64_t n = 0; n < columns; n += kPanel) {
        const int64_t count = std::min(kPanel, columns - n);
        // Blocks along the depth: a strided read uses each cache line whole before it is gone.
        constexpr int64_t block = 16;
        for (int64_t first = 0; first < depth; first += block) {
            const int64_t last = std::min(depth, first + block);
            for (int64_t i = 0; i < count; ++i) {
                const float* from = weight + (n + i) * n_stride;
                for (int64_t k = first; k < last; ++k) packed[k * kPanel + i] = from[k * k_stride];
            }
        }
        for (int64_t k = 0; k < depth; ++k) {
            for (int64_t i = count; i < kPanel; ++i) packed[k * kPanel + i] = 0.0f;
        }
        packed += depth * kPanel;
    }
}

template <int Rows>
inline void multiply_tile(const float* const* a, int64_t depth, const float* panel, float* const* c,
                          int64_t column, int64_t count, bool add) {
    Floats sums[Rows][2];
    for (int row = 0; row < Rows; ++row) {
        sums[row][0] = sums[row][1] = Floats{};
    }
    const float* mine[Rows];
    for (int row = 0; row < Rows; ++row) mine[row] = a[row];
    for (int64_t k = 0; k < depth; ++k, panel += kPanel) {
        const Floats first = load(panel), second = load(panel + QUANT4_WIDTH);
#pragma GCC unroll 16
        for (int row = 0; row < Rows; ++row) {
            const Floats x = splat(mine[row][k]);
            sums[row][0] += x * first;
            sums[row][1] += x * second;
        }
    }
    for (int row = 0; row < Rows; ++row) {
        float* out = c[row] + column;
        if (count == kPanel) {
            for (int half = 0; half < 2; ++half) {
                float* at = out + half * QUANT4_WIDTH;
                store(at, add ? load(at) + sums[row][half] : sums[row][half]);
            }
        } else {
            float both[kPanel];
            store(both, sums[row][0]);
            store(both + QUANT4_WIDTH, sums[row][1]);
            for (int64_t i = 0; i < count; ++i) out[i] = add ? out[i] + both[i] : both[i];
        }
    }
}

// c[row] (+)= a[row] * weight, for a packed weight (depth, columns).
void multiply_rows(const float* const* a, int64_t rows, int64_t depth, const float* packed,
                   int64_t columns, float* const* c, bool add) {
    const int64_t tiles = (rows + kRowTile - 1) / kRowTile;
    for (int64_t n = 0; n < columns; n += kPanel, packed += depth * kPanel) {
        const int64_t count = std::min(kPanel, columns - n);
        for (int64_t tile = 0; tile < tiles; ++tile) {
            // Tiles of nearly equal size: a tile of few rows waits for its loads of weights.
            const int64_t begin = rows * tile / tiles, end = rows * (tile + 1) / tiles;
            const float* const* from = a + begin;
            float* const* to = c + begin;
#define QUANT4_TILE(R) \
    case R: multiply_tile<R>(from, depth, packed, to, n, count, add); break;
            switch (end - begin) {
                QUANT4_TILE(1)
                QUANT4_TILE(2)
                QUANT4_TILE(3)
                QUANT4_TILE(4)
                QUANT4_TILE(5)
                QUANT4_TILE(6)
#if QUANT4_WIDTH == 16
                QUANT4_TILE(7)
                QUANT4_TILE(8)
                QUANT4_TILE(9)
                QUANT4_TILE(10)
                QUANT4_TILE(11)
                QUANT4_TILE(12)
#endif
            }
#undef QUANT4_TILE
        }
    }
}

// ---- the cell ------------------------------------------------------------------------------

inline Floats load_some(const float* p, int64_t count) {
    if (count >= QUANT4_WIDTH) return load(p);
    float values[QUANT4_WIDTH] = {};
    std::memcpy(values, p, static_cast<size_t>(count) * sizeof(float));
    return load(values);
}

inline void store_some(float* p, Floats v, int64_t count) {
    if (count >= QUANT4_WIDTH) return store(p, v);
    float values[QUANT4_WIDTH];
    store(values, v);
    std::memcpy(p, values, static_cast<size_t>(count) * sizeof(float));
}

// exp_of works on the bits of its argument, where a NaN may get lost.
inline Floats keep_nan(Floats result, Floats x) { return x == x ? result : x; }

inline Floats sigmoid(Floats x) { return keep_nan(1.0f / (1.0f + exp_of(x, -kLog2E)), x); }

inline Floats tanh_of(Floats x) {
    const Floats e = exp_of(x, -2.0f * kLog2E);
    const Floats large = (1.0f - e) / (1.0f + e);
    // Near zero 1 - e cancels; there the first terms of the series are exact to float32.
    const Floats square = x * x;
    const Floats small = x + x * square * (-1.0f / 3.0f + square * (2.0f / 15.0f - square * (17.0f / 315.0f)));
    return keep_nan(square < splat(0.0064f) ? small : large, x);
}

inline Floats quantize_to_grid(Floats x, float clip, float scale) {
    return round_even(clamp(x, clip) / scale) * scale;
}

void forward_cell(float* gates, const float* recurrent, int64_t size, const float* previous_cell, float* cell,
                  float* hidden, float* quantized, float clip, int max_code) {
    const float scale = max_code > 0 ? clip / static_cast<float>(max_code) : 1.0f;
    for (int64_t unit = 0; unit < size; unit += QUANT4_WIDTH) {
        const int64_t count = size - unit;
        float* at = gates + unit;
        const auto sum = [&](int64_t gate) {
            const Floats input = load_some(at + gate * size, count);
            return recurrent == nullptr ? input
                                        : input + load_some(recurrent + gate * size + unit, count);
        };
        const Floats in = sigmoid(sum(0)), forget = sigmoid(sum(1));
        const Floats candidate = tanh_of(sum(2)), out = sigmoid(sum(3));
        const Floats c = forget * load_some(previous_cell + unit, count) + in * candidate;
        const Floats h = out * tanh_of(c);
        store_some(at, in, count);
        store_some(at + size, forget, count);
        store_some(at + 2 * size, candidate, count);
        store_some(at + 3 * size, out, count);
        store_some(cell + unit, c, count);
        if (hidden != nullptr) store_some(hidden + unit, h, count);
        if (quantized != nullptr) store_some(quantized + unit, quantize_to_grid(h, clip, scale), count);
    }
}

inline Floats magnitude(Floats x) { return x < Floats{} ? -x : x; }

double backward_cell(const BackwardRow& row, int64_t size, float clip, int max_code,
                     GradientRule rule) {
    const float scale = max_code > 0 ? clip / static_cast<float>(max_code) : 1.0f;
    const Floats none{};
    Floats clip_gradient{};
    for (int64_t unit = 0; unit < size; unit += QUANT4_WIDTH) {
        const int64_t count = size - unit;
        const float* at = row.gates + unit;
        const Floats in = load_some(at, count), forget = load_some(at + size, count);
        const Floats candidate = load_some(at + 2 * size, count);
        const Floats out = load_some(at + 3 * size, count);
        const Floats squashed = tanh_of(load_some(row.cell + unit, count));
        const Floats recurrent = load_some(row.recurrent + unit, count);
        const Floats output = row.output == nullptr ? none : load_some(row.output + unit, count);
        Floats gradient = row.output_is_quantized ? recurrent + output : recurrent;
        if (rule != GradientRule::kNone && rule != GradientRule::kFull) {
            const Floats h = out * squashed;
            const Floats size_of_h = magnitude(h);
            if (rule == GradientRule::kClipped) {
                // A NaN stays: it fails every comparison.
                gradient = size_of_h > splat(clip) ? none : gradient;
            } else {
                const auto outside = size_of_h >= splat(clip);
                const Floats sign = h > none ? splat(1.0f) : h < none ? splat(-1.0f) : none;
                Floats inside_share = none;
                if (rule == GradientRule::kLearnedWithResidual) {
                    inside_share = (quantize_to_grid(h, clip, scale) - h) / clip;
                }
                clip_gradient += gradient * (outside ? sign : inside_share);
                gradient = outside ? none : gradient;
            }
        }
        if (!row.output_is_quantized) gradient += output;
        if (row.final_hidden != nullptr) gradient += load_some(row.final_hidden + unit, count);
        Floats cell = load_some(row.cell_gradient + unit, count);
        cell += gradient * out * (1.0f - squashed * squashed);
        const Floats before = load_some(row.previous_cell + unit, count);
        float* to = row.gate_gradients + unit;
        store_some(to, cell * candidate * in * (1.0f - in), count);
        store_some(to + size, cell * before * forget * (1.0f - forget), count);
        store_some(to + 2 * size, cell * in * (1.0f - candidate * candidate), count);
        store_some(to + 3 * size, gradient * squashed * out * (1.0f - out), count);
        store_some(row.cell_gradient + unit, cell * forget, count);
    }
    double sum = 0;
    for (int lane = 0; lane < QUANT4_WIDTH; ++lane) sum += static_cast<double>(clip_gradient[lane]);
    return sum;
}

void add_row(const float* from, int64_t count, float* to) {
    for (int64_t i = 0; i < count; i += QUANT4_WIDTH) {
        const int64_t left = count - i;
        store_some(to + i, load_some(to + i, left) + load_some(from + i, left), left);
    }
}

// ---- quantization of tensors ---------------------------------------------------------------

RoundedRow round_row(const float* x, int64_t count, float clip, float scale, float* rounded, int8_t* codes) {
    Ints numbers = ~Ints{}, inside = ~Ints{};
    for (int64_t i = 0; i < count; i += QUANT4_WIDTH) {
        const int64_t left = count - i;
        const Floats v = load_some(x + i, left);
        inside &= magnitude(v) <= splat(clip);
        const Floats code = round_even(clamp(v, clip) / scale);
        numbers &= v == v;
        store_some(rounded + i, code * scale, left);
        if (codes == nullptr) continue;
        const Floats number = code == code ? code : Floats{};
        if (left >= QUANT4_WIDTH) {
            store_codes(codes + i, number);
        } else {
            int8_t some[QUANT4_WIDTH];
            store_codes(some, number);
            std::memcpy(codes + i, some, static_cast<size_t>(left));
        }
    }
    RoundedRow row{true, true};
    for (int lane = 0; lane < QUANT4_WIDTH; ++lane) {
        row.numbers = row.numbers && numbers[lane];
        row.inside = row.inside && inside[lane];
    }
    return row;
}

double straight_through(const float* x, const float* gradient, int64_t count, float clip, float scale,
                        GradientRule rule, float* gradient_x) {
    const Floats none{}, one = splat(1.0f);
    const bool residual = rule == GradientRule::kLearnedWithResidual;
    Floats sums{};
    double total = 0;
    constexpr int64_t block = 64 * QUANT4_WIDTH;  // sums of floats stay short
    for (int64_t first = 0; first < count; first += block) {
        const int64_t last = std::min(count, first + block);
        for (int64_t i = first; i < last; i += QUANT4_WIDTH) {
            const int64_t left = last - i;
            const Floats v = load_some(x + i, left), g = load_some(gradient + i, left);
            const Floats size = magnitude(v);
            if (rule == GradientRule::kClipped) {
                store_some(gradient_x + i, g * (size <= splat(clip) ? one : none), left);
                continue;
            }
            if (rule == GradientRule::kFull) {
                store_some(gradient_x + i, g, left);
                continue;
            }
            const auto outside = size >= splat(clip);
            const Floats sign = v > none ? one : v < none ? -one : none;
            const Floats inside = residual ? (quantize_to_grid(v, clip, scale) - v) / clip : none;
            sums += g * (outside ? sign : inside);
            store_some(gradient_x + i, outside ? none : g, left);
        }
        for (int lane = 0; lane < QUANT4_WIDTH; ++lane) total += static_cast<double>(sums[lane]);
        sums = none;
    }
    return total;
}

void add_moments(const float* x, int64_t count, double* moments) {
    constexpr int64_t block = 64 * QUANT4_WIDTH;
    Floats largest{};
    for (int64_t first = 0; first < count; first += block) {
        const int64_t last = std::min(count, first + block);
        Floats sizes{}, squares{};
        for (int64_t i = first; i < last; i += QUANT4_WIDTH) {
            const Floats v = load_some(x + i, last - i), size = magnitude(v);
            sizes += size;
            squares += v * v;
            largest = size > largest ? size : largest;
        }
        for (int lane = 0; lane < QUANT4_WIDTH; ++lane) {
            moments[0] += static_cast<double>(sizes[lane]);
            moments[1] += static_cast<double>(squares[lane]);
        }
    }
    for (int lane = 0; lane < QUANT4_WIDTH; ++lane) {
        moments[2] = std::max(moments[2], static_cast<double>(largest[lane]));
    }
}

constexpr TrainingKernels kTrainingKernels{kPanel,        pack_panels, multiply_rows,    forward_cell,
                                           backward_cell, add_row,     round_row,        straight_through,
                                           add_moments};

}  // namespace
}  // namespace quant4
