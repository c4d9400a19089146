// cos and sin of rotary angles per position, computed in float64 and kept as float32; grown when needed.
#pragma once

#include <cstdint>
#include <vector>

namespace pelton {

struct RopeSpec {
    std::int64_t head_dim;
    std::vector<double> frequencies;  // of pair i; at most head_dim / 2
    double magnitude;
    bool interleaved;
    bool operator==(const RopeSpec&) const = default;
};

class RopeTable {
  public:
    explicit RopeTable(RopeSpec spec) : spec_(std::move(spec)) {}

    const RopeSpec& spec() const noexcept { return spec_; }
    // Makes positions up to `position` available; not while other threads read.
    void cover(std::int64_t position);
    // cos [half] then sin [half], times the magnitude.
    const float* at(std::int64_t position) const noexcept {
        return values_.data() + position * 2 * static_cast<std::int64_t>(spec_.frequencies.size());
    }

  private:
    RopeSpec spec_;
    std::vector<float> values_;
    std::int64_t covered_ = 0;
};

}  // namespace pelton
