// The recurrence of one LSTM layer in training, forward and backward, all directions at once. Input
// products and weight gradients are the caller's: they are large matrix products, which a BLAS does best.
//
// Sequences never meet in a recurrence, so threads share it out by direction and sequence and do not
// wait for each other.
#include <algorithm>
#include <limits>
#include <new>
#include <numeric>
#include <vector>

#include "linear.h"
#include "memory.h"
#include "quant4.h"
#include "threads.h"
#include "training_kernels.h"

namespace quant4 {
namespace {

// Some sequences of one direction, longest first.
struct Slice {
    int64_t direction;
    std::vector<int64_t> sequences;
};

std::vector<Slice> share_out(const quant4_lstm_training_shape& shape) {
    std::vector<int64_t> order(static_cast<size_t>(shape.batch));
    std::iota(order.begin(), order.end(), 0);
    if (shape.lengths != nullptr) {
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            return shape.lengths[a] > shape.lengths[b];
        });
    }
    const int64_t wanted = (shape.threads + shape.directions - 1) / shape.directions;
    const int64_t parts = std::clamp<int64_t>(wanted, 1, shape.batch);
    std::vector<Slice> slices;
    for (int64_t d = 0; d < shape.directions; ++d) {
        for (int64_t part = 0; part < parts; ++part) {
            Slice slice{d, {}};
            // Dealt out in turn: each slice has long and short ones.
            for (int64_t p = part; p < shape.batch; p += parts) {
                slice.sequences.push_back(order[static_cast<size_t>(p)]);
            }
            slices.push_back(std::move(slice));
        }
    }
    return slices;
}

template <class Work>
void for_each_slice(const std::vector<Slice>& slices, int64_t threads, const Work& work) {
    const auto count = static_cast<int64_t>(slices.size());
    run_parallel(static_cast<int>(std::min(threads, count)), [&](int index, int workers) {
        for (int64_t s = index; s < count; s += workers) work(s, slices[static_cast<size_t>(s)]);
    });
}

// Where things of one sequence, direction and frame lie.
struct Places {
    const quant4_lstm_training_shape& shape;

    int64_t length(int64_t b) const { return shape.lengths == nullptr ? shape.frames : shape.lengths[b]; }
    int64_t row(int64_t frame, int64_t b) const { return shape.first_rows[b] + frame * shape.row_stride; }
    // The frame of a step: the backward direction starts at a sequence's own end.
    int64_t frame(int64_t d, int64_t step, int64_t b) const {
        return d == 0 ? step : length(b) - 1 - step;
    }
    int64_t unit(int64_t d, int64_t frame, int64_t b) const {
        return (row(frame, b) * shape.directions + d) * shape.hidden_size;
    }
    int64_t gate(int64_t d, int64_t frame, int64_t b) const { return 4 * unit(d, frame, b); }
    int64_t state(int64_t d, int64_t b) const { return (d * shape.batch + b) * shape.hidden_size; }
    int64_t active(const Slice& slice, int64_t step) const {
        auto count = static_cast<int64_t>(slice.sequences.size());
        while (count > 0 && length(slice.sequences[static_cast<size_t>(count - 1)]) <= step) --count;
        return count;
    }
};

int64_t packed_floats(const TrainingKernels& kernels, int64_t depth, int64_t columns) {
    return depth * round_up(columns, kernels.panel);
}

// A weight of every direction, packed for products with it (`transposed`: with its transpose).
Buffer<float> pack_weights(const TrainingKernels& kernels, const quant4_lstm_training_shape& shape,
                           const float* weight_hh, bool transposed) {
    const int64_t size = shape.hidden_size, rows = 4 * size;
    const int64_t each = transposed ? packed_floats(kernels, size, rows) : packed_floats(kernels, rows, size);
    Buffer<float> packed = allocate<float>(shape.directions * each);
    run_parallel(static_cast<int>(std::min(shape.threads, shape.directions)), [&](int index, int workers) {
        for (int64_t d = index; d < shape.directions; d += workers) {
            const float* from = weight_hh + d * rows * size;
            float* to = packed.get() + d * each;
            if (transposed) {
                kernels.pack(from, 1, size, size, rows, to);
            } else {
                kernels.pack(from, size, 1, rows, size, to);
            }
        }
    });
    return packed;
}

