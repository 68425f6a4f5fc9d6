// Included before everything else by the test build: vpdpbusd, a byte at a time, as Intel's manual
// defines it (unsigned by signed bytes, four products added to a 32-bit lane).
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define QUANT4_EMULATED_VNNI

template <class Vector>
static inline Vector emulated_dpbusd(Vector sums, Vector weights, Vector x) {
    int32_t lanes[sizeof(Vector) / 4];
    uint8_t w[sizeof(Vector)];
    int8_t a[sizeof(Vector)];
    memcpy(lanes, &sums, sizeof sums);
    memcpy(w, &weights, sizeof weights);
    memcpy(a, &x, sizeof x);
    for (unsigned i = 0; i < sizeof(Vector); ++i) lanes[i / 4] += w[i] * a[i];
    memcpy(&sums, lanes, sizeof sums);
    return sums;
}

#define QUANT4_DPBUSD_256 emulated_dpbusd
#define QUANT4_DPBUSD_512 emulated_dpbusd
