// C interface of the INT4 library. Neither PyTorch nor Python is known here: all data goes by
// pointers, which the caller has checked (espnet_quant4/kernels/native.py).
//
// Functions that can fail return one of the QUANT4_* values. Objects are immutable once they are
// filled; any number of threads may run one at the same time.
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define QUANT4_API __attribute__((visibility("default")))

enum {
    QUANT4_OK = 0,
    QUANT4_INVALID = 1,       // an argument out of range
    QUANT4_NO_MEMORY = 2,
    QUANT4_NOT_A_NUMBER = 3,  // NaN in an input, which has no code
};

// Changes whenever a function's arguments do.
QUANT4_API int64_t quant4_interface_version(void);

// Instruction sets that were compiled in, best first; the last one is plain C++.
QUANT4_API int64_t quant4_instruction_set_count(void);
QUANT4_API const char* quant4_instruction_set_name(int64_t index);
QUANT4_API int quant4_instruction_set_works(int64_t index);  // on this processor

// ---- linear layers -------------------------------------------------------------------------

// codes: (rows, columns), each in -weight_max..weight_max, weight_max 1..127; scale: (rows), what
// a sum of code products is multiplied with; bias: (rows) or null. Null where memory runs out.
QUANT4_API void* quant4_linear_create(int64_t instruction_set, const int8_t* codes, int64_t rows,
                                      int64_t columns, int64_t weight_max, const float* scale,
                                      const float* bias);
QUANT4_API void quant4_linear_destroy(void* linear);
// x: (frames, columns) floats; out: (frames, rows).
QUANT4_API int quant4_linear_run(const void* linear, const float* x, int64_t frames, float clip,
                                 int64_t input_max, float* out, int64_t threads);
// The same in one call, for a weight that is used once. Codes are taken on trust to be in range.
QUANT4_API int quant4_linear_once(int64_t instruction_set, const int8_t* codes, int64_t rows,
                                  int64_t columns, int64_t weight_max, const float* scale,
                                  const float* bias, const float* x, int64_t frames, float clip,
                                  int64_t input_max, float* out, int64_t threads);
// x: (frames, columns) codes; sums: (frames, rows), the integer part alone.
QUANT4_API int quant4_linear_sums(const void* linear, const int8_t* x, int64_t frames,
                                  int64_t input_max, int32_t* sums, int64_t threads);

// ---- LSTM ----------------------------------------------------------------------------------

QUANT4_API void* quant4_lstm_create(int64_t instruction_set, int64_t layers, int64_t directions,
                                    int64_t input_size, int64_t hidden_size);
QUANT4_API void quant4_lstm_destroy(void* lstm);
// Sets one layer and direction. weight_ih: (4 hidden_size, inputs) codes, rows in the order i, f,
// g, o; scale_ih: (parts, 4 hidden_size): the inputs are cut into `parts` equal blocks of columns,
// each with an input scale of its own; bias: (4 hidden_size), the sum of both.
QUANT4_API int quant4_lstm_set(void* lstm, int64_t layer, int64_t direction,
                               const int8_t* weight_ih, int64_t weight_ih_max,
                               const float* scale_ih, int64_t parts, const int8_t* weight_hh,
                               int64_t weight_hh_max, const float* scale_hh, const float* bias,
                               float hidden_clip, int64_t hidden_max);

typedef struct {
    const float* x;           // (frames, batch, input_size) with strides
    int64_t frames, batch;
    int64_t x_frame_stride, x_batch_stride;  // elements
    float input_clip;
    int64_t input_max;
    const int64_t* lengths;   // (batch), each 1..frames; null: all are `frames`
    // (layers * directions, batch, hidden_size) each; initial ones may be null: zeros.
    const float* initial_hidden;
    const float* initial_cell;
    float* hidden;            // final states; may be the initial ones
    float* cell;
    float* out;               // (frames, batch, directions * hidden_size) with strides
    int64_t out_frame_stride, out_batch_stride;
    int8_t* codes;            // (layers, frames, batch, directions * hidden_size) or null
    int64_t threads;
} quant4_lstm_call;

QUANT4_API int quant4_lstm_run(const void* lstm, const quant4_lstm_call* call);

// ---- training ------------------------------------------------------------------------------

// How the hidden state of a direction is quantized. rule: 0 not at all; the others name the gradient
// (GradientRule in training_kernels.h).
typedef struct {
    float clip;
    int64_t max_code;
    int64_t rule;
} quant4_hidden_quantizer;

// `rows` frames of all sequences stand one behind the other: frame t of sequence b is row first_rows[b] +
// t * row_stride. There are no rows past a sequence's length.
typedef struct {
    int64_t rows, frames, batch, directions, hidden_size;
    const int64_t* lengths;  // (batch), each 1..frames; null: all are `frames`
    const int64_t* first_rows;  // (batch)
    int64_t row_stride;
    quant4_hidden_quantizer quantizers[2];
    int64_t threads;
} quant4_lstm_training_shape;

