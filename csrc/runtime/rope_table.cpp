#include "runtime/rope_table.h"

#include <algorithm>
#include <cmath>

namespace pelton {

void RopeTable::cover(std::int64_t position) {
    if (position < covered_) return;
    const std::size_t half = spec_.frequencies.size();
    const std::int64_t target = std::max<std::int64_t>({position + 1, 2 * covered_, 256});
    values_.resize(static_cast<std::size_t>(target) * 2 * half);
    for (std::int64_t p = covered_; p < target; ++p) {
        float* row = values_.data() + static_cast<std::size_t>(p) * 2 * half;
        for (std::size_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(p) * spec_.frequencies[i];
            row[i] = static_cast<float>(std::cos(angle) * spec_.magnitude);
            row[half + i] = static_cast<float>(std::sin(angle) * spec_.magnitude);
        }
    }
    covered_ = target;
}

}  // namespace pelton
