// AVX2: products of unsigned weight bytes and signed activation bytes by vpmaddubsw, summed in
// 16-bit lanes, a lane a row ("pairs" in layout.h).
//
// Sums may wrap on the way: only the value at the end of a segment has to fit, and a segment ends
// before the largest possible sum of code products passes 32767. The offset of the weights is taken
// out beforehand: a sum starts at -8 times the sum of its activations.
#if defined(__x86_64__)

#include <immintrin.h>

#include "elementwise.h"
#include "layout.h"
#include "training_steps.h"

namespace quant4 {
namespace {

constexpr int64_t kRows = 32;       // rows in a block: two vectors
constexpr int64_t kFrameTile = 4;   // frames that share one load of weights
// How far ahead weights are asked for where each is used once: matters when they come from main
// memory (a third less time on an EPYC 7001), and nothing when they do not.
constexpr int64_t kPrefetchBytes = 2048;
constexpr int64_t kShiftSteps = 10;  // steps (of 4 columns) between flushes of the shift-free form

inline int32_t twice(int first, int second) {
    const uint32_t pair = static_cast<uint8_t>(first) | static_cast<uint32_t>(static_cast<uint8_t>(second)) << 8;
    return static_cast<int32_t>(pair | pair << 16);
}

// Prepares one frame's activations: a 32-bit number for each pair of columns, with the pair twice, to
// fill a lane by vpbroadcastd; a step has the pairs (0, 1) and (2, 3). Zeros fill up the last step.
void double_pairs(const int8_t* x, int64_t columns, int64_t steps, int32_t* pairs) {
    int64_t column = 0;
    for (; column + 16 <= columns; column += 16) {
        const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(x + column));
        __m128i* out = reinterpret_cast<__m128i*>(pairs + column / 2);
        _mm_store_si128(out, _mm_unpacklo_epi16(v, v));
        _mm_store_si128(out + 1, _mm_unpackhi_epi16(v, v));
    }
    for (int64_t pair = column / 2; pair < 2 * steps; ++pair) {
        const int64_t at = 2 * pair;
        pairs[pair] = twice(at < columns ? x[at] : 0, at + 1 < columns ? x[at + 1] : 0);
    }
}

// Sum of the activations in columns [begin, end).
inline int32_t sum_of(const int8_t* x, int64_t begin, int64_t end) {
    int32_t sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += x[i];
    return sum;
}

// Sums of 16 rows; before: what earlier segments left, or null.
inline void drain16(__m256i sums, const int32_t* before, int64_t row, int64_t frame,
                    const Sink& sink) {
    __m256i halves[2] = {_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)),
                         _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1))};
    if (before != nullptr) {
        const auto* kept = reinterpret_cast<const __m256i*>(before);
        for (int half = 0; half < 2; ++half) {
            halves[half] = _mm256_add_epi32(halves[half], _mm256_load_si256(kept + half));
        }
    }
    drain_rows(row, halves, frame, sink);
}

inline void keep16(__m256i sums, int32_t* kept) {
    __m256i* out = reinterpret_cast<__m256i*>(kept);
    out[0] = _mm256_add_epi32(out[0], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums)));
    out[1] = _mm256_add_epi32(out[1], _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums, 1)));
}

// One block of 32 rows by F frames. starts: for each segment and frame, minus the offset's part.
template <int F>
inline void narrow_tile(const uint8_t* block, int64_t steps, int64_t segment_steps,
                        const int32_t* const* pairs, const int16_t* starts, int64_t row,
                        int64_t frame, const Sink& sink) {
    const __m256i low_mask = _mm256_set1_epi8(15);
    alignas(32) int32_t kept[F][kRows];
    const bool many = steps > segment_steps;
    if (many) std::memset(kept, 0, sizeof kept);
    for (int64_t begin = 0, segment = 0;; begin += segment_steps, ++segment) {
        const int64_t end = std::min(steps, begin + segment_steps);
        __m256i sums[F][2];
        for (int f = 0; f < F; ++f) {
            sums[f][0] = sums[f][1] = _mm256_set1_epi16(starts[segment * kFrameTile + f]);
        }
        for (int64_t step = begin; step < end; ++step) {
            const __m256i* w = reinterpret_cast<const __m256i*>(block + step * kStepBytes);
            const __m256i b0 = _mm256_loadu_si256(w), b1 = _mm256_loadu_si256(w + 1);
            const __m256i low0 = _mm256_and_si256(b0, low_mask);
            const __m256i low1 = _mm256_and_si256(b1, low_mask);
            const __m256i high0 = _mm256_and_si256(_mm256_srli_epi16(b0, 4), low_mask);
            const __m256i high1 = _mm256_and_si256(_mm256_srli_epi16(b1, 4), low_mask);
            for (int f = 0; f < F; ++f) {
                const __m256i x = _mm256_set1_epi32(pairs[f][2 * step]);
                sums[f][0] = _mm256_add_epi16(sums[f][0], _mm256_maddubs_epi16(low0, x));
                sums[f][1] = _mm256_add_epi16(sums[f][1], _mm256_maddubs_epi16(low1, x));
                const __m256i y = _mm256_set1_epi32(pairs[f][2 * step + 1]);
                sums[f][0] = _mm256_add_epi16(sums[f][0], _mm256_maddubs_epi16(high0, y));
                sums[f][1] = _mm256_add_epi16(sums[f][1], _mm256_maddubs_epi16(high1, y));
            }
        }
        const bool last = end == steps;
        for (int f = 0; f < F; ++f) {
            for (int half = 0; half < 2; ++half) {
                int32_t* mine = kept[f] + 16 * half;
                if (last) {
                    drain16(sums[f][half], many ? mine : nullptr, row + 16 * half, frame + f, sink);
                } else {
                    keep16(sums[f][half], mine);
                }
            }
        }
        if (last) break;
    }
}

