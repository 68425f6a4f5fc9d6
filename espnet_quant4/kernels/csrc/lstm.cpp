// A stack of LSTM layers on codes: see docs/int4.md for the picture.
//
// Rows of both weights are reordered so that a block of 64 holds the four gates of 16 units: a
// thread that has a unit's sums has all that the cell needs, and threads meet once a step.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "linear.h"
#include "quant4.h"
#include "threads.h"

namespace quant4 {
namespace {

constexpr int64_t kRowsPerUnitBlock = kUnitsPerBlock * kGates;
// Frames whose input products are made at once: enough to reuse each load of weights, few enough
// for their gates to stay in the second-level cache.
constexpr int64_t kFramesAtOnce = 32;
// Below this much work a call runs on one thread: waking another takes longer.
constexpr int64_t kMacsForThreads = 2'000'000;

struct Direction {
    std::vector<PackedLinear> input_parts;
    PackedLinear hidden;
    float hidden_clip = 1.0f;
    int hidden_max = 0;  // 0: not set
};

struct Lstm {
    const Kernels* kernels;
    int64_t layers, directions, input_size, hidden_size;
    std::vector<Direction> parts;  // layer-major
    WeightMemory memory;

    const Direction& at(int64_t layer, int64_t direction) const {
        return parts[static_cast<size_t>(layer * directions + direction)];
    }
    int64_t unit_blocks() const { return round_up(hidden_size, kUnitsPerBlock) / kUnitsPerBlock; }
    int64_t padded_units() const { return unit_blocks() * kUnitsPerBlock; }
    int64_t gate_rows() const { return unit_blocks() * kRowsPerUnitBlock; }
    int64_t layer_inputs(int64_t layer) const {
        return layer == 0 ? input_size : directions * hidden_size;
    }
    int64_t macs_per_frame() const {
        int64_t macs = 0;
        for (int64_t layer = 0; layer < layers; ++layer) {
            macs += directions * 4 * hidden_size * (layer_inputs(layer) + hidden_size);
        }
        return macs;
    }
};

// Index of gate row `gate * hidden_size + unit` in the blocked order.
int64_t blocked_row(int64_t gate, int64_t unit) {
    return unit / kUnitsPerBlock * kRowsPerUnitBlock + gate * kUnitsPerBlock +
           unit % kUnitsPerBlock;
}

PackedLinear pack_gates(Lstm& lstm, const int8_t* codes, int64_t stride, int64_t columns,
                        int weight_max, const float* scale, const float* bias) {
    const auto rows = static_cast<size_t>(lstm.gate_rows());
    std::vector<int8_t> ordered(rows * static_cast<size_t>(columns), 0);
    std::vector<float> ordered_scale(rows, 0.0f), ordered_bias(rows, 0.0f);
    for (int64_t gate = 0; gate < kGates; ++gate) {
        for (int64_t unit = 0; unit < lstm.hidden_size; ++unit) {
            const int64_t from = gate * lstm.hidden_size + unit;
            const auto to = static_cast<size_t>(blocked_row(gate, unit));
            std::copy_n(codes + from * stride, columns,
                        ordered.begin() + static_cast<std::ptrdiff_t>(to) * columns);
            ordered_scale[to] = scale[from];
            if (bias != nullptr) ordered_bias[to] = bias[from];
        }
    }
    return PackedLinear(lstm.memory, *lstm.kernels, ordered.data(), lstm.gate_rows(), columns, weight_max,
                        ordered_scale.data(), ordered_bias.data());
}

// One call of quant4_lstm_run. All threads run `work`.
class Run {
  public:
    Run(const Lstm& lstm, const quant4_lstm_call& call)
        : lstm_(lstm), call_(call), kernels_(*lstm.kernels) {
        // Longest first: those that still run at a step are the first ones.
        order_.resize(static_cast<size_t>(call.batch));
        std::iota(order_.begin(), order_.end(), 0);
        if (call.lengths != nullptr) {
            std::stable_sort(order_.begin(), order_.end(), [&](int64_t a, int64_t b) {
                return call.lengths[a] > call.lengths[b];
            });
        }
        threads_ = std::clamp<int64_t>(call.threads, 1, lstm.directions * lstm.unit_blocks());
        if (lstm.macs_per_frame() * call.frames * call.batch < kMacsForThreads) threads_ = 1;
        steps_at_once_ = std::max<int64_t>(1, kFramesAtOnce / std::max<int64_t>(1, call.batch));
        steps_at_once_ = std::min(steps_at_once_, call.frames);
        Arena measure(nullptr);
        lay_out(measure);
        scratch_ = std::make_unique<Scratch>(measure.used());
        Arena arena(scratch_->data());
        lay_out(arena);
    }

