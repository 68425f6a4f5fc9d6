// How weights lie in memory. Codes are stored with an offset (offset binary), since the multiply
// instructions take one unsigned operand.
//
// "Pairs" (AVX2): blocks of 32 rows. A step is 64 bytes: two vectors of 16 rows, a 16-bit lane a
// row. Narrow: a step has 4 columns; the low nibbles of a lane's two bytes are columns 0 and 1,
// the high ones columns 2 and 3. Wide: a step has 2 columns, signed bytes without an offset.
//
// "Quads" (VNNI, NEON): blocks of 16 rows. A step is 64 bytes, a 32-bit lane a row. Narrow: a step
// has 8 columns; low nibbles are columns 0 to 3, high ones 4 to 7. Wide: 4 columns.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels.h"

namespace quant4 {
namespace {

constexpr int kNarrowOffset = 8;
constexpr int kWideOffset = 128;
constexpr int64_t kStepBytes = 64;

struct Layout {
    int64_t rows_per_block;
    int64_t lane_bytes;  // bytes a row has in a step
    bool wide_is_signed;

    int64_t columns_per_step(bool wide) const { return wide ? lane_bytes : 2 * lane_bytes; }
    int64_t steps(int64_t columns, bool wide) const {
        return (columns + columns_per_step(wide) - 1) / columns_per_step(wide);
    }
    int64_t bytes(int64_t rows, int64_t columns, bool wide) const {
        return round_up(rows, rows_per_block) / rows_per_block * steps(columns, wide) * kStepBytes;
    }
    void pack(const int8_t* codes, int64_t rows, int64_t columns, bool wide,
              uint8_t* packed) const {
        const int64_t step_count = steps(columns, wide), per_step = columns_per_step(wide);
        const int64_t blocks = round_up(rows, rows_per_block) / rows_per_block;
        for (int64_t block = 0; block < blocks; ++block) {
            for (int64_t step = 0; step < step_count; ++step) {
                uint8_t* out = packed + (block * step_count + step) * kStepBytes;
                for (int64_t row = 0; row < rows_per_block; ++row) {
                    const int64_t from = block * rows_per_block + row;
                    uint8_t* lane = out + row * lane_bytes;
                    for (int64_t byte = 0; byte < lane_bytes; ++byte) {
                        const auto code = [&](int64_t column) {
                            column += step * per_step;
                            return from < rows && column < columns
                                       ? static_cast<int>(codes[from * columns + column])
                                       : 0;
                        };
                        if (!wide) {
                            lane[byte] = static_cast<uint8_t>(
                                (code(byte) + kNarrowOffset) |
                                (code(byte + lane_bytes) + kNarrowOffset) << 4);
                        } else if (wide_is_signed) {
                            lane[byte] = static_cast<uint8_t>(code(byte));
                        } else {
                            lane[byte] = static_cast<uint8_t>(code(byte) + kWideOffset);
                        }
                    }
                }
            }
        }
    }
};

constexpr Layout kPairs{32, 2, true};
constexpr Layout kQuads{16, 4, false};

// Columns whose sum of products surely fits 16 bits.
inline int64_t columns_in_16_bits(int weight_max, int activation_max) {
    return 32767 / std::max(1, weight_max * activation_max);
}

inline void drain_row(int64_t row, int32_t sum, int64_t frame, const Sink& sink) {
    const int64_t at = frame * sink.stride + row;
    if (sink.out == nullptr) {
        sink.sums[at] = sum;
    } else {
        const float before = sink.bias != nullptr ? sink.bias[row] : sink.out[at];
        sink.out[at] = before + sink.scale[row] * static_cast<float>(sum);
    }
}

}  // namespace
}  // namespace quant4
