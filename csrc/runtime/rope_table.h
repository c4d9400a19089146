// cos and sin of rotary angles per position, computed in float64 and kept as float32, for the stretches of
// positions that were asked for.
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
    // Makes these positions (0 or more) available; not while other threads read. A stretch takes about half a
    // millisecond for heads of 64, so a sequence that grows, or one whose prefix was restored, never waits
    // long for a table.
    void cover(const std::int32_t* positions, std::int64_t count);
    // Of a position that is available: cos [half] then sin [half], times the magnitude.
    const float* at(std::int64_t position) const noexcept {
        return stretches_[static_cast<std::size_t>(position / kStretch)].data() +
               position % kStretch * 2 * static_cast<std::int64_t>(spec_.frequencies.size());
    }

  private:
    static constexpr std::int64_t kStretch = 256;  // positions
    std::vector<float> stretch(std::int64_t first) const;

    RopeSpec spec_;
    std::vector<std::vector<float>> stretches_;  // [256, 2, half], or empty
};

}  // namespace pelton