// B blocks of 32 rows by one frame of 4-bit codes, without shifts: with b = 16 high + low,
//   16 (high y + low x) = maddubs(b, y) + maddubs(b & 15, 16 x - y),
// which is exact modulo 2^16 and so for sums of up to 40 columns; those are added up unscaled.
template <int B>
inline void shift_free_tile(const uint8_t* block, int64_t block_bytes, int64_t steps,
                            int64_t segment_steps, const int32_t* mixed, const int16_t* starts,
                            int64_t row, const Sink& sink) {
    const __m256i low_mask = _mm256_set1_epi8(15);
    alignas(32) int32_t kept[B][kRows];
    const bool many = steps > segment_steps;
    if (many) std::memset(kept, 0, sizeof kept);
    for (int64_t begin = 0;; begin += segment_steps) {
        const int64_t end = std::min(steps, begin + segment_steps);
        __m256i sums[B][2];
        for (int b = 0; b < B; ++b) sums[b][0] = sums[b][1] = _mm256_setzero_si256();
        for (int64_t group = begin; group < end; group += kShiftSteps) {
            const int64_t group_end = std::min(end, group + kShiftSteps);
            __m256i part[B][2];
            const __m256i start = _mm256_set1_epi16(starts[group / kShiftSteps]);
            for (int b = 0; b < B; ++b) part[b][0] = part[b][1] = start;
            for (int64_t step = group; step < group_end; ++step) {
                const __m256i y = _mm256_set1_epi32(mixed[2 * step]);
                const __m256i x = _mm256_set1_epi32(mixed[2 * step + 1]);
                for (int b = 0; b < B; ++b) {
                    const uint8_t* at = block + b * block_bytes + step * kStepBytes;
                    _mm_prefetch(reinterpret_cast<const char*>(at + kPrefetchBytes), _MM_HINT_T0);
                    const __m256i* w = reinterpret_cast<const __m256i*>(at);
                    for (int half = 0; half < 2; ++half) {
                        const __m256i v = _mm256_loadu_si256(w + half);
                        part[b][half] =
                            _mm256_add_epi16(part[b][half], _mm256_maddubs_epi16(v, y));
                        part[b][half] = _mm256_add_epi16(
                            part[b][half],
                            _mm256_maddubs_epi16(_mm256_and_si256(v, low_mask), x));
                    }
                }
            }
            for (int b = 0; b < B; ++b) {
                for (int half = 0; half < 2; ++half) {
                    sums[b][half] =
                        _mm256_add_epi16(sums[b][half], _mm256_srai_epi16(part[b][half], 4));
                }
            }
        }
        const bool last = end == steps;
        for (int b = 0; b < B; ++b) {
            for (int half = 0; half < 2; ++half) {
                int32_t* mine = kept[b] + 16 * half;
                if (last) {
                    drain16(sums[b][half], many ? mine : nullptr, row + kRows * b + 16 * half, 0,
                            sink);
                } else {
                    keep16(sums[b][half], mine);
                }
            }
        }
        if (last) break;
    }
}

