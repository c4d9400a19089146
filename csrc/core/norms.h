// Lengths of vectors of float32, summed in float64.
#pragma once

#include <cmath>
#include <cstdint>

namespace pelton {

inline double distance(const float* x, const float* y, std::int64_t count) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        const double d = static_cast<double>(x[i]) - y[i];
        sum += d * d;
    }
    return std::sqrt(sum);
}

inline double norm(const float* x, std::int64_t count) {
    double sum = 0;
    for (std::int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * x[i];
    return std::sqrt(sum);
}

}  // namespace pelton
