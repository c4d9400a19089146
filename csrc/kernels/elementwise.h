// Operations that treat every float by itself; arrays of `count` floats. y may be x, a or b.
#pragma once

#include <stdint.h>

namespace pelton {

enum class Activation : uint8_t { kSilu, kGeluTanh, kGeluErf, kRelu };

struct ElementwiseKernels {
    void (*add)(const float* a, const float* b, float* y, int64_t count);
    void (*mul)(const float* a, const float* b, float* y, int64_t count);
    void (*scale)(const float* x, float factor, float* y, int64_t count);
    void (*soft_cap)(const float* x, float cap, float* y, int64_t count);  // cap * tanh(x / cap)
    void (*activate)(Activation kind, const float* x, float* y, int64_t count);
    void (*gate)(Activation kind, const float* x, const float* up, float* y, int64_t count);  // act(x) * up
    // y = x * factor + y
    void (*accumulate)(const float* x, float factor, float* y, int64_t count);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void add_arrays(const float* a, const float* b, float* y, int64_t count);
void mul_arrays(const float* a, const float* b, float* y, int64_t count);
void scale_array(const float* x, float factor, float* y, int64_t count);
void soft_cap_array(const float* x, float cap, float* y, int64_t count);
void activate_array(Activation kind, const float* x, float* y, int64_t count);
void gate_arrays(Activation kind, const float* x, const float* up, float* y, int64_t count);
void accumulate_array(const float* x, float factor, float* y, int64_t count);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
