// AVX512-VNNI: vpdpbusd on 512-bit registers; a step of a block is one register. Everything but that
// instruction is in vector extensions, so that a test can run it on any processor.
#if defined(__x86_64__)

#include <immintrin.h>

#include "multiply_quads.h"
#include "training_steps.h"

#ifndef QUANT4_DPBUSD_512  // a test replaces it where the processor lacks the instruction
#define QUANT4_DPBUSD_512(sums, weights, x) \
    reinterpret_cast<Words>(_mm512_dpbusd_epi32( \
        reinterpret_cast<__m512i>(sums), reinterpret_cast<__m512i>(weights), \
        reinterpret_cast<__m512i>(x)))
#endif

namespace quant4 {
namespace {

typedef int32_t Words __attribute__((vector_size(64)));
typedef uint8_t Octets __attribute__((vector_size(64)));

struct Avx512Vnni {
    using Vector = Words;
    static constexpr int64_t kVectors = 1, kFrames = 8;
    static constexpr int kWideStart = kWideOffset;
    static Octets load(const uint8_t* p) {
        Octets v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static Vector low(const uint8_t* p) { return reinterpret_cast<Vector>(load(p) & 15); }
    static Vector high(const uint8_t* p) { return reinterpret_cast<Vector>(load(p) >> 4); }
    static Vector wide(const uint8_t* p) { return reinterpret_cast<Vector>(load(p)); }
    static Vector broadcast(int32_t x) { return x - Vector{}; }
    static Vector dot(const Vector& sums, const Vector& weights, const Vector& x) {
        return QUANT4_DPBUSD_512(sums, weights, x);
    }
};

}  // namespace

const Kernels kAvx512VnniKernels{"avx512_vnni",      kQuadRows,
                                 quad_packed_bytes,  quad_pack,
                                 quad_scratch_bytes, quad_multiply<Avx512Vnni>,
                                 cell_update,        quantize_row, &kTrainingKernels};

}  // namespace quant4

#endif
