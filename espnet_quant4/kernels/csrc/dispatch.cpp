// Which instruction sets there are, and which of them this processor has.
#include <stdexcept>

#include "linear.h"
#include "quant4.h"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace quant4 {
namespace {

struct InstructionSet {
    const Kernels* kernels;
    bool (*works)();
};

bool always() { return true; }

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#if defined(QUANT4_EMULATED_VNNI)
// A test build: the instruction that this processor may lack is computed byte by byte.
bool has_avx_vnni() { return has_avx2(); }
bool has_avx512_vnni() { return has_avx2(); }
#else
// GCC 11 knows no name for this one: leaf 7, subleaf 1, bit 4 of eax.
[[maybe_unused]] bool has_avx_vnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1);
}
[[maybe_unused]] bool has_avx512_vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}
#endif

// What the compiler was too old for was left out by the build (build.py).
const InstructionSet kInstructionSets[] = {
#ifndef QUANT4_WITHOUT_AVX512_VNNI
    {&kAvx512VnniKernels, has_avx512_vnni},
#endif
#ifndef QUANT4_WITHOUT_AVX_VNNI
    {&kAvxVnniKernels, has_avx_vnni},
#endif
    {&kAvx2Kernels, has_avx2},
    {&kGenericKernels, always},
};
#elif defined(__aarch64__)
bool has_dot() {
#if defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0;  // HWCAP_ASIMDDP
#else
    return true;  // all of Apple's processors for macOS have it
#endif
}
const InstructionSet kInstructionSets[] = {
    {&kNeonKernels, has_dot},
    {&kGenericKernels, always},
};
#else
const InstructionSet kInstructionSets[] = {{&kGenericKernels, always}};
#endif

constexpr int64_t kCount = sizeof kInstructionSets / sizeof *kInstructionSets;

}  // namespace

const Kernels& kernels_of(int64_t instruction_set) {
    if (instruction_set < 0 || instruction_set >= kCount) {
        throw std::out_of_range("instruction set");
    }
    return *kInstructionSets[instruction_set].kernels;
}

}  // namespace quant4

using namespace quant4;

extern "C" int64_t quant4_interface_version(void) { return 3; }

extern "C" int64_t quant4_instruction_set_count(void) { return kCount; }

extern "C" const char* quant4_instruction_set_name(int64_t index) {
    return index < 0 || index >= kCount ? nullptr : kInstructionSets[index].kernels->name;
}

extern "C" int quant4_instruction_set_works(int64_t index) {
    return index >= 0 && index < kCount && kInstructionSets[index].works();
}

extern "C" int quant4_quantize(int64_t instruction_set, const float* x, int64_t count, float clip,
                               int64_t max_code, int8_t* codes) try {
    if (count < 0 || !(clip > 0) || max_code < 1 || max_code > 127) return QUANT4_INVALID;
    const Kernels& kernels = kernels_of(instruction_set);
    return kernels.quantize(x, count, clip, static_cast<int>(max_code), codes)
               ? QUANT4_OK
               : QUANT4_NOT_A_NUMBER;
} catch (const std::out_of_range&) {
    return QUANT4_INVALID;
}
