// Plain C++: the reference of the fast forms, and what runs where there is none. Weights stand row
// by row, two a byte where they are narrow.
#define QUANT4_WIDTH 4

#include "elementwise.h"
#include "layout.h"
#include "training_steps.h"

namespace quant4 {
namespace {

constexpr int64_t kRows = 16;

int64_t row_bytes(int64_t columns, bool wide) { return wide ? columns : (columns + 1) / 2; }

int64_t packed_bytes(int64_t rows, int64_t columns, bool wide) {
    return round_up(rows, kRows) * row_bytes(columns, wide);
}

void pack(const int8_t* codes, int64_t rows, int64_t columns, bool wide, uint8_t* packed) {
    const int64_t bytes = row_bytes(columns, wide);
    std::memset(packed, 0, static_cast<size_t>(packed_bytes(rows, columns, wide)));
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t column = 0; column < columns; ++column) {
            const int code = codes[row * columns + column];
            if (wide) {
                packed[row * bytes + column] = static_cast<uint8_t>(code + kWideOffset);
            } else {
                const int nibble = (code + kNarrowOffset) << (column % 2 * 4);
                packed[row * bytes + column / 2] |= static_cast<uint8_t>(nibble);
            }
        }
    }
}

int64_t scratch_bytes(int64_t, int64_t) { return 0; }

void multiply(const Matrix& matrix, int64_t begin, int64_t end, const int8_t* const* x,
              int64_t frames, int, const Sink& sink, void*) {
    const int64_t bytes = row_bytes(matrix.columns, matrix.wide);
    for (int64_t row = begin * kRows; row < end * kRows; ++row) {
        const uint8_t* weights = matrix.packed + row * bytes;
        for (int64_t f = 0; f < frames; ++f) {
            int32_t sum = 0;
            for (int64_t column = 0; column < matrix.columns; ++column) {
                const int code =
                    matrix.wide ? weights[column] - kWideOffset
                                : (weights[column / 2] >> (column % 2 * 4) & 15) - kNarrowOffset;
                sum += code * x[f][column];
            }
            drain_row(row, sum, f, sink);
        }
    }
}

}  // namespace

const Kernels kGenericKernels{"generic",     kRows,    packed_bytes, pack,
                              scratch_bytes, multiply, cell_update,  quantize_row, &kTrainingKernels};

}  // namespace quant4
