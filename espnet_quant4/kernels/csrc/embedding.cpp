// Rows of a packed table as floats. The table stays as it lies in the file: a lookup touches only a
// few rows, so there is nothing to reorder for.
#include "quant4.h"

extern "C" int quant4_embedding_run(const uint8_t* packed, int64_t rows, int64_t columns,
                                    int64_t bits, const float* scale, int64_t groups,
                                    const int64_t* ids, int64_t count, float* out) {
    if (rows < 1 || columns < 0 || bits < 2 || bits > 8 || groups < 1 || rows % groups != 0) {
        return QUANT4_INVALID;
    }
    const int64_t row_bytes = (columns * bits + 7) / 8;
    const int offset = 1 << (bits - 1), mask = (1 << bits) - 1;
    for (int64_t i = 0; i < count; ++i) {
        const int64_t id = ids[i];
        if (id < 0 || id >= rows) return QUANT4_INVALID;
        const uint8_t* row = packed + id * row_bytes;
        const float factor = scale[id / (rows / groups)];
        for (int64_t column = 0; column < columns; ++column) {
            const int64_t bit = column * bits;
            int pair = row[bit / 8];
            if (bit / 8 + 1 < row_bytes) pair |= row[bit / 8 + 1] << 8;
            const int code = (pair >> (bit % 8) & mask) - offset;
            out[i * columns + column] = static_cast<float>(code) * factor;
        }
    }
    return QUANT4_OK;
}
