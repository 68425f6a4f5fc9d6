// What an instruction set provides for training: one step of an LSTM in float32.
#pragma once

#include <cstdint>

namespace quant4 {

// Which gradient passes through the quantizer of the hidden state, and what its clip learns; the
// definitions stand in espnet_quant4/quantizers/rounding.py.
enum class GradientRule : int64_t {
    kNone = 0,     // not quantized
    kClipped = 1,  // passes inside the clip
    kFull = 2,     // passes everywhere
    kLearned = 3,  // passes inside; the clip learns from what is outside
    kLearnedWithResidual = 4,  // and from the rounding residual inside
};

// One sequence at one step of the backward pass. Rows of one direction, hidden_size wide but `gates`
// and `gate_gradients`, which are 4 hidden_size wide.
struct BackwardRow {
    const float* gates;  // activated
    const float* cell;
    const float* previous_cell;
    const float* recurrent;     // gradient of the quantized hidden state from the next step
    const float* output;        // gradient of what the layer puts out, or null
    const float* final_hidden;  // gradient of the final hidden state, or null
    float* cell_gradient;       // of this step's cell, and then of the step's before
    float* gate_gradients;
    bool output_is_quantized;  // whether the layer puts out quantized hidden states
};

struct RoundedRow {
    bool numbers;  // no x is NaN
    bool inside;   // every magnitude is up to the clip
};

struct TrainingKernels {
    int64_t panel;  // columns are padded to a multiple of it
    // Packs weight(k, n) = weight[k * k_stride + n * n_stride] for `multiply`.
    void (*pack)(const float* weight, int64_t k_stride, int64_t n_stride, int64_t depth,
                 int64_t columns, float* packed);
    // c[row] = a[row] * weight, or with `add` c[row] += a[row] * weight.
    void (*multiply)(const float* const* a, int64_t rows, int64_t depth, const float* packed,
                     int64_t columns, float* const* c, bool add);
    // Adds `recurrent`, which may be null, to `gates`, activates them in place, and writes the new cell
    // and hidden states of one sequence; `hidden` and `quantized` may be null.
    void (*forward_cell)(float* gates, const float* recurrent, int64_t size, const float* previous_cell, float* cell,
                         float* hidden, float* quantized, float clip, int max_code);
    // Returns the gradient of the clip.
    double (*backward_cell)(const BackwardRow& row, int64_t size, float clip, int max_code,
                            GradientRule rule);
    void (*add_row)(const float* from, int64_t count, float* to);
    // Writes x on the grid and, unless null, its codes.
    RoundedRow (*round_row)(const float* x, int64_t count, float clip, float scale, float* rounded, int8_t* codes);
    // Writes the straight-through gradient of x; returns that of the clip.
    double (*straight_through)(const float* x, const float* gradient, int64_t count, float clip, float scale,
                               GradientRule rule, float* gradient_x);
    // Adds to the sums of magnitudes and of squares, and raises the largest magnitude.
    void (*add_moments)(const float* x, int64_t count, double* moments);
};

}  // namespace quant4
