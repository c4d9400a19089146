#include "runtime/rope_table.h"

#include <cmath>

namespace pelton {

void RopeTable::cover(const std::int32_t* positions, std::int64_t count) {
    std::int64_t before = -1;
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t number = positions[i] / kStretch;
        if (number == before) continue;
        before = number;
        const std::size_t place = static_cast<std::size_t>(number);
        if (place >= stretches_.size()) stretches_.resize(place + 1);
        if (stretches_[place].empty()) stretches_[place] = stretch(number * kStretch);
    }
}

std::vector<float> RopeTable::stretch(std::int64_t first) const {
    const std::size_t half = spec_.frequencies.size();
    std::vector<float> values(static_cast<std::size_t>(kStretch) * 2 * half);
    for (std::int64_t p = 0; p < kStretch; ++p) {
        float* row = values.data() + static_cast<std::size_t>(p) * 2 * half;
        for (std::size_t i = 0; i < half; ++i) {
            const double angle = static_cast<double>(first + p) * spec_.frequencies[i];
            row[i] = static_cast<float>(std::cos(angle) * spec_.magnitude);
            row[half + i] = static_cast<float>(std::sin(angle) * spec_.magnitude);
        }
    }
    return values;
}

}  // namespace pelton
