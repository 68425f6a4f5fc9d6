// Fake quantization of whole tensors and its straight-through gradients, in one pass each.
//
// Tensors are cut into chunks of one size, whatever the number of threads: sums over a chunk are added up
// in their order, so that results do not depend on threads or timing.
#include <algorithm>
#include <new>
#include <vector>

#include "linear.h"
#include "quant4.h"
#include "threads.h"

namespace quant4 {
namespace {

constexpr int64_t kChunk = 1 << 15;
constexpr int64_t kElementsForThreads = 1 << 17;

int64_t chunks_of(int64_t elements) { return (elements + kChunk - 1) / kChunk; }

// work(group, first element, elements, number of the chunk)
template <class Work>
void for_each_chunk(int64_t groups, int64_t elements, int64_t threads, const Work& work) {
    const int64_t each = chunks_of(elements), count = groups * each;
    if (groups * elements < kElementsForThreads) threads = 1;
    run_parallel(static_cast<int>(std::clamp<int64_t>(threads, 1, std::max<int64_t>(1, count))),
                 [&](int index, int workers) {
        const int64_t end = count * (index + 1) / workers;
        for (int64_t chunk = count * index / workers; chunk < end; ++chunk) {
            const int64_t group = chunk / each, first = chunk % each * kChunk;
            work(group, first, std::min(kChunk, elements - first), chunk);
        }
    });
}

bool is_valid(const quant4_grid& grid) {
    if (grid.groups < 0 || grid.elements < 0 || grid.max_code < 1 || grid.max_code > 127) return false;
    return true;
}

}  // namespace
}  // namespace quant4

using namespace quant4;

extern "C" int quant4_fake_quantize(int64_t instruction_set, const quant4_grid* grid, float* rounded,
                                    int8_t* codes, int64_t* inside) try {
    if (!is_valid(*grid)) return QUANT4_INVALID;
    const TrainingKernels& kernels = *kernels_of(instruction_set).training;
    std::vector<RoundedRow> rows(static_cast<size_t>(grid->groups * chunks_of(grid->elements)));
    for_each_chunk(grid->groups, grid->elements, grid->threads,
                   [&](int64_t group, int64_t first, int64_t count, int64_t chunk) {
        const int64_t at = group * grid->elements + first;
        rows[static_cast<size_t>(chunk)] =
            kernels.round_row(grid->x + at, count, grid->clips[group], grid->scales[group], rounded + at,
                              codes == nullptr ? nullptr : codes + at);
    });
    *inside = std::all_of(rows.begin(), rows.end(), [](RoundedRow row) { return row.inside; });
    const bool all = std::all_of(rows.begin(), rows.end(), [](RoundedRow row) { return row.numbers; });
    return all ? QUANT4_OK : QUANT4_NOT_A_NUMBER;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_straight_through(int64_t instruction_set, const quant4_grid* grid, int64_t rule,
                                       const float* gradient, float* gradient_x,
                                       double* clip_gradient) try {
    if (!is_valid(*grid) || rule < 1 || rule > 4) return QUANT4_INVALID;
    const TrainingKernels& kernels = *kernels_of(instruction_set).training;
    const int64_t each = chunks_of(grid->elements);
    std::vector<double> sums(static_cast<size_t>(grid->groups * each));
    for_each_chunk(grid->groups, grid->elements, grid->threads,
                   [&](int64_t group, int64_t first, int64_t count, int64_t chunk) {
        const int64_t at = group * grid->elements + first;
        sums[static_cast<size_t>(chunk)] = kernels.straight_through(
            grid->x + at, gradient + at, count, grid->clips[group], grid->scales[group],
            static_cast<GradientRule>(rule), gradient_x + at);
    });
    for (int64_t group = 0; group < grid->groups; ++group) {
        double sum = 0;
        for (int64_t c = 0; c < each; ++c) sum += sums[static_cast<size_t>(group * each + c)];
        clip_gradient[group] = sum;
    }
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_moments(int64_t instruction_set, const float* x, int64_t groups, int64_t elements,
                              double* moments, int64_t threads) try {
    if (groups < 0 || elements < 0) return QUANT4_INVALID;
    const TrainingKernels& kernels = *kernels_of(instruction_set).training;
    const int64_t each = chunks_of(elements);
    std::vector<double> parts(static_cast<size_t>(3 * groups * each), 0.0);
    for_each_chunk(groups, elements, threads, [&](int64_t group, int64_t first, int64_t count, int64_t chunk) {
        kernels.add_moments(x + group * elements + first, count, parts.data() + 3 * chunk);
    });
    for (int64_t group = 0; group < groups; ++group) {
        double* out = moments + 3 * group;
        std::fill_n(out, 3, 0.0);
        for (int64_t c = 0; c < each; ++c) {
            const double* part = parts.data() + 3 * (group * each + c);
            out[0] += part[0];
            out[1] += part[1];
            out[2] = std::max(out[2], part[2]);
        }
    }
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}
