// Where the greatest of a row of logits is, found piece by piece, so that nobody has to store the row.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/sample.h"

namespace pelton {

class Greatest {
  public:
    // Pieces of the row in any order; `first` is the place of x[0].
    void look(const SampleKernels& kernels, const float* x, std::int64_t count, std::int64_t first) {
        if (!kernels.exceeds(x, count, below_)) return;
        const std::int64_t best = kernels.most_likely(x, count);
        if (best < 0)
            has_nan_ = true;
        else
            take(x[best], first + best);
    }
    // What another found in other pieces of the row.
    void join(const Greatest& other) {
        has_nan_ = has_nan_ || other.has_nan_;
        if (other.place_ >= 0) take(other.value_, other.place_);
    }
    // The first of the greatest; -1 if one is NaN or none is above -infinity.
    std::int32_t token() const { return has_nan_ ? -1 : static_cast<std::int32_t>(place_); }

  private:
    void take(float value, std::int64_t place) {
        if (value < value_ || (value == value_ && place > place_ && place_ >= 0)) return;
        value_ = value;
        below_ = std::nextafter(value, -std::numeric_limits<float>::infinity());
        place_ = place;
    }

    float value_ = -std::numeric_limits<float>::infinity(), below_ = value_;  // the next number below it
    std::int64_t place_ = -1;
    bool has_nan_ = false;
};

}  // namespace pelton