bool is_valid(const quant4_lstm_training_shape& shape) {
    if (shape.frames < 1 || shape.batch < 0 || shape.directions < 1 || shape.directions > 2 ||
        shape.hidden_size < 1 || shape.threads < 1) {
        return false;
    }
    for (int64_t b = 0; shape.lengths != nullptr && b < shape.batch; ++b) {
        if (shape.lengths[b] < 1 || shape.lengths[b] > shape.frames) return false;
    }
    for (int64_t b = 0; b < shape.batch; ++b) {
        const Places at{shape};
        const int64_t first = at.row(0, b), last = at.row(at.length(b) - 1, b);
        if (std::min(first, last) < 0 || std::max(first, last) >= shape.rows) return false;
    }
    for (int64_t d = 0; d < shape.directions; ++d) {
        const quant4_hidden_quantizer& quantizer = shape.quantizers[d];
        if (quantizer.rule < 0 || quantizer.rule > 4) return false;
        if (quantizer.rule != 0 && (!(quantizer.clip > 0) || quantizer.max_code < 1 || quantizer.max_code > 127)) {
            return false;
        }
    }
    return true;
}

// The recurrent product of some sequences on codes, whose sums are exact.
class CodeProduct {
  public:
    CodeProduct(const Kernels& kernels, const PackedLinear& weight, const quant4_hidden_quantizer& quantizer,
                int64_t sequences)
        : kernels_(kernels), weight_(weight), quantizer_(quantizer),
          codes_(allocate<int8_t>(sequences * weight.matrix().columns)),
          sums_(allocate<float>(sequences * weight.padded_rows())),
          scratch_(allocate<char>(kernels.scratch_bytes(weight.matrix().columns, sequences))),
          is_number_(static_cast<size_t>(sequences), 1) {
        for (int64_t p = 0; p < sequences; ++p) rows_.push_back(codes_.get() + p * weight.matrix().columns);
    }

    void take(int64_t p, const float* quantized) {
        is_number_[static_cast<size_t>(p)] =
            kernels_.quantize(quantized, weight_.matrix().columns, quantizer_.clip,
                              static_cast<int>(quantizer_.max_code),
                              codes_.get() + p * weight_.matrix().columns);
    }

    void multiply(int64_t sequences) {
        const Sink sink{sums_.get(), nullptr, weight_.padded_rows(), weight_.scale(), weight_.bias()};
        kernels_.multiply(weight_.matrix(), 0, weight_.blocks(), rows_.data(), sequences,
                          static_cast<int>(quantizer_.max_code), sink, scratch_.get());
        for (int64_t p = 0; p < sequences; ++p) {
            // NaN has no code; in the sums it stays visible.
            if (!is_number_[static_cast<size_t>(p)]) {
                std::fill_n(sums_.get() + p * weight_.padded_rows(), weight_.padded_rows(),
                            std::numeric_limits<float>::quiet_NaN());
            }
        }
    }

    const float* sums(int64_t p) const { return sums_.get() + p * weight_.padded_rows(); }

  private:
    const Kernels& kernels_;
    const PackedLinear& weight_;
    const quant4_hidden_quantizer& quantizer_;
    Buffer<int8_t> codes_;
    Buffer<float> sums_;
    Buffer<char> scratch_;
    std::vector<const int8_t*> rows_;
    std::vector<char> is_number_;
};

