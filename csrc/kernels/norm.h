// Normalizations of rows or of equal groups of a row.
#pragma once

#include <stdint.h>

namespace pelton {

// `count` groups of `group` neighbouring floats. weight and bias are null or [period, group]: group i uses
// row i % period.
struct NormCall {
    const float* x;
    float* y;
    const float* weight;
    const float* bias;
    int64_t count, group, period;
    float eps;
};

struct NormKernels {
    void (*rms)(const NormCall& call);    // x / sqrt(mean(x^2) + eps) * weight + bias
    void (*layer)(const NormCall& call);  // (x - mean) / sqrt(variance + eps) * weight + bias
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void rms_norm(const NormCall& call);
void layer_norm(const NormCall& call);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
