// Sums of four products in 32-bit lanes ("quads" in layout.h), for instructions that add the dot
// product of four bytes to a lane: VNNI's vpdpbusd, NEON's sdot. They leave nothing to widen: 255 *
// 127 * 65,536 columns is below 2^31.
//
// The including file defines, in an unnamed namespace, a policy:
//   using Vector, of int32 lanes; constexpr int64_t kVectors (of 64 bytes of weights), kFrames (4 or 8,
//   that share one load of weights);
//   Vector zero(), low(p) and high(p): nibbles of weights at p; wide(p); broadcast(int32);
//   Vector dot(sums, weights, x).
#pragma once

#include "elementwise.h"
#include "layout.h"

namespace quant4 {
namespace {

constexpr int64_t kQuadRows = 16;

// Frames are copied and filled up with zeros to whole steps; behind each stands the offset's part.
inline int64_t quad_frame_bytes(int64_t columns) { return round_up(columns, 8) + 64; }

int64_t quad_scratch_bytes(int64_t columns, int64_t frames) {
    return frames * round_up(quad_frame_bytes(columns), 64);
}

template <class P, int F, bool Wide>
inline void quad_tile(const uint8_t* block, int64_t steps, const int8_t* const* x,
                      const int32_t* starts, int64_t row, int64_t frame, const Sink& sink) {
    typename P::Vector sums[F][P::kVectors];
    for (int f = 0; f < F; ++f) {
        for (int v = 0; v < P::kVectors; ++v) sums[f][v] = P::broadcast(starts[f]);
    }
    for (int64_t step = 0; step < steps; ++step) {
        for (int v = 0; v < P::kVectors; ++v) {
            const uint8_t* w = block + step * kStepBytes + v * (kStepBytes / P::kVectors);
            for (int f = 0; f < F; ++f) {
                int32_t quad[2];
                std::memcpy(quad, x[f] + step * (Wide ? 4 : 8), Wide ? 4 : 8);
                if (Wide) {
                    sums[f][v] = P::dot(sums[f][v], P::wide(w), P::broadcast(quad[0]));
                } else {
                    sums[f][v] = P::dot(sums[f][v], P::low(w), P::broadcast(quad[0]));
                    sums[f][v] = P::dot(sums[f][v], P::high(w), P::broadcast(quad[1]));
                }
            }
        }
    }
    for (int f = 0; f < F; ++f) drain_rows(row, sums[f], frame + f, sink);
}

template <class P, bool Wide>
void quad_multiply_frames(const Matrix& matrix, int64_t begin, int64_t end,
                          const int8_t* const* x, int64_t frames, const Sink& sink,
                          int8_t* scratch) {
    const int64_t steps = kQuads.steps(matrix.columns, Wide);
    const int64_t stride = round_up(quad_frame_bytes(matrix.columns), 64);
    const int64_t filled = round_up(matrix.columns, 8);
    for (int64_t f = 0; f < frames; ++f) {
        int8_t* copy = scratch + f * stride;
        std::memset(copy + matrix.columns, 0, static_cast<size_t>(filled - matrix.columns));
        // Of no columns there need not be a pointer.
        if (matrix.columns > 0) std::memcpy(copy, x[f], static_cast<size_t>(matrix.columns));
        int32_t sum = 0;
        for (int64_t i = 0; i < matrix.columns; ++i) sum += x[f][i];
        sum *= -(Wide ? P::kWideStart : kNarrowOffset);
        std::memcpy(copy + filled, &sum, sizeof sum);
    }
    for (int64_t block = begin; block < end; ++block) {
        const uint8_t* weights = matrix.packed + block * steps * kStepBytes;
        const int64_t row = block * kQuadRows;
        for (int64_t f = 0; f < frames; f += P::kFrames) {
            const int8_t* tile[P::kFrames];
            int32_t starts[P::kFrames];
            const int64_t here = std::min(P::kFrames, frames - f);
            for (int64_t i = 0; i < here; ++i) {
                tile[i] = scratch + (f + i) * stride;
                std::memcpy(starts + i, tile[i] + filled, sizeof(int32_t));
            }
#define QUANT4_TILE(F) \
    case F: quad_tile<P, std::min<int>(F, P::kFrames), Wide>(weights, steps, tile, starts, row, f, sink); break;
            switch (here) {
                QUANT4_TILE(1)
                QUANT4_TILE(2)
                QUANT4_TILE(3)
                QUANT4_TILE(4)
                QUANT4_TILE(5)
                QUANT4_TILE(6)
                QUANT4_TILE(7)
                QUANT4_TILE(8)
            }
#undef QUANT4_TILE
        }
    }
}

template <class P>
void quad_multiply(const Matrix& matrix, int64_t begin, int64_t end, const int8_t* const* x,
                   int64_t frames, int, const Sink& sink, void* scratch) {
    auto* copies = static_cast<int8_t*>(scratch);
    if (matrix.wide) {
        quad_multiply_frames<P, true>(matrix, begin, end, x, frames, sink, copies);
    } else {
        quad_multiply_frames<P, false>(matrix, begin, end, x, frames, sink, copies);
    }
}

int64_t quad_packed_bytes(int64_t rows, int64_t columns, bool wide) {
    return kQuads.bytes(rows, columns, wide);
}

void quad_pack(const int8_t* codes, int64_t rows, int64_t columns, bool wide, uint8_t* packed) {
    kQuads.pack(codes, rows, columns, wide, packed);
}

}  // namespace
}  // namespace quant4