void forward(const Kernels& all_kernels, const quant4_lstm_training_shape& shape,
             const quant4_lstm_training_forward_call& call) {
    const TrainingKernels& kernels = *all_kernels.training;
    const Places at{shape};
    const int64_t size = shape.hidden_size;
    const int64_t each = packed_floats(kernels, size, 4 * size);
    const bool on_codes = call.weight_hh_codes != nullptr;
    const Buffer<float> packed = on_codes ? nullptr : pack_weights(kernels, shape, call.weight_hh, true);
    const std::vector<Slice> slices = share_out(shape);
    WeightMemory memory;
    std::vector<PackedLinear> code_weights;
    for (int64_t d = 0; on_codes && d < shape.directions; ++d) {
        code_weights.emplace_back(memory, all_kernels, call.weight_hh_codes + d * 4 * size * size, 4 * size,
                                  size, static_cast<int>(call.weight_hh_max),
                                  call.weight_hh_scale + d * 4 * size, nullptr, shape.threads);
    }
    std::vector<CodeProduct> products;
    for (size_t s = 0; on_codes && s < slices.size(); ++s) {
        const auto d = static_cast<size_t>(slices[s].direction);
        products.emplace_back(all_kernels, code_weights[d], shape.quantizers[d],
                              static_cast<int64_t>(slices[s].sequences.size()));
    }
    std::vector<std::vector<float>> grids(slices.size());
    for (size_t s = 0; s < slices.size(); ++s) {
        // Quantized values of this step, where the layer puts out the others.
        if (shape.quantizers[slices[s].direction].rule != 0 && call.quantized == nullptr) {
            grids[s].resize(slices[s].sequences.size() * static_cast<size_t>(size));
        }
    }
    std::vector<std::vector<const float*>> inputs(slices.size());
    std::vector<std::vector<float*>> outputs(slices.size());
    for (size_t s = 0; s < slices.size(); ++s) {
        inputs[s].resize(slices[s].sequences.size());
        outputs[s].resize(slices[s].sequences.size());
    }
    for_each_slice(slices, shape.threads, [&](int64_t number, const Slice& slice) {
        const int64_t d = slice.direction;
        const quant4_hidden_quantizer& quantizer = shape.quantizers[d];
        const bool quantizes = quantizer.rule != 0;
        const float* weight = on_codes ? nullptr : packed.get() + d * each;
        CodeProduct* product = on_codes ? &products[static_cast<size_t>(number)] : nullptr;
        std::vector<float>& grid = grids[static_cast<size_t>(number)];
        const float** recurrent = inputs[static_cast<size_t>(number)].data();
        float** gates = outputs[static_cast<size_t>(number)].data();
        for (size_t p = 0; p < slice.sequences.size(); ++p) {
            recurrent[p] = call.initial_quantized == nullptr
                               ? nullptr
                               : call.initial_quantized + at.state(d, slice.sequences[p]);
            if (on_codes && recurrent[p] != nullptr) product->take(static_cast<int64_t>(p), recurrent[p]);
        }
        for (int64_t step = 0; step < shape.frames; ++step) {
            const int64_t rows = at.active(slice, step);
            for (int64_t p = 0; p < rows; ++p) {
                const int64_t b = slice.sequences[static_cast<size_t>(p)];
                gates[p] = call.gates + at.gate(d, at.frame(d, step, b), b);
            }
            const bool has_recurrent = step > 0 || call.initial_quantized != nullptr;
            if (has_recurrent && on_codes) {
                product->multiply(rows);
            } else if (has_recurrent) {
                kernels.multiply(recurrent, rows, size, weight, 4 * size, gates, true);
            }
            for (int64_t p = 0; p < rows; ++p) {
                const int64_t b = slice.sequences[static_cast<size_t>(p)];
                const int64_t frame = at.frame(d, step, b), here = at.unit(d, frame, b);
                const float* before = step == 0 ? call.initial_cell + at.state(d, b)
                                                : call.cell + at.unit(d, at.frame(d, step - 1, b), b);
                float* hidden = call.hidden == nullptr ? nullptr : call.hidden + here;
                float* quantized = nullptr;
                if (quantizes) {
                    quantized = call.quantized != nullptr ? call.quantized + here : grid.data() + p * size;
                } else if (hidden == nullptr) {
                    hidden = call.quantized + here;  // this direction has no quantizer, the other has
                }
                float* last = nullptr;
                if (step + 1 == at.length(b)) last = call.final_hidden + at.state(d, b);
                // The final state is the value before quantization.
                float* floats = hidden != nullptr ? hidden : last;
                const float* sums = has_recurrent && on_codes ? product->sums(p) : nullptr;
                kernels.forward_cell(gates[p], sums, size, before, call.cell + here, floats, quantized,
                                     quantizer.clip, static_cast<int>(quantizer.max_code));
                if (!quantizes && call.quantized != nullptr && hidden != call.quantized + here) {
                    std::copy_n(hidden, size, call.quantized + here);
                }
                recurrent[p] = quantizes ? quantized : hidden;
                if (on_codes) product->take(p, quantized);
                if (last != nullptr) {
                    if (floats != last) std::copy_n(floats, size, last);
                    std::copy_n(call.cell + here, size, call.final_cell + at.state(d, b));
                }
            }
        }
    });
}

// What the recurrence read at a step: the hidden state of the step before, on the grid.
void write_previous(const TrainingKernels& kernels, const Places& at,
                    const quant4_lstm_training_backward_call& call, int64_t d, int64_t step, int64_t b,
                    float* previous) {
    const int64_t size = at.shape.hidden_size;
    const quant4_hidden_quantizer& quantizer = at.shape.quantizers[d];
    if (step == 0) {
        if (call.initial_quantized == nullptr) {
            std::fill_n(previous, size, 0.0f);
        } else {
            std::copy_n(call.initial_quantized + at.state(d, b), size, previous);
        }
        return;
    }
    const float* before = call.output + at.unit(d, at.frame(d, step - 1, b), b);
    if (call.output_is_quantized != 0 || quantizer.rule == 0) {
        std::copy_n(before, size, previous);
    } else {
        kernels.round_row(before, size, quantizer.clip,
                          quantizer.clip / static_cast<float>(quantizer.max_code), previous, nullptr);
    }
}