    int run() {
        run_parallel(static_cast<int>(threads_), [this](int index, int count) { work(index, count); });
        return not_a_number_.load() ? QUANT4_NOT_A_NUMBER : QUANT4_OK;
    }

  private:
    // What one direction works on; shared by its threads.
    struct Space {
        float* gates;       // (steps at once * batch, gate rows)
        float* cell;        // (batch, padded units)
        float* hidden;      // (batch, padded units)
        int8_t* codes[2];   // (batch, padded units): of this step and the last
    };

    void lay_out(Arena& arena) {
        const int64_t frames = steps_at_once_ * call_.batch, units = lstm_.padded_units();
        const int64_t all = call_.frames * call_.batch;
        for (int64_t d = 0; d < lstm_.directions; ++d) {
            Space& space = spaces_[d];
            space.gates = arena.take<float>(frames * lstm_.gate_rows());
            space.cell = arena.take<float>(call_.batch * units);
            space.hidden = arena.take<float>(call_.batch * units);
            for (auto& codes : space.codes) codes = arena.take<int8_t>(call_.batch * units);
        }
        int64_t widest = lstm_.hidden_size;
        for (int64_t layer = 0; layer < lstm_.layers; ++layer) {
            widest = std::max(widest, lstm_.layer_inputs(layer));
        }
        scratch_bytes_ = round_up(kernels_.scratch_bytes(widest, frames), kAlignment);
        thread_scratch_ = arena.take<char>(threads_ * scratch_bytes_);
        thread_rows_ = arena.take<const int8_t*>(threads_ * frames);
        // Codes between layers, twice: one is read while the other is written.
        const int64_t outputs = lstm_.directions * lstm_.hidden_size;
        between_[0] = arena.take<int8_t>(all * std::max(lstm_.input_size, outputs));
        between_[1] = arena.take<int8_t>(lstm_.layers > 1 ? all * outputs : 0);
    }

    int64_t length(int64_t position) const {
        return call_.lengths == nullptr ? call_.frames
                                        : call_.lengths[order_[static_cast<size_t>(position)]];
    }
    // How many sequences have a step s.
    int64_t active(int64_t step) const {
        if (call_.lengths == nullptr) return call_.batch;
        int64_t count = 0;
        while (count < call_.batch && length(count) > step) ++count;
        return count;
    }
    // The frame that sequence `position` has at a step: backward starts at its own end.
    int64_t frame_of(int64_t direction, int64_t step, int64_t position) const {
        return direction == 0 ? step : length(position) - 1 - step;
    }

    void work(int index, int count) {
        // Threads form a group for each direction if there are enough of them.
        const int groups = count >= 2 && lstm_.directions == 2 ? 2 : 1;
        const int group = index % groups, member = index / groups;
        const int members = (count - group + groups - 1) / groups;
        const int64_t frames = call_.frames, batch = call_.batch;
        bool numbers = true;
        for (int64_t i = frames * batch * index / count; i < frames * batch * (index + 1) / count;
             ++i) {
            const float* x = call_.x + i / batch * call_.x_frame_stride +
                             i % batch * call_.x_batch_stride;
            numbers &= kernels_.quantize(x, lstm_.input_size, call_.input_clip,
                                         static_cast<int>(call_.input_max),
                                         between_[0] + i * lstm_.input_size);
        }
        if (!numbers) not_a_number_.store(true);
        all_.wait(count);
        if (not_a_number_.load()) return;
        for (int64_t layer = 0; layer < lstm_.layers; ++layer) {
            for (int64_t d = group; d < lstm_.directions; d += groups) {
                run_direction(layer, d, index, member, members, group_barriers_[group]);
            }
            all_.wait(count);
        }
    }

