// What an instruction set provides: one table of functions, the same for all.
//
// Integer part: products of weight codes and activation codes, summed exactly. Float part: one
// multiply-add a row on the way out, the LSTM cell, quantization of activations.
#pragma once

#include <cstdint>

#include "training_kernels.h"

namespace quant4 {

// A weight matrix in the layout of one instruction set.
//
// Narrow weights (2 to 4 bits) stand two a byte as code + 8; wide ones (5 to 8 bits) one a byte.
// Rows and columns are padded: padding columns meet activations of zero.
struct Matrix {
    const uint8_t* packed;
    int64_t rows;     // as given
    int64_t columns;  // as given
    int weight_max;   // largest magnitude of a code
    bool wide;
};

// Where sums go: out[frame][row] (+)= scale[row] * sum, or the sums themselves.
struct Sink {
    float* out;          // (frames, stride), or null
    int32_t* sums;       // (frames, stride), where out is null
    int64_t stride;      // elements between frames
    const float* scale;  // (padded rows)
    const float* bias;   // (padded rows): out = bias + scale * sum; null: out += scale * sum
};

struct Kernels {
    const char* name;
    int64_t row_block;  // rows are padded to a multiple of it, and work is cut at it

    // Bytes of a packed matrix.
    int64_t (*packed_bytes)(int64_t rows, int64_t columns, bool wide);
    // Packs codes (rows, columns) row-major, each in -weight_max..weight_max.
    void (*pack)(const int8_t* codes, int64_t rows, int64_t columns, bool wide, uint8_t* packed);
    // Bytes of scratch memory for `multiply`.
    int64_t (*scratch_bytes)(int64_t columns, int64_t frames);
    // Multiplies row blocks [block_begin, block_end) with activation codes x[frame][columns], each
    // in -activation_max..activation_max. scratch: 64-byte aligned.
    void (*multiply)(const Matrix& matrix, int64_t block_begin, int64_t block_end,
                     const int8_t* const* x, int64_t frames, int activation_max, const Sink& sink,
                     void* scratch);
    // One LSTM step of units [begin, end), multiples of 16. gates: blocks of 16 units, within a
    // block 16 i, 16 f, 16 g, 16 o. Updates cell, writes hidden and, with hidden_max > 0, codes.
    void (*cell)(const float* gates, int64_t begin, int64_t end, float* cell, float* hidden,
                 int8_t* codes, float clip, int hidden_max);
    // codes = round_half_even(clamp(x, -clip, clip) / (clip / max_code)); returns whether all x
    // are numbers.
    bool (*quantize)(const float* x, int64_t count, float clip, int max_code, int8_t* codes);
    const TrainingKernels* training;
};

constexpr int64_t kUnitsPerBlock = 16;
constexpr int64_t kGates = 4;

static inline int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

extern const Kernels kGenericKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvxVnniKernels;
extern const Kernels kAvx512VnniKernels;
#elif defined(__aarch64__)
extern const Kernels kNeonKernels;
#endif

}  // namespace quant4