// One layer, all directions.
typedef struct {
    float* gates;  // (rows, directions, 4 hidden_size): input products and biases; activated
    const float* weight_hh;          // (directions, 4 hidden_size, hidden_size); null with codes
    // The same as codes, to compute on codes of the hidden state, which all directions then quantize, or
    // null. scale: (directions, 4 hidden_size): step of the weight times that of the hidden state.
    const int8_t* weight_hh_codes;
    const float* weight_hh_scale;
    int64_t weight_hh_max;
    const float* initial_quantized;  // (directions, batch, hidden_size), or null: zeros
    const float* initial_cell;       // (directions, batch, hidden_size)
    float* hidden;     // (rows, directions, hidden_size) before quantization, or null
    float* quantized;  // the same after it, or null; not both null
    float* cell;       // (rows, directions, hidden_size)
    float* final_hidden;  // (directions, batch, hidden_size)
    float* final_cell;
} quant4_lstm_training_forward_call;

typedef struct {
    const float* gates;  // as forward left them
    const float* cell;
    const float* weight_hh;
    const float* output;                 // `quantized` or `hidden`
    const float* initial_quantized;
    const float* initial_cell;
    const float* output_gradient;        // (rows, directions, hidden_size), or null
    int64_t output_is_quantized;         // whether `output` is `quantized`
    const float* final_hidden_gradient;  // (directions, batch, hidden_size), or null
    float* cell_gradient;   // (directions, batch, hidden_size): of the final cell; of the initial one
    float* gate_gradients;  // (rows, directions, 4 hidden_size)
    float* previous;        // (rows, directions, hidden_size): what the recurrence read; or null
    float* initial_quantized_gradient;  // (directions, batch, hidden_size), or null
    float* bias_gradient;   // (directions, 4 hidden_size): added to
    double* clip_gradient;  // (directions): added to
} quant4_lstm_training_backward_call;

QUANT4_API int quant4_lstm_training_forward(int64_t instruction_set,
                                            const quant4_lstm_training_shape* shape,
                                            const quant4_lstm_training_forward_call* call);
QUANT4_API int quant4_lstm_training_backward(int64_t instruction_set,
                                             const quant4_lstm_training_shape* shape,
                                             const quant4_lstm_training_backward_call* call);

// ---- quantization in training --------------------------------------------------------------

// x: (groups, elements), each group with a clip and a step of its own: (groups). `rounded`:
// round_half_even(clamp(x, -clip, clip) / scale) * scale. codes: the same without the step, or null.
// QUANT4_NOT_A_NUMBER where x holds NaN: it stays NaN in `rounded` and has code 0; all else is done.
// inside: whether every magnitude is up to its clip.
typedef struct {
    const float* x;
    int64_t groups, elements;
    const float* clips;
    const float* scales;
    int64_t max_code;
    int64_t threads;
} quant4_grid;

QUANT4_API int quant4_fake_quantize(int64_t instruction_set, const quant4_grid* grid, float* rounded,
                                    int8_t* codes, int64_t* inside);
// The straight-through gradient by a rule (1 to 4). gradient, gradient_x: (groups, elements);
// clip_gradient: (groups).
QUANT4_API int quant4_straight_through(int64_t instruction_set, const quant4_grid* grid, int64_t rule,
                                       const float* gradient, float* gradient_x, double* clip_gradient);
// moments: (groups, 3): sum of magnitudes, sum of squares, largest magnitude.
QUANT4_API int quant4_moments(int64_t instruction_set, const float* x, int64_t groups, int64_t elements,
                              double* moments, int64_t threads);

// ---- other ---------------------------------------------------------------------------------

// codes = round_half_even(clamp(x, -clip, clip) / (clip / max_code))
QUANT4_API int quant4_quantize(int64_t instruction_set, const float* x, int64_t count, float clip,
                               int64_t max_code, int8_t* codes);
// Rows of a table that is packed as in files (espnet_quant4/int4/packing.py). scale: (groups),
// each for rows / groups consecutive rows.
QUANT4_API int quant4_embedding_run(const uint8_t* packed, int64_t rows, int64_t columns,
                                    int64_t bits, const float* scale, int64_t groups,
                                    const int64_t* ids, int64_t count, float* out);

// Multiply-accumulates a second of the inner multiplication alone, on registers, one thread.
QUANT4_API double quant4_peak_macs(int64_t instruction_set, double seconds);
// Bytes a second read from a buffer of this size, one thread.
QUANT4_API double quant4_read_bandwidth(int64_t bytes, double seconds);

#ifdef __cplusplus
}
#endif