    void run_direction(int64_t layer, int64_t d, int index, int member, int members,
                       Barrier& barrier) {
        const Direction& weights = lstm_.at(layer, d);
        const Space& space = spaces_[d];
        const int64_t units = lstm_.padded_units(), rows = lstm_.gate_rows();
        const int64_t first_block = lstm_.unit_blocks() * member / members;
        const int64_t last_block = lstm_.unit_blocks() * (member + 1) / members;
        const int64_t begin = first_block * kUnitsPerBlock, end = last_block * kUnitsPerBlock;
        const int64_t row_blocks = kRowsPerUnitBlock / kernels_.row_block;
        void* scratch = thread_scratch_ + index * scratch_bytes_;
        const int8_t** inputs = thread_rows_ + index * steps_at_once_ * call_.batch;
        const int8_t* source = between_[layer % 2];
        const int64_t width = lstm_.layer_inputs(layer);
        take_states(layer, d, begin, end);
        int now = 0;  // which of the two code buffers holds the last step's
        barrier.wait(members);
        for (int64_t step = 0; step < call_.frames; step += steps_at_once_) {
            const int64_t steps = std::min(steps_at_once_, call_.frames - step);
            int64_t frames = 0;
            for (int64_t s = step; s < step + steps; ++s) {
                const int64_t running = active(s);
                for (int64_t p = 0; p < running; ++p) {
                    const int64_t b = order_[static_cast<size_t>(p)];
                    inputs[frames++] = source + (frame_of(d, s, p) * call_.batch + b) * width;
                }
            }
            const auto part_count = static_cast<int64_t>(weights.input_parts.size());
            for (int64_t part = 0; part < part_count; ++part) {
                const PackedLinear& matrix = weights.input_parts[static_cast<size_t>(part)];
                const Sink sink{space.gates, nullptr, rows, matrix.scale(),
                                part == 0 ? matrix.bias() : nullptr};
                kernels_.multiply(matrix.matrix(), first_block * row_blocks,
                                  last_block * row_blocks, inputs, frames,
                                  largest_input(layer, part_count == 1 ? -1 : part), sink, scratch);
                for (int64_t f = 0; f < frames; ++f) inputs[f] += matrix.matrix().columns;
            }
            float* gates = space.gates;
            for (int64_t s = step; s < step + steps; ++s) {
                const int64_t running = active(s);
                for (int64_t p = 0; p < running; ++p) inputs[p] = space.codes[now] + p * units;
                const Sink sink{gates, nullptr, rows, weights.hidden.scale(), nullptr};
                kernels_.multiply(weights.hidden.matrix(), first_block * row_blocks,
                                  last_block * row_blocks, inputs, running, weights.hidden_max,
                                  sink, scratch);
                for (int64_t p = 0; p < running; ++p) {
                    kernels_.cell(gates + p * rows, begin, end, space.cell + p * units,
                                  space.hidden + p * units, space.codes[1 - now] + p * units,
                                  weights.hidden_clip, weights.hidden_max);
                    give(layer, d, s, p, begin, end, space.codes[1 - now] + p * units);
                }
                gates += running * rows;
                now = 1 - now;
                barrier.wait(members);
            }
        }
        give_states(layer, d, begin, end);
    }

