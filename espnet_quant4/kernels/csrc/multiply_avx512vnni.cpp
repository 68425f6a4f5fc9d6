// AVX512-VNNI: vpdpbusd on 512-bit registers; a step of a block is one register.
#if defined(__x86_64__)

#include <immintrin.h>

#include "multiply_quads.h"

#ifndef QUANT4_DPBUSD_512  // a test replaces it where the processor lacks the instruction
#define QUANT4_DPBUSD_512 _mm512_dpbusd_epi32
#endif

namespace quant4 {
namespace {

struct Avx512Vnni {
    using Vector = __m512i;
    static constexpr int64_t kVectors = 1;
    static constexpr int kWideStart = kWideOffset;
    static Vector load(const uint8_t* p) { return _mm512_loadu_si512(p); }
    static Vector low(const uint8_t* p) {
        return _mm512_and_si512(load(p), _mm512_set1_epi8(15));
    }
    static Vector high(const uint8_t* p) {
        return _mm512_and_si512(_mm512_srli_epi16(load(p), 4), _mm512_set1_epi8(15));
    }
    static Vector wide(const uint8_t* p) { return load(p); }
    static Vector broadcast(int32_t x) { return _mm512_set1_epi32(x); }
    static Vector dot(Vector sums, Vector weights, Vector x) {
        return QUANT4_DPBUSD_512(sums, weights, x);
    }
    static void store(int32_t* p, Vector v) { _mm512_storeu_si512(p, v); }
};

}  // namespace

const Kernels kAvx512VnniKernels{"avx512_vnni",      kQuadRows,
                                 quad_packed_bytes,  quad_pack,
                                 quad_scratch_bytes, quad_multiply<Avx512Vnni>,
                                 cell_update,        quantize_row};

}  // namespace quant4

#endif
