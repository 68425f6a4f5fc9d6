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
    // A narrow step that has all its rows and columns.
    void pack_whole(const int8_t* codes, int64_t columns, uint8_t* out) const {
        for (int64_t row = 0; row < rows_per_block; ++row, codes += columns) {
            uint64_t bytes = 0;
            std::memcpy(&bytes, codes, static_cast<size_t>(2 * lane_bytes));
            // Of a code in -8..7, code + 8 is its low nibble with the upper bit turned.
            bytes = (bytes & 0x0F0F0F0F0F0F0F0Fu) ^ 0x0808080808080808u;
            const uint64_t packed = bytes | bytes >> (8 * lane_bytes) << 4;
            std::memcpy(out + row * lane_bytes, &packed, static_cast<size_t>(lane_bytes));
        }
    }
    void pack(const int8_t* codes, int64_t rows, int64_t columns, bool wide,
              uint8_t* packed) const {
        const int64_t step_count = steps(columns, wide), per_step = columns_per_step(wide);
        const int64_t blocks = round_up(rows, rows_per_block) / rows_per_block;
        for (int64_t block = 0; block < blocks; ++block) {
            for (int64_t step = 0; step < step_count; ++step) {
                uint8_t* out = packed + (block * step_count + step) * kStepBytes;
                const bool is_whole =
                    (block + 1) * rows_per_block <= rows && (step + 1) * per_step <= columns;
                if (is_whole && !wide) {
                    pack_whole(codes + block * rows_per_block * columns + step * per_step, columns, out);
                    continue;
                }
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

// Vector types by their bytes.
template <size_t Bytes>
struct Lanes;
#define QUANT4_LANES(BYTES) \
    template <> \
    struct Lanes<BYTES> { \
        typedef int32_t Sums __attribute__((vector_size(BYTES))); \
        typedef float Result __attribute__((vector_size(BYTES))); \
    };
QUANT4_LANES(16)
QUANT4_LANES(32)
QUANT4_LANES(64)
#undef QUANT4_LANES

// Rows row..row+15 of a frame, of 32-bit sums in vectors of T.
template <class T>
inline void drain_rows(int64_t row, const T* vectors, int64_t frame, const Sink& sink) {
    constexpr int64_t lanes = sizeof(T) / sizeof(int32_t);
    typedef typename Lanes<sizeof(T)>::Sums Sums;
    typedef typename Lanes<sizeof(T)>::Result Result;
    const int64_t at = frame * sink.stride + row;
    for (int64_t v = 0; v < 16 / lanes; ++v) {
        const int64_t lane = v * lanes;
        Sums sums;
        std::memcpy(&sums, vectors + v, sizeof sums);
        if (sink.out == nullptr) {
            std::memcpy(sink.sums + at + lane, &sums, sizeof sums);
            continue;
        }
        Result before, scale;
        std::memcpy(&before, sink.bias != nullptr ? sink.bias + row + lane : sink.out + at + lane,
                    sizeof before);
        std::memcpy(&scale, sink.scale + row + lane, sizeof scale);
        before += scale * __builtin_convertvector(sums, Result);
        std::memcpy(sink.out + at + lane, &before, sizeof before);
    }
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
