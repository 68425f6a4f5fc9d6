#include "linear.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>

#include "quant4.h"
#include "threads.h"

namespace quant4 {
namespace {

// Below this much work a second thread is not worth waking.
constexpr int64_t kCodesForThreads = 100'000;
constexpr int64_t kMacsForThreads = 4'000'000;

}  // namespace

PackedLinear::PackedLinear(WeightMemory& memory, const Kernels& kernels, const int8_t* codes,
                           int64_t rows, int64_t columns, int weight_max, const float* scale, const float* bias,
                           int64_t threads)
    : kernels_(&kernels) {
    const bool wide = weight_max > 7;
    uint8_t* packed = memory.take(kernels.packed_bytes(rows, columns, wide));
    const int64_t block_bytes = kernels.packed_bytes(kernels.row_block, columns, wide);
    const int64_t count = round_up(rows, kernels.row_block) / kernels.row_block;
    if (rows * columns < kCodesForThreads) threads = 1;
    run_parallel(static_cast<int>(std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, count))),
                 [&](int index, int workers) {
        const int64_t begin = count * index / workers, end = count * (index + 1) / workers;
        if (begin == end) return;
        const int64_t first = begin * kernels.row_block;
        kernels.pack(codes + first * columns, std::min(rows, end * kernels.row_block) - first, columns, wide,
                     packed + begin * block_bytes);
    });
    matrix_ = Matrix{packed, rows, columns, weight_max, wide};
    scale_.assign(static_cast<size_t>(padded_rows()), 0.0f);
    bias_.assign(static_cast<size_t>(padded_rows()), 0.0f);
    std::copy(scale, scale + rows, scale_.begin());
    if (bias != nullptr) std::copy(bias, bias + rows, bias_.begin());
}

namespace {

struct Linear {
    WeightMemory memory;
    PackedLinear layer;
};

constexpr int64_t kFramesAtOnce = 64;
// Multiplies all frames; exactly one of out and sums is not null, both (frames, rows).
void multiply_all(const PackedLinear& linear, const int8_t* codes, int64_t frames, int input_max,
                  float* out, int32_t* sums, int64_t threads) {
    const Kernels& kernels = linear.kernels();
    const int64_t rows = linear.matrix().rows, columns = linear.matrix().columns;
    const int64_t block_rows = kernels.row_block, blocks = linear.blocks();
    const int64_t whole = rows / block_rows;
    if (frames * rows * columns < kMacsForThreads) threads = 1;
    threads = std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, blocks));
    const int64_t at_once = std::min(frames, kFramesAtOnce);
    const int64_t scratch_bytes = round_up(kernels.scratch_bytes(columns, at_once), kAlignment);
    const int64_t tail_bytes = round_up(at_once * block_rows * 4, kAlignment);
    const Scratch scratch(threads * (scratch_bytes + tail_bytes));
    run_parallel(static_cast<int>(threads), [&](int index, int count) {
        char* mine = scratch.data() + index * (scratch_bytes + tail_bytes);
        void* tail = mine + scratch_bytes;
        const int64_t begin = blocks * index / count, end = blocks * (index + 1) / count;
        const int8_t* x[kFramesAtOnce];
        for (int64_t first = 0; first < frames; first += kFramesAtOnce) {
            const int64_t here = std::min(kFramesAtOnce, frames - first);
            for (int64_t f = 0; f < here; ++f) x[f] = codes + (first + f) * columns;
            if (begin < std::min(end, whole)) {
                const Sink sink{out == nullptr ? nullptr : out + first * rows,
                                sums == nullptr ? nullptr : sums + first * rows, rows,
                                linear.scale(), linear.bias()};
                kernels.multiply(linear.matrix(), begin, std::min(end, whole), x, here, input_max,
                                 sink, mine);
            }
            if (end > whole && rows > whole * block_rows) {
                // The last block has rows that the caller has no room for.
                const int64_t from = whole * block_rows;
                float* tail_out = static_cast<float*>(tail) - from;
                int32_t* tail_sums = static_cast<int32_t*>(tail) - from;
                const Sink sink{out == nullptr ? nullptr : tail_out, tail_sums, block_rows,
                                linear.scale(), linear.bias()};
                kernels.multiply(linear.matrix(), whole, whole + 1, x, here, input_max, sink, mine);
                for (int64_t f = 0; f < here; ++f) {
                    const char* source = static_cast<const char*>(tail) + f * block_rows * 4;
                    const int64_t to = (first + f) * rows + from;
                    char* target = out == nullptr ? reinterpret_cast<char*>(sums + to)
                                                  : reinterpret_cast<char*>(out + to);
                    std::memcpy(target, source, static_cast<size_t>(rows - from) * 4);
                }
            }
        }
    });
}

