// NEON with the dot product extension: sdot on 128-bit registers.
#if defined(__aarch64__)

#include <arm_neon.h>

#include "multiply_quads.h"
#include "training_steps.h"

namespace quant4 {
namespace {

struct Neon {
    using Vector = int32x4_t;
    static constexpr int64_t kVectors = 4, kFrames = 4;
    // sdot wants signed bytes: nibbles are, with their offset, and wide weights lose theirs.
    static constexpr int kWideStart = 0;
    static Vector low(const uint8_t* p) {
        return vreinterpretq_s32_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15)));
    }
    static Vector high(const uint8_t* p) { return vreinterpretq_s32_u8(vshrq_n_u8(vld1q_u8(p), 4)); }
    static Vector wide(const uint8_t* p) {
        return vreinterpretq_s32_u8(veorq_u8(vld1q_u8(p), vdupq_n_u8(0x80)));
    }
    static Vector broadcast(int32_t x) { return vdupq_n_s32(x); }
    static Vector dot(Vector sums, Vector weights, Vector x) {
        return vdotq_s32(sums, vreinterpretq_s8_s32(weights), vreinterpretq_s8_s32(x));
    }
};

}  // namespace

const Kernels kNeonKernels{"neon_dot",         kQuadRows,
                           quad_packed_bytes,  quad_pack,
                           quad_scratch_bytes, quad_multiply<Neon>,
                           cell_update,        quantize_row, &kTrainingKernels};

}  // namespace quant4

#endif
