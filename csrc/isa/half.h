// float16 in integer arithmetic: exact widening, narrowing to nearest even. For the generic level and for
// code that is compiled once (there in namespace pelton).
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(PELTON_ISA)
namespace pelton::PELTON_ISA {
#else
namespace pelton {
#endif

inline float float_of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t bits_of_float(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

inline float widen_f16(uint16_t half) {
    const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u) {  // infinity, or NaN made quiet as the hardware does
        const uint32_t payload = (magnitude & 0x3ffu) << 13;
        return float_of_bits(sign | 0x7f800000u | payload | (payload ? 0x400000u : 0u));
    }
    // Multiplying by 2^112 moves the exponent bias and makes denormals right in one step.
    return float_of_bits(sign | bits_of_float(float_of_bits(magnitude << 13) * float_of_bits(0x77800000u)));
}

inline uint16_t narrow_f16(float x) {
    const uint32_t all = bits_of_float(x), sign = (all >> 16) & 0x8000u, magnitude = all & 0x7fffffffu;
    uint32_t half;
    if (magnitude > 0x7f800000u) {
        half = 0x7e00u | ((magnitude >> 13) & 0x3ffu);
    } else if (magnitude >= 0x477ff000u) {  // from 65520 up: rounds to infinity
        half = 0x7c00u;
    } else if (magnitude < 0x38800000u) {  // denormal: adding 0.5 makes the float adder round at 2^-24
        half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    }
    return static_cast<uint16_t>(sign | half);
}

inline float widen_bf16(uint16_t x) { return float_of_bits(static_cast<uint32_t>(x) << 16); }

}  // namespace pelton