bool is_valid(const void* linear, int64_t frames, int64_t input_max) {
    return linear != nullptr && frames >= 0 && input_max >= 1 && input_max <= 127;
}

}  // namespace
}  // namespace quant4

using namespace quant4;

extern "C" void* quant4_linear_create(int64_t instruction_set, const int8_t* codes, int64_t rows,
                                      int64_t columns, int64_t weight_max, const float* scale,
                                      const float* bias) try {
    if (rows < 0 || columns < 0 || weight_max < 1 || weight_max > 127) return nullptr;
    auto linear = std::make_unique<Linear>();
    linear->layer = PackedLinear(linear->memory, kernels_of(instruction_set), codes, rows, columns,
                                 static_cast<int>(weight_max), scale, bias);
    return linear.release();
} catch (...) {
    return nullptr;
}

extern "C" void quant4_linear_destroy(void* linear) { delete static_cast<Linear*>(linear); }

namespace {

int run(const PackedLinear& layer, const float* x, int64_t frames, float clip, int64_t input_max,
        float* out, int64_t threads) {
    const int64_t count = frames * layer.matrix().columns;
    const Buffer<int8_t> codes = allocate<int8_t>(count);
    const int max_code = static_cast<int>(input_max);
    if (!layer.kernels().quantize(x, count, clip, max_code, codes.get())) {
        return QUANT4_NOT_A_NUMBER;
    }
    multiply_all(layer, codes.get(), frames, max_code, out, nullptr, threads);
    return QUANT4_OK;
}

}  // namespace

extern "C" int quant4_linear_run(const void* linear, const float* x, int64_t frames, float clip,
                                 int64_t input_max, float* out, int64_t threads) try {
    if (!is_valid(linear, frames, input_max) || !(clip > 0)) return QUANT4_INVALID;
    return run(static_cast<const Linear*>(linear)->layer, x, frames, clip, input_max, out, threads);
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_linear_once(int64_t instruction_set, const int8_t* codes, int64_t rows,
                                  int64_t columns, int64_t weight_max, const float* scale,
                                  const float* bias, const float* x, int64_t frames, float clip,
                                  int64_t input_max, float* out, int64_t threads) try {
    if (rows < 0 || columns < 0 || weight_max < 1 || weight_max > 127) return QUANT4_INVALID;
    if (!is_valid(codes, frames, input_max) || !(clip > 0)) return QUANT4_INVALID;
    WeightMemory memory;
    const PackedLinear layer(memory, kernels_of(instruction_set), codes, rows, columns,
                             static_cast<int>(weight_max), scale, bias, threads);
    return run(layer, x, frames, clip, input_max, out, threads);
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_linear_sums(const void* linear, const int8_t* x, int64_t frames,
                                  int64_t input_max, int32_t* sums, int64_t threads) try {
    if (!is_valid(linear, frames, input_max)) return QUANT4_INVALID;
    multiply_all(static_cast<const Linear*>(linear)->layer, x, frames, static_cast<int>(input_max),
                 nullptr, sums, threads);
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}