    // Largest code of the input of a layer; of one direction below it, or of all (-1).
    int largest_input(int64_t layer, int64_t below) const {
        if (layer == 0) return static_cast<int>(call_.input_max);
        if (below >= 0) return lstm_.at(layer - 1, below).hidden_max;
        int largest = 0;
        for (int64_t d = 0; d < lstm_.directions; ++d) {
            largest = std::max(largest, lstm_.at(layer - 1, d).hidden_max);
        }
        return largest;
    }

    // Initial states, in this run's order; hidden states are quantized on entry.
    void take_states(int64_t layer, int64_t d, int64_t begin, int64_t end) const {
        const Direction& weights = lstm_.at(layer, d);
        const int64_t units = lstm_.padded_units(), size = lstm_.hidden_size;
        const int64_t real = std::clamp<int64_t>(size - begin, 0, end - begin);
        for (int64_t p = 0; p < call_.batch; ++p) {
            const int64_t from = state_row(layer, d, p) + begin, to = p * units + begin;
            const Space& space = spaces_[d];
            std::fill_n(space.cell + to, end - begin, 0.0f);
            std::fill_n(space.codes[0] + to, end - begin, int8_t{0});
            if (call_.initial_cell != nullptr) {
                std::copy_n(call_.initial_cell + from, real, space.cell + to);
            }
            if (call_.initial_hidden != nullptr) {
                kernels_.quantize(call_.initial_hidden + from, real, weights.hidden_clip,
                                  weights.hidden_max, space.codes[0] + to);
            }
        }
    }

    void give_states(int64_t layer, int64_t d, int64_t begin, int64_t end) const {
        const int64_t real = std::clamp<int64_t>(lstm_.hidden_size - begin, 0, end - begin);
        for (int64_t p = 0; p < call_.batch; ++p) {
            const int64_t to = state_row(layer, d, p) + begin;
            const int64_t from = p * lstm_.padded_units() + begin;
            std::copy_n(spaces_[d].cell + from, real, call_.cell + to);
            std::copy_n(spaces_[d].hidden + from, real, call_.hidden + to);
        }
    }

    int64_t state_row(int64_t layer, int64_t d, int64_t position) const {
        return ((layer * lstm_.directions + d) * call_.batch +
                order_[static_cast<size_t>(position)]) * lstm_.hidden_size;
    }

    // Hands a step's result on: codes to the next layer, floats out of the last.
    void give(int64_t layer, int64_t d, int64_t step, int64_t position, int64_t begin, int64_t end,
              const int8_t* codes) const {
        const int64_t real = std::clamp<int64_t>(lstm_.hidden_size - begin, 0, end - begin);
        const int64_t frame = frame_of(d, step, position);
        const int64_t b = order_[static_cast<size_t>(position)];
        const int64_t width = lstm_.directions * lstm_.hidden_size;
        const int64_t column = d * lstm_.hidden_size + begin;
        const int64_t at = (frame * call_.batch + b) * width + column;
        if (call_.codes != nullptr) {
            std::copy_n(codes + begin, real,
                        call_.codes + layer * call_.frames * call_.batch * width + at);
        }
        if (layer + 1 < lstm_.layers) {
            std::copy_n(codes + begin, real, between_[(layer + 1) % 2] + at);
        } else {
            std::copy_n(spaces_[d].hidden + position * lstm_.padded_units() + begin, real,
                        call_.out + frame * call_.out_frame_stride + b * call_.out_batch_stride +
                            column);
        }
    }