// One block of 32 rows by F frames of wide weights: both sides widened to 16 bits, vpmaddwd.
template <int F>
inline void wide_tile(const uint8_t* block, int64_t steps, const int32_t* const* pairs, int64_t row,
                      int64_t frame, const Sink& sink) {
    for (int half = 0; half < 2; ++half) {
        __m256i sums[F][2];
        for (int f = 0; f < F; ++f) sums[f][0] = sums[f][1] = _mm256_setzero_si256();
        for (int64_t step = 0; step < steps; ++step) {
            const __m128i* w =
                reinterpret_cast<const __m128i*>(block + step * kStepBytes + 32 * half);
            const __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w));
            const __m256i w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w + 1));
            for (int f = 0; f < F; ++f) {
                const __m256i x = _mm256_set1_epi32(pairs[f][step]);
                sums[f][0] = _mm256_add_epi32(sums[f][0], _mm256_madd_epi16(w0, x));
                sums[f][1] = _mm256_add_epi32(sums[f][1], _mm256_madd_epi16(w1, x));
            }
        }
        for (int f = 0; f < F; ++f) {
            drain_rows(row + 16 * half, sums[f], frame + f, sink);
        }
    }
}

// Steps of a segment whose sums fit 16 bits; a multiple of kShiftSteps for the shift-free form.
int64_t segment_of(const Matrix& matrix, int activation_max, bool shift_free) {
    const int64_t steps = columns_in_16_bits(matrix.weight_max, activation_max) / 4;
    return shift_free ? steps / kShiftSteps * kShiftSteps : steps;
}

void multiply_shift_free(const Matrix& matrix, int64_t begin, int64_t end, const int8_t* x,
                         int activation_max, const Sink& sink, void* scratch) {
    const int64_t steps = kPairs.steps(matrix.columns, false);
    const int64_t block_bytes = steps * kStepBytes;
    int32_t* mixed = static_cast<int32_t*>(scratch);
    const int64_t groups = (steps + kShiftSteps - 1) / kShiftSteps;
    int16_t* starts = reinterpret_cast<int16_t*>(mixed + round_up(2 * steps, 16));
    double_pairs(x, matrix.columns, steps, mixed);
    // (x, y) -> (y, 16 x - y), in place; |16 x - y| <= 17 * 7 fits a byte.
    int64_t step = 0;
    const __m256i byte = _mm256_set1_epi16(255);
    for (; step + 4 <= steps; step += 4) {
        __m256i* at = reinterpret_cast<__m256i*>(mixed + 2 * step);
        const __m256i v = _mm256_loadu_si256(at);
        const __m256i swapped = _mm256_shuffle_epi32(v, 0xB1);
        // Bytes times 16, even and odd ones apart; what a byte cannot hold is cut.
        const __m256i even = _mm256_and_si256(_mm256_slli_epi16(v, 4), byte);
        const __m256i odd = _mm256_slli_epi16(_mm256_andnot_si256(byte, v), 4);
        const __m256i scaled = _mm256_or_si256(even, odd);
        const __m256i x_part = _mm256_shuffle_epi32(_mm256_sub_epi8(scaled, swapped), 0xB1);
        _mm256_storeu_si256(at, _mm256_blend_epi32(swapped, x_part, 0xAA));
    }
    for (; step < steps; ++step) {
        const int8_t* pair = reinterpret_cast<const int8_t*>(mixed + 2 * step);
        const int x0 = pair[0], x1 = pair[1], y0 = pair[4], y1 = pair[5];
        mixed[2 * step] = twice(y0, y1);
        mixed[2 * step + 1] = twice(16 * x0 - y0, 16 * x1 - y1);
    }
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t first = group * kShiftSteps * 4;
        const int64_t last = std::min(matrix.columns, first + kShiftSteps * 4);
        starts[group] = static_cast<int16_t>(-16 * kNarrowOffset * sum_of(x, first, last));
    }
    const int64_t segment = segment_of(matrix, activation_max, true);
    int64_t block = begin;
    for (; block + 2 <= end; block += 2) {
        shift_free_tile<2>(matrix.packed + block * block_bytes, block_bytes, steps, segment, mixed,
                           starts, block * kRows, sink);
    }
    if (block < end) {
        shift_free_tile<1>(matrix.packed + block * block_bytes, block_bytes, steps, segment, mixed,
                           starts, block * kRows, sink);
    }
}

// Frames prepared at once: their activations should stay in the second-level cache.
constexpr int64_t kFramesAtOnce = 32;

template <int F>
inline void tile(const Matrix& matrix, int64_t steps, int64_t segment, int64_t block,
                 const int32_t* const* pairs, const int16_t* starts, int64_t frame,
                 const Sink& sink) {
    const uint8_t* weights = matrix.packed + block * steps * kStepBytes;
    if (matrix.wide) {
        wide_tile<F>(weights, steps, pairs, block * kRows, frame, sink);
    } else {
        narrow_tile<F>(weights, steps, segment, pairs, starts, block * kRows, frame, sink);
    }
}

