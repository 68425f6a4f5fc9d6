// AVX-VNNI: vpdpbusd on 256-bit registers.
#if defined(__x86_64__)

#include <immintrin.h>

#include "multiply_quads.h"
#include "training_steps.h"

#ifndef QUANT4_DPBUSD_256  // a test replaces it where the processor lacks the instruction
#define QUANT4_DPBUSD_256 _mm256_dpbusd_avx_epi32
#endif

namespace quant4 {
namespace {

struct AvxVnni {
    using Vector = __m256i;
    static constexpr int64_t kVectors = 2, kFrames = 4;
    static constexpr int kWideStart = kWideOffset;
    static Vector load(const uint8_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    }
    static Vector low(const uint8_t* p) {
        return _mm256_and_si256(load(p), _mm256_set1_epi8(15));
    }
    static Vector high(const uint8_t* p) {
        return _mm256_and_si256(_mm256_srli_epi16(load(p), 4), _mm256_set1_epi8(15));
    }
    static Vector wide(const uint8_t* p) { return load(p); }
    static Vector broadcast(int32_t x) { return _mm256_set1_epi32(x); }
    static Vector dot(Vector sums, Vector weights, Vector x) {
        return QUANT4_DPBUSD_256(sums, weights, x);
    }
};

}  // namespace

const Kernels kAvxVnniKernels{"avx_vnni",         kQuadRows,
                              quad_packed_bytes,  quad_pack,
                              quad_scratch_bytes, quad_multiply<AvxVnni>,
                              cell_update,        quantize_row, &kTrainingKernels};

}  // namespace quant4

#endif