    const Lstm& lstm_;
    const quant4_lstm_call& call_;
    const Kernels& kernels_;
    std::vector<int64_t> order_;
    int64_t threads_ = 1, steps_at_once_ = 1, scratch_bytes_ = 0;
    std::unique_ptr<Scratch> scratch_;
    Space spaces_[2] = {};
    char* thread_scratch_ = nullptr;
    const int8_t** thread_rows_ = nullptr;
    int8_t* between_[2] = {};
    Barrier all_, group_barriers_[2];
    std::atomic<bool> not_a_number_{false};
};

bool is_valid(const Lstm& lstm, const quant4_lstm_call& call) {
    if (call.frames < 1 || call.batch < 0 || !(call.input_clip > 0) || call.input_max < 1 ||
        call.input_max > 127) {
        return false;
    }
    for (int64_t b = 0; call.lengths != nullptr && b < call.batch; ++b) {
        if (call.lengths[b] < 1 || call.lengths[b] > call.frames) return false;
    }
    return std::all_of(lstm.parts.begin(), lstm.parts.end(),
                       [](const Direction& part) { return part.hidden_max > 0; });
}

}  // namespace
}  // namespace quant4

using namespace quant4;

extern "C" void* quant4_lstm_create(int64_t instruction_set, int64_t layers, int64_t directions,
                                    int64_t input_size, int64_t hidden_size) try {
    if (layers < 1 || directions < 1 || directions > 2 || input_size < 1 || hidden_size < 1) {
        return nullptr;
    }
    auto lstm = std::make_unique<Lstm>();
    lstm->kernels = &kernels_of(instruction_set);
    lstm->layers = layers;
    lstm->directions = directions;
    lstm->input_size = input_size;
    lstm->hidden_size = hidden_size;
    lstm->parts.resize(static_cast<size_t>(layers * directions));
    int64_t bytes = 0;
    for (int64_t layer = 0; layer < layers; ++layer) {
        for (const int64_t columns : {lstm->layer_inputs(layer), hidden_size}) {
            bytes += directions * lstm->kernels->packed_bytes(lstm->gate_rows(), columns, false);
        }
    }
    lstm->memory = WeightMemory(bytes);
    return lstm.release();
} catch (...) {
    return nullptr;
}

extern "C" void quant4_lstm_destroy(void* lstm) { delete static_cast<Lstm*>(lstm); }

extern "C" int quant4_lstm_set(void* handle, int64_t layer, int64_t direction,
                               const int8_t* weight_ih, int64_t weight_ih_max,
                               const float* scale_ih, int64_t parts, const int8_t* weight_hh,
                               int64_t weight_hh_max, const float* scale_hh, const float* bias,
                               float hidden_clip, int64_t hidden_max) try {
    Lstm& lstm = *static_cast<Lstm*>(handle);
    const auto is_max = [](int64_t value) { return value >= 1 && value <= 127; };
    if (layer < 0 || layer >= lstm.layers || direction < 0 || direction >= lstm.directions ||
        !is_max(weight_ih_max) || !is_max(weight_hh_max) || !is_max(hidden_max) ||
        !(hidden_clip > 0)) {
        return QUANT4_INVALID;
    }
    // Deeper layers may read each direction below them by a scale of its own.
    if (parts != 1 && (layer == 0 || parts != lstm.directions)) return QUANT4_INVALID;
    Direction built;
    const int64_t columns = lstm.layer_inputs(layer), per_part = columns / parts;
    for (int64_t part = 0; part < parts; ++part) {
        built.input_parts.push_back(pack_gates(
            lstm, weight_ih + part * per_part, columns, per_part, static_cast<int>(weight_ih_max),
            scale_ih + part * 4 * lstm.hidden_size, part == 0 ? bias : nullptr));
    }
    built.hidden = pack_gates(lstm, weight_hh, lstm.hidden_size, lstm.hidden_size,
                              static_cast<int>(weight_hh_max), scale_hh, nullptr);
    built.hidden_clip = hidden_clip;
    built.hidden_max = static_cast<int>(hidden_max);
    lstm.parts[static_cast<size_t>(layer * lstm.directions + direction)] = std::move(built);
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_lstm_run(const void* handle, const quant4_lstm_call* call) try {
    const Lstm& lstm = *static_cast<const Lstm*>(handle);
    if (!is_valid(lstm, *call)) return QUANT4_INVALID;
    return call->batch == 0 ? QUANT4_OK : Run(lstm, *call).run();
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}