void multiply_frames(const Matrix& matrix, int64_t begin, int64_t end, const int8_t* const* x,
                     int64_t first_frame, int64_t frames, int activation_max, const Sink& sink,
                     void* scratch) {
    const int64_t steps = kPairs.steps(matrix.columns, matrix.wide);
    const int64_t pairs_per_frame = round_up(matrix.wide ? steps : 2 * steps, 16);
    const int64_t segment = matrix.wide ? steps : segment_of(matrix, activation_max, false);
    const int64_t segments = matrix.wide ? 1 : std::max<int64_t>(1, (steps + segment - 1) / segment);
    int32_t* prepared = static_cast<int32_t*>(scratch);
    // starts[tile][segment][frame of the tile]
    int16_t* starts = reinterpret_cast<int16_t*>(prepared + frames * pairs_per_frame);
    for (int64_t f = 0; f < frames; ++f) {
        int32_t* pairs = prepared + f * pairs_per_frame;
        double_pairs(x[f], matrix.columns, matrix.wide ? (steps + 1) / 2 : steps, pairs);
        if (matrix.wide) {
            // Widened in place, from the end: a pair of bytes becomes a pair of 16-bit numbers.
            for (int64_t step = 0; step < steps; ++step) {
                const int8_t* pair = reinterpret_cast<const int8_t*>(pairs + step);
                const uint32_t low = static_cast<uint16_t>(static_cast<int16_t>(pair[0]));
                const uint32_t high = static_cast<uint16_t>(static_cast<int16_t>(pair[1]));
                pairs[step] = static_cast<int32_t>(low | high << 16);
            }
            continue;
        }
        for (int64_t s = 0; s < segments; ++s) {
            const int64_t first = s * segment * 4;
            const int64_t last = std::min(matrix.columns, first + segment * 4);
            starts[(f / kFrameTile * segments + s) * kFrameTile + f % kFrameTile] =
                static_cast<int16_t>(-kNarrowOffset * sum_of(x[f], first, last));
        }
    }
    for (int64_t block = begin; block < end; ++block) {
        for (int64_t f = 0; f < frames; f += kFrameTile) {
            const int32_t* pairs[kFrameTile];
            for (int64_t i = 0; i < kFrameTile; ++i) pairs[i] = prepared + (f + i) * pairs_per_frame;
            const int16_t* mine = starts + f * segments;
            const int64_t at = first_frame + f;
            switch (std::min(kFrameTile, frames - f)) {
                case 1: tile<1>(matrix, steps, segment, block, pairs, mine, at, sink); break;
                case 2: tile<2>(matrix, steps, segment, block, pairs, mine, at, sink); break;
                case 3: tile<3>(matrix, steps, segment, block, pairs, mine, at, sink); break;
                default: tile<4>(matrix, steps, segment, block, pairs, mine, at, sink);
            }
        }
    }
}

int64_t scratch_bytes(int64_t columns, int64_t frames) {
    frames = std::min(frames, kFramesAtOnce);
    const int64_t pairs = round_up((columns + 3) / 4 * 2 + 2, 16) * 4;
    // A segment has at least 9 steps (7 x 127), so starts take less than the pairs do.
    return round_up(round_up(frames, kFrameTile) * 2 * pairs, 64) + 256;
}

void multiply(const Matrix& matrix, int64_t begin, int64_t end, const int8_t* const* x,
              int64_t frames, int activation_max, const Sink& sink, void* scratch) {
    if (!matrix.wide && activation_max <= 7 && frames == 1) {
        multiply_shift_free(matrix, begin, end, x[0], activation_max, sink, scratch);
        return;
    }
    for (int64_t f = 0; f < frames; f += kFramesAtOnce) {
        multiply_frames(matrix, begin, end, x + f, f, std::min(kFramesAtOnce, frames - f),
                        activation_max, sink, scratch);
    }
}

int64_t packed_bytes(int64_t rows, int64_t columns, bool wide) {
    return kPairs.bytes(rows, columns, wide);
}

void pack(const int8_t* codes, int64_t rows, int64_t columns, bool wide, uint8_t* packed) {
    kPairs.pack(codes, rows, columns, wide, packed);
}

}  // namespace

const Kernels kAvx2Kernels{"avx2",   kRows,    packed_bytes, pack,
                           scratch_bytes, multiply, cell_update,  quantize_row, &kTrainingKernels};

}  // namespace quant4

#endif