void backward(const TrainingKernels& kernels, const quant4_lstm_training_shape& shape,
              const quant4_lstm_training_backward_call& call) {
    const Places at{shape};
    const int64_t size = shape.hidden_size, rows_of_weight = 4 * size;
    const int64_t each = packed_floats(kernels, rows_of_weight, size);
    const Buffer<float> packed = pack_weights(kernels, shape, call.weight_hh, false);
    const std::vector<Slice> slices = share_out(shape);
    struct Space {
        std::vector<float> recurrent, bias;
        std::vector<const float*> inputs;
        std::vector<float*> outputs;
        double clip_gradient = 0;
    };
    std::vector<Space> spaces(slices.size());
    for (size_t s = 0; s < slices.size(); ++s) {
        const size_t count = slices[s].sequences.size();
        spaces[s].recurrent.resize(count * static_cast<size_t>(size));
        spaces[s].bias.resize(static_cast<size_t>(rows_of_weight));
        spaces[s].inputs.resize(count);
        spaces[s].outputs.resize(count);
    }
    for_each_slice(slices, shape.threads, [&](int64_t number, const Slice& slice) {
        const int64_t d = slice.direction;
        const quant4_hidden_quantizer& quantizer = shape.quantizers[d];
        Space& space = spaces[static_cast<size_t>(number)];
        for (size_t p = 0; p < slice.sequences.size(); ++p) {
            space.outputs[p] = space.recurrent.data() + p * static_cast<size_t>(size);
        }
        for (int64_t step = shape.frames - 1; step >= 0; --step) {
            const int64_t rows = at.active(slice, step);
            for (int64_t p = 0; p < rows; ++p) {
                const int64_t b = slice.sequences[static_cast<size_t>(p)];
                const int64_t frame = at.frame(d, step, b), here = at.unit(d, frame, b);
                const bool is_last = step + 1 == at.length(b);
                float* gate_gradients = call.gate_gradients + at.gate(d, frame, b);
                const BackwardRow row{
                    call.gates + at.gate(d, frame, b),
                    call.cell + here,
                    step == 0 ? call.initial_cell + at.state(d, b)
                              : call.cell + at.unit(d, at.frame(d, step - 1, b), b),
                    space.outputs[static_cast<size_t>(p)],
                    call.output_gradient == nullptr ? nullptr : call.output_gradient + here,
                    is_last && call.final_hidden_gradient != nullptr
                        ? call.final_hidden_gradient + at.state(d, b)
                        : nullptr,
                    call.cell_gradient + at.state(d, b),
                    gate_gradients,
                    call.output_is_quantized != 0,
                };
                space.clip_gradient +=
                    kernels.backward_cell(row, size, quantizer.clip, static_cast<int>(quantizer.max_code),
                                          static_cast<GradientRule>(quantizer.rule));
                kernels.add_row(gate_gradients, rows_of_weight, space.bias.data());
                if (call.previous != nullptr) {
                    write_previous(kernels, at, call, d, step, b, call.previous + here);
                }
                space.inputs[static_cast<size_t>(p)] = gate_gradients;
            }
            if (step > 0 || call.initial_quantized_gradient != nullptr) {
                kernels.multiply(space.inputs.data(), rows, rows_of_weight, packed.get() + d * each, size,
                                 space.outputs.data(), false);
            }
        }
        for (size_t p = 0; p < slice.sequences.size(); ++p) {
            const int64_t b = slice.sequences[p];
            if (call.initial_quantized_gradient != nullptr) {
                std::copy_n(space.outputs[p], size, call.initial_quantized_gradient + at.state(d, b));
            }
        }
    });
    // In the order of the slices, whatever thread had them: results do not depend on timing.
    for (size_t s = 0; s < slices.size(); ++s) {
        const int64_t d = slices[s].direction;
        call.clip_gradient[d] += spaces[s].clip_gradient;
        kernels.add_row(spaces[s].bias.data(), rows_of_weight, call.bias_gradient + d * rows_of_weight);
    }
}

}  // namespace
}  // namespace quant4

using namespace quant4;

extern "C" int quant4_lstm_training_forward(int64_t instruction_set,
                                            const quant4_lstm_training_shape* shape,
                                            const quant4_lstm_training_forward_call* call) try {
    if (!is_valid(*shape)) return QUANT4_INVALID;
    if (call->weight_hh_codes != nullptr) {
        if (call->weight_hh_max < 1 || call->weight_hh_max > 127) return QUANT4_INVALID;
        for (int64_t d = 0; d < shape->directions; ++d) {
            if (shape->quantizers[d].rule == 0) return QUANT4_INVALID;
        }
    }
    if (shape->batch > 0) forward(kernels_of(instruction_set), *shape, *call);
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}

extern "C" int quant4_lstm_training_backward(int64_t instruction_set,
                                             const quant4_lstm_training_shape* shape,
                                             const quant4_lstm_training_backward_call* call) try {
    if (!is_valid(*shape)) return QUANT4_INVALID;
    if (shape->batch > 0) backward(*kernels_of(instruction_set).training, *shape, *call);
    return QUANT4_OK;
} catch (const std::bad_alloc&) {
    return QUANT4_NO_MEMORY;
}
