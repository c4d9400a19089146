// A coarse copy of an output head that tells which few outputs may hold a row's largest product.
//
// With W the head [V, K], A its copy in 4 bits, E = W - A and U [K, 32] orthonormal directions in which
// inputs are long, the copy also holds C = E U, rounded to C'. Of an input x = U y + x' an output's product
// is then
//     w.x = a.x + c'.y + (c - c').y + e.x',   |(c - c').y + e.x'| <= |c - c'| |y| + |e - U c| |x'|
// by Cauchy and Schwarz. The first two terms are one product with [A | C'] and [x | y]: half of the bytes of
// 8-bit weights. Whatever stays below the largest exact product found so far by more than its bound cannot be
// the largest. The directions come from the first inputs seen; what they are changes how many outputs
// remain, never which one is found.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "core/packed_weight.h"
#include "core/thread_pool.h"

namespace pelton {

constexpr int kScreenDirections = 32;  // one more block of inputs
constexpr int kScreenSamples = 128;    // inputs that the directions are found from

class HeadScreen {
  public:
    // Throws Error unless the head has a multiple of 32 inputs.
    explicit HeadScreen(std::shared_ptr<const PackedWeight> head);

    const PackedWeight& head() const noexcept { return *head_; }

    // Inputs [K], until there are kScreenSamples; one thread at a time.
    void add_sample(const float* x);
    std::int64_t num_samples() const noexcept { return num_samples_; }
    const std::vector<float>& samples() const noexcept { return samples_; }  // [num_samples, K]

    // U^T [32, K], rows orthonormal to within float32, from which building begins.
    void set_directions(const float* directions, ThreadPool& pool);
    bool has_directions() const noexcept { return directions_ != nullptr; }
    // Copies the next rows, that many; true when there are none left.
    bool build(std::int64_t num_rows, ThreadPool& pool);
    // Built, of finite weights, and not found to be useless.
    bool ready() const noexcept { return ready_ && resting_ == 0; }
    void switch_on(bool on) noexcept { on_ = on; }
    bool is_on() const noexcept { return on_; }

    const PackedWeight& directions() const noexcept { return *directions_; }  // float32 [32, K]
    const PackedWeight& copy() const noexcept { return *copy_; }              // [A | C']
    // |e - U c| of every output, and room for a whole panel.
    const float* residuals() const noexcept { return residuals_.data(); }
    // Largest of all outputs: |w|, |[a | c']|, |c - c'|, |c'|.
    struct Norms {
        double head = 0, copy = 0, rounding = 0, correction = 0;
        void cover(const Norms& other);
    };
    const Norms& largest() const noexcept { return largest_; }
    std::size_t num_bytes() const noexcept;

    // What a pass found: panels that had to be multiplied exactly, of all. Where most have, copying is not
    // worth it for a while.
    void report(std::int64_t panels, std::int64_t of);
    double share() const noexcept { return share_; }

  private:
    struct Scratch;
    Norms copy_row(std::int64_t row, Scratch& scratch, std::uint8_t* codes, float* scales);

    std::shared_ptr<const PackedWeight> head_;
    std::vector<float> samples_;
    std::int64_t num_samples_ = 0, built_ = 0;
    std::vector<float> transposed_;  // U [K, 32]
    std::unique_ptr<PackedWeight> directions_, copy_;
    std::vector<float> residuals_;
    Norms largest_;
    bool ready_ = false, on_ = true;
    double share_ = 0;  // of panels, a running mean
    std::int64_t resting_ = 0;
};

}  // namespace pelton
