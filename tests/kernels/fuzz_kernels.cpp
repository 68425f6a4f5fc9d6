// Random calls of the C interface against plain loops: fuzz_kernels CASES [SEED]. Also what
// `make sanitize` runs. Prints the instruction sets that took part; exits with 1 at a difference.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "quant4.h"

namespace {

std::mt19937 engine;

int64_t draw(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(engine() % static_cast<uint64_t>(high - low + 1));
}

int64_t draw_size(int64_t least) {
    static const int64_t edges[] = {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 639, 640, 641, 669};
    const int64_t size = draw(0, 2) ? draw(0, 70) : edges[draw(0, 15)];
    return size < least ? least : size;
}

std::vector<int8_t> draw_codes(int64_t count, int64_t largest) {
    std::vector<int8_t> codes(static_cast<size_t>(count));
    const bool extreme = draw(0, 3) == 0;
    for (auto& code : codes) {
        const int64_t drawn = draw(-largest, largest);
        code = static_cast<int8_t>(extreme ? (drawn < 0 ? -largest : largest) : drawn);
    }
    return codes;
}

std::vector<float> draw_floats(int64_t count, float spread) {
    std::normal_distribution<float> normal(0.0f, spread);
    std::vector<float> values(static_cast<size_t>(count));
    for (auto& value : values) value = normal(engine);
    if (draw(0, 5) == 0) {
        for (auto& value : values) value *= 1e30f;
    }
    return values;
}

[[noreturn]] void fail(const char* what, int64_t set) {
    std::printf("%s: wrong on %s\n", what, quant4_instruction_set_name(set));
    std::exit(1);
}

int64_t draw_max() {
    static const int64_t values[] = {1, 3, 7, 7, 7, 15, 63, 127};
    return values[draw(0, 7)];
}

void check_linear(int64_t set) {
    const int64_t rows = draw_size(0), columns = draw_size(0), frames = draw(0, 9);
    const int64_t weight_max = draw_max(), input_max = draw_max();
    const auto codes = draw_codes(rows * columns, weight_max), x = draw_codes(frames * columns, input_max);
    const auto scale = draw_floats(rows, 1.0f), bias = draw_floats(rows, 1.0f);
    const bool with_bias = draw(0, 1) != 0;
    void* linear = quant4_linear_create(set, codes.data(), rows, columns, weight_max, scale.data(),
                                        with_bias ? bias.data() : nullptr);
    if (linear == nullptr) fail("linear_create", set);
    std::vector<int32_t> sums(static_cast<size_t>(frames * rows));
    if (quant4_linear_sums(linear, x.data(), frames, input_max, sums.data(), draw(1, 3)) != 0) {
        fail("linear_sums", set);
    }
    for (int64_t f = 0; f < frames; ++f) {
        for (int64_t r = 0; r < rows; ++r) {
            int64_t sum = 0;
            for (int64_t c = 0; c < columns; ++c) {
                sum += codes[static_cast<size_t>(r * columns + c)] * x[static_cast<size_t>(f * columns + c)];
            }
            if (sum != sums[static_cast<size_t>(f * rows + r)]) fail("sum", set);
        }
    }
    const auto floats = draw_floats(frames * columns, 2.0f);
    std::vector<float> out(static_cast<size_t>(frames * rows));
    if (quant4_linear_run(linear, floats.data(), frames, 1.5f, input_max, out.data(), draw(1, 3)) != 0) {
        fail("linear_run", set);
    }
    quant4_linear_destroy(linear);
}

void check_quantize(int64_t set) {
    const int64_t count = draw_size(0), largest = draw_max();
    const float clip = std::ldexp(1.0f + static_cast<float>(draw(0, 99)) / 99.0f, static_cast<int>(draw(-20, 20)));
    const auto x = draw_floats(count, clip);
    std::vector<int8_t> codes(static_cast<size_t>(count));
    if (quant4_quantize(set, x.data(), count, clip, largest, codes.data()) != 0) fail("quantize", set);
    const float scale = clip / static_cast<float>(largest);
    for (size_t i = 0; i < codes.size(); ++i) {
        const float clamped = std::fmin(std::fmax(x[i], -clip), clip);
        if (std::nearbyint(clamped / scale) != codes[i]) fail("code", set);
    }
}

// One thread on the plain set against any threads on this one: equal codes but near ties.
void check_lstm(int64_t set, int64_t plain) {
    const int64_t layers = draw(1, 3), directions = draw(1, 2), inputs = draw(1, 40);
    const int64_t hidden = draw(1, 40), frames = draw(1, 9), batch = draw(0, 5);
    const int64_t weight_max = draw_max(), hidden_max = draw_max(), parts_max = draw(1, directions);
    const int64_t width = directions * hidden, sets[] = {set, plain};
    void* lstms[2];
    for (int i = 0; i < 2; ++i) lstms[i] = quant4_lstm_create(sets[i], layers, directions, inputs, hidden);
    for (int64_t layer = 0; layer < layers; ++layer) {
        const int64_t columns = layer == 0 ? inputs : width, parts = layer == 0 ? 1 : parts_max;
        for (int64_t d = 0; d < directions; ++d) {
            const auto ih = draw_codes(4 * hidden * columns, weight_max);
            const auto hh = draw_codes(4 * hidden * hidden, weight_max);
            std::vector<float> scale_ih(static_cast<size_t>(parts * 4 * hidden), 0.01f);
            std::vector<float> scale_hh(static_cast<size_t>(4 * hidden), 0.01f);
            const auto bias = draw_floats(4 * hidden, 1.0f);
            for (void* lstm : lstms) {
                if (quant4_lstm_set(lstm, layer, d, ih.data(), weight_max, scale_ih.data(), parts,
                                    hh.data(), weight_max, scale_hh.data(), bias.data(), 0.9f,
                                    hidden_max) != 0) {
                    fail("lstm_set", set);
                }
            }
        }
    }
    const auto x = draw_floats(frames * batch * inputs, 1.0f);
    std::vector<int64_t> lengths;
    for (int64_t b = 0; b < batch; ++b) lengths.push_back(draw(1, frames));
    const bool ragged = draw(0, 1) != 0, with_states = draw(0, 1) != 0;
    const auto states = draw_floats(2 * layers * directions * batch * hidden, 0.5f);
    std::vector<float> outs[2];
    for (int i = 0; i < 2; ++i) {
        const auto state_count = static_cast<size_t>(layers * directions * batch * hidden);
        std::vector<float> last_hidden(state_count), last_cell(state_count);
        outs[i].assign(static_cast<size_t>(frames * batch * width), 0.0f);
        quant4_lstm_call call{};
        call.x = x.data();
        call.frames = frames;
        call.batch = batch;
        call.x_frame_stride = batch * inputs;
        call.x_batch_stride = inputs;
        call.input_clip = 2.0f;
        call.input_max = 127;
        call.lengths = ragged ? lengths.data() : nullptr;
        call.initial_hidden = with_states ? states.data() : nullptr;
        call.initial_cell = with_states ? states.data() + state_count : nullptr;
        call.hidden = last_hidden.data();
        call.cell = last_cell.data();
        call.out = outs[i].data();
        call.out_frame_stride = batch * width;
        call.out_batch_stride = width;
        call.threads = i == 0 ? draw(1, 5) : 1;
        if (quant4_lstm_run(lstms[i], &call) != 0) fail("lstm_run", set);
    }
    int64_t far = 0;
    for (size_t i = 0; i < outs[0].size(); ++i) {
        far += !(std::fabs(outs[0][i] - outs[1][i]) < 1e-5f) &&
               !(std::isnan(outs[0][i]) && std::isnan(outs[1][i]));
    }
    if (far > static_cast<int64_t>(outs[0].size()) / 20 + 8) fail("lstm", set);
    for (void* lstm : lstms) quant4_lstm_destroy(lstm);
}

bool are_close(const std::vector<float>& a, const std::vector<float>& b) {
    float largest = 1.0f;
    for (const float value : b) largest = std::max(largest, std::fabs(value));
    for (size_t i = 0; i < a.size(); ++i) {
        if (!(std::fabs(a[i] - b[i]) <= 2e-5f * largest)) return false;
    }
    return true;
}

// Forward and backward of a training layer: against plain C++, which tests/nn/test_fused_lstm.py holds
// against PyTorch. Where hidden states are quantized a sum near a tie may round either way, so then
// the calls only have to succeed.
void check_training(int64_t set, int64_t plain) {
    const int64_t directions = draw(1, 2), size = draw_size(1) % 100 + 1, frames = draw(1, 9);
    const int64_t batch = draw(0, 15);
    const int64_t states = directions * batch * size;
    std::vector<int64_t> lengths(static_cast<size_t>(batch));
    for (auto& length : lengths) length = draw(1, frames);
    quant4_lstm_training_shape shape{};
    // Rows that stand sequence after sequence, or frame after frame.
    const bool by_frame = draw(0, 1) != 0;
    const bool ragged = !by_frame && draw(0, 1) != 0;
    std::vector<int64_t> first(static_cast<size_t>(batch));
    int64_t rows = 0;
    for (size_t b = 0; b < first.size(); ++b) {
        first[b] = by_frame ? static_cast<int64_t>(b) : rows;
        rows += ragged ? lengths[b] : frames;
    }
    const int64_t units = rows * directions * size;
    shape.rows = rows;
    shape.first_rows = first.data();
    shape.row_stride = by_frame ? batch : 1;
    shape.frames = frames;
    shape.batch = batch;
    shape.directions = directions;
    shape.hidden_size = size;
    shape.lengths = ragged ? lengths.data() : nullptr;
    shape.threads = draw(1, 4);
    const bool quantizes = draw(0, 2) == 0, with_states = draw(0, 1) != 0;
    for (auto& quantizer : shape.quantizers) {
        quantizer = {0.3f, draw_max(), quantizes ? draw(1, 4) : 0};
    }
    std::normal_distribution<float> normal(0.0f, 1.0f / std::sqrt(static_cast<float>(size)));
    const auto draw_normal = [&](int64_t count) {
        std::vector<float> values(static_cast<size_t>(count));
        for (auto& value : values) value = normal(engine);
        return values;
    };
    const auto gates = draw_normal(4 * units), weight = draw_normal(directions * 4 * size * size);
    const auto hidden = draw_normal(states), cells = draw_normal(states);
    const auto gradient = draw_normal(units), final_gradient = draw_normal(states);
    const auto codes = quantizes && draw(0, 1) ? draw_codes(directions * 4 * size * size, 7)
                                               : std::vector<int8_t>{};
    const std::vector<float> scale(static_cast<size_t>(directions * 4 * size), 0.02f);
    std::vector<std::vector<float>> results[2];
    for (const int64_t used : {set, plain}) {
        auto activated = gates, cell_gradient = final_gradient;
        std::vector<float> output(static_cast<size_t>(units)), cell(output.size(), 0.0f);
        std::vector<float> final_hidden(static_cast<size_t>(states)), final_cell(final_hidden.size());
        std::vector<float> initial_gradient(final_hidden.size());
        std::vector<float> gate_gradients(activated.size()), previous(output.size());
        std::vector<float> bias(static_cast<size_t>(directions * 4 * size), 0.0f);
        double clips[2] = {0, 0};
        const quant4_lstm_training_forward_call forward{
            activated.data(), weight.data(), codes.empty() ? nullptr : codes.data(),
            scale.data(), 7, with_states ? hidden.data() : nullptr, cells.data(),
            quantizes ? nullptr : output.data(), quantizes ? output.data() : nullptr, cell.data(),
            final_hidden.data(), final_cell.data()};
        if (quant4_lstm_training_forward(used, &shape, &forward) != QUANT4_OK) fail("training", used);
        const quant4_lstm_training_backward_call backward{
            activated.data(), cell.data(), weight.data(), output.data(),
            with_states ? hidden.data() : nullptr, cells.data(), gradient.data(), quantizes,
            final_gradient.data(), cell_gradient.data(), gate_gradients.data(),
            draw(0, 3) ? previous.data() : nullptr, with_states ? initial_gradient.data() : nullptr, bias.data(), clips};
        if (quant4_lstm_training_backward(used, &shape, &backward) != QUANT4_OK) fail("training", used);
        if (!with_states) std::fill(initial_gradient.begin(), initial_gradient.end(), 0.0f);
        results[used == set ? 0 : 1] = {output, final_hidden, final_cell, gate_gradients, cell_gradient,
                                        initial_gradient, bias};
        if (set == plain) return;
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
        if (!quantizes && !are_close(results[0][i], results[1][i])) fail("training", set);
    }
}

// Fake quantization, its gradient and moments: each set against the plain one.
void check_fake_quantize(int64_t set, int64_t plain) {
    const int64_t groups = draw(0, 5), elements = draw(0, 3) ? draw_size(0) : 40000;
    const auto count = static_cast<size_t>(groups * elements);
    std::normal_distribution<float> normal(0.0f, 1.0f);
    std::vector<float> x(count), gradient(count), clips(static_cast<size_t>(groups)), scales(clips.size());
    for (auto* values : {&x, &gradient}) {
        for (auto& value : *values) value = normal(engine);
    }
    const int64_t max_code = draw_max(), rule = draw(1, 4);
    for (size_t g = 0; g < clips.size(); ++g) {
        clips[g] = 0.5f + 0.1f * static_cast<float>(g);
        scales[g] = clips[g] / static_cast<float>(max_code);
    }
    const quant4_grid grid{x.data(), groups, elements, clips.data(), scales.data(), max_code, draw(1, 4)};
    std::vector<float> results[2][3];
    std::vector<int8_t> codes[2];
    for (const int64_t used : {set, plain}) {
        auto& mine = results[used == set ? 0 : 1];
        auto& mine_codes = codes[used == set ? 0 : 1];
        std::vector<float> rounded(count), gradient_x(count);
        std::vector<double> clip_gradient(clips.size()), moments(3 * clips.size());
        mine_codes.resize(count);
        int64_t inside = 0;
        if (quant4_fake_quantize(used, &grid, rounded.data(), draw(0, 3) ? mine_codes.data() : nullptr,
                                 &inside) != QUANT4_OK ||
            quant4_straight_through(used, &grid, rule, gradient.data(), gradient_x.data(), clip_gradient.data()) != QUANT4_OK ||
            quant4_moments(used, x.data(), groups, elements, moments.data(), draw(1, 4)) != QUANT4_OK) {
            fail("fake quantization", used);
        }
        mine[0] = rounded;
        mine[1] = gradient_x;
        mine[2].assign(clip_gradient.begin(), clip_gradient.end());
        if (set == plain) return;
    }
    if (results[0][0] != results[1][0] || results[0][1] != results[1][1]) fail("fake quantization", set);
}

}  // namespace

int main(int argc, char** argv) {
    const int cases = argc > 1 ? std::atoi(argv[1]) : 100;
    engine.seed(argc > 2 ? static_cast<unsigned>(std::atoi(argv[2])) : 1);
    const int64_t count = quant4_instruction_set_count();
    for (int64_t set = 0; set < count; ++set) {
        if (!quant4_instruction_set_works(set)) continue;
        for (int i = 0; i < cases; ++i) {
            check_linear(set);
            check_quantize(set);
            check_lstm(set, count - 1);
            check_training(set, count - 1);
            check_fake_quantize(set, count - 1);
        }
        std::printf("%s: %d cases\n", quant4_instruction_set_name(set), cases);
    }
    return 0;
}
