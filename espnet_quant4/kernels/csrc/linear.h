// A packed weight matrix with what turns its sums into floats.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace quant4 {

// Throws std::out_of_range for an index that dispatch.cpp does not know.
const Kernels& kernels_of(int64_t instruction_set);

class PackedLinear {
  public:
    PackedLinear() = default;
    // codes: (rows, columns); scale, bias: (rows); bias may be null. The weights lie in `memory`,
    // which has to outlive this.
    PackedLinear(WeightMemory& memory, const Kernels& kernels, const int8_t* codes, int64_t rows, int64_t columns,
                 int weight_max, const float* scale, const float* bias, int64_t threads = 1);

    int64_t padded_rows() const { return round_up(matrix_.rows, kernels_->row_block); }
    int64_t blocks() const { return padded_rows() / kernels_->row_block; }
    const Matrix& matrix() const { return matrix_; }
    const Kernels& kernels() const { return *kernels_; }
    // Both (padded_rows); the bias is zero where there is none.
    const float* scale() const { return scale_.data(); }
    const float* bias() const { return bias_.data(); }

  private:
    const Kernels* kernels_ = nullptr;
    Matrix matrix_{};
    std::vector<float> scale_, bias_;
};

}  // namespace quant4
