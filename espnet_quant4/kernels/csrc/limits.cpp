// What this machine could do at best: a micro-benchmark for benchmarks/limits.py.
#include <chrono>
#include <cstring>

#include "linear.h"
#include "quant4.h"

namespace quant4 {
namespace {

double seconds_now() {
    const auto now = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double>(now).count();
}

}  // namespace
}  // namespace quant4

using namespace quant4;

// A matrix of one tile that never leaves the first-level cache, many columns, no output to speak of:
// what is left is the multiplication.
extern "C" double quant4_peak_macs(int64_t instruction_set, double seconds) try {
    const Kernels& kernels = kernels_of(instruction_set);
    constexpr int64_t columns = 640, frames = 4;
    const int64_t rows = kernels.row_block;
    const Buffer<int8_t> codes = allocate<int8_t>(rows * columns);
    const Buffer<int8_t> x = allocate<int8_t>(columns);
    const Buffer<int32_t> sums = allocate<int32_t>(rows * frames);
    const Buffer<float> scale = allocate<float>(rows);
    std::memset(codes.get(), 3, static_cast<size_t>(rows * columns));
    std::memset(x.get(), 5, static_cast<size_t>(columns));
    std::memset(scale.get(), 0, static_cast<size_t>(rows) * sizeof(float));
    WeightMemory memory;
    const PackedLinear linear(memory, kernels, codes.get(), rows, columns, 7, scale.get(),
                              nullptr);
    const Buffer<char> scratch = allocate<char>(kernels.scratch_bytes(columns, frames));
    const int8_t* frame_codes[frames] = {x.get(), x.get(), x.get(), x.get()};
    const Sink sink{nullptr, sums.get(), rows, linear.scale(), linear.bias()};
    double best = 0;
    const double until = seconds_now() + seconds;
    do {
        constexpr int repeats = 200;
        const double start = seconds_now();
        for (int i = 0; i < repeats; ++i) {
            kernels.multiply(linear.matrix(), 0, 1, frame_codes, frames, 7, sink, scratch.get());
        }
        const double rate =
            static_cast<double>(repeats * rows * columns * frames) / (seconds_now() - start);
        if (rate > best) best = rate;
    } while (seconds_now() < until);
    return best;
} catch (...) {
    return 0;
}

extern "C" double quant4_read_bandwidth(int64_t bytes, double seconds) try {
    const int64_t words = bytes / 8 / 16 * 16;
    if (words < 16) return 0;
    const Buffer<uint64_t> data = allocate<uint64_t>(words);
    std::memset(data.get(), 1, static_cast<size_t>(words) * 8);
    double best = 0;
    uint64_t total = 0;
    const double until = seconds_now() + seconds;
    do {
        const double start = seconds_now();
        int64_t read = 0;
        do {
            uint64_t sums[16] = {};
            for (int64_t i = 0; i < words; i += 16) {
                for (int64_t j = 0; j < 16; ++j) sums[j] += data[i + j];
            }
            for (const uint64_t sum : sums) total += sum;
            read += words * 8;
        } while (read < 4'000'000);
        const double rate = static_cast<double>(read) / (seconds_now() - start);
        if (rate > best) best = rate;
    } while (seconds_now() < until);
    // Never so, but the compiler cannot know: the sums have to be made.
    return total == 1 ? 0 : best;
} catch (...) {
    return 0;
}
