#include "runtime/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/errors.h"
#include "core/standard_floats.h"
#include "isa/half.h"

namespace pelton {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLeastNumber = std::numeric_limits<float>::lowest();
// Weights are 2^40 e^(t - peak), rounded: 30 below the peak they are 0.
constexpr double kPeakWeight = 1099511627776.0;
constexpr float kReach = 30.0f;
// Tokens are sorted into buckets an eighth wide by how far they are below the peak.
constexpr int kBuckets = 256;

// Orders by value, the largest first, then by id: the bits of a float, flipped where it is negative, order as
// the number does. Adding zero makes -0 equal to 0.
std::uint64_t key_of(float value, std::int64_t id) {
    const std::uint32_t bits = bits_of_float(value + 0.0f);
    const std::uint32_t ascending = bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
    return std::uint64_t{~ascending} << 32 | static_cast<std::uint64_t>(id);
}

float value_of(std::uint64_t key) {
    const std::uint32_t ascending = ~static_cast<std::uint32_t>(key >> 32);
    return float_of_bits(ascending >> 31 != 0 ? ascending & 0x7fffffffu : ~ascending);
}

// A larger value never has a larger bucket. An infinite peak has bucket 0 for itself.
int bucket_of(float value, float peak) {
    if (value == peak) return 0;
    const float eighths = (peak - value) * 8.0f;
    return eighths < static_cast<float>(kBuckets - 1) ? static_cast<int>(eighths) : kBuckets - 1;
}

std::int64_t mass_of(double top_p, std::int64_t total) {
    return std::min(static_cast<std::int64_t>(std::ceil(top_p * static_cast<double>(total))), total);
}

std::int64_t target_of(double random, std::int64_t total) {
    return std::min(static_cast<std::int64_t>(random * static_cast<double>(total)), total - 1);
}

// All tokens below this together weigh less than what a mass of `need` leaves out, so the tokens that hold
// the mass reach it. Rounded down; only speed hangs on how near it is.
float least_that_matters(float peak, std::int64_t total, std::int64_t need, std::int64_t width) {
    const double spare = static_cast<double>(total - need) / static_cast<double>(width);
    if (spare < 100.0) return peak - kReach;
    const double least = double{peak} + std::log(spare / kPeakWeight) - 0.01;
    return std::nextafter(static_cast<float>(least), -kInfinity);
}

void check(const RowChoice& choice, const LogitRows& logits) {
    require(choice.row >= 0 && choice.row < logits.count, "there is no such row of logits");
    require(choice.temperature >= 0.0f && choice.temperature <= 3e38f, "a temperature is 0 or more");
    require(choice.log_min_p <= 0.0 && choice.top_k >= 0 && choice.top_p > 0.0 && choice.top_p <= 1.0,
            "min_p, top_k or top_p is out of range");
    require(choice.random >= 0.0 && choice.random < 1.0, "a random number is from 0 to below 1");
}

}  // namespace

// Partitions around the fewest candidates, smallest keys first, that weigh `need` (1 .. the sum of all);
// returns their number. The last of them stands at its end.
std::int64_t RowSampler::fewest_with(Candidates& candidates, std::int64_t need) {
    std::int64_t low = 0, high = static_cast<std::int64_t>(candidates.size());
    while (high - low > 1) {
        const std::int64_t middle = low + (high - low) / 2;
        const auto at = candidates.begin();
        std::nth_element(at + low, at + middle, at + high);
        std::int64_t sum = 0;
        for (auto candidate = at + low; candidate != at + middle; ++candidate) sum += candidate->weight;
        if (sum >= need) {
            high = middle;
        } else {
            need -= sum;
            low = middle;
        }
    }
    return high;
}

RowSampler::RowSampler(std::shared_ptr<ThreadPool> pool, const KernelTable& kernels)
    : pool_(std::move(pool)),
      kernels_(&kernels.sample),
      scratch_(static_cast<std::size_t>(pool_->num_threads())) {}

void RowSampler::choose(const LogitRows& logits, std::vector<RowChoice>& choices) {
    require(logits.width < std::int64_t{1} << 22, "a vocabulary has less than 2^22 tokens");
    for (const RowChoice& choice : choices) check(choice, logits);
    const auto choose_one = [&](RowChoice& choice, int thread) {
        choice.token = choose_row(logits.data + choice.row * logits.width, logits.width, choice,
                                  scratch_[static_cast<std::size_t>(thread)]);
    };
    std::lock_guard<std::mutex> one_at_a_time(mutex_);
    if (choices.size() == 1) {
        const StandardFloats floats;
        return choose_one(choices.front(), 0);
    }
    const std::size_t threads = static_cast<std::size_t>(pool_->num_threads());
    pool_->run([&](int thread) {
        for (std::size_t i = static_cast<std::size_t>(thread); i < choices.size(); i += threads)
            choose_one(choices[i], thread);
    });
}

std::int32_t RowSampler::choose_row(const float* logits, std::int64_t width, const RowChoice& choice,
                                    Scratch& scratch) const {
    const std::int64_t best = kernels_->most_likely(logits, width);
    if (best < 0 || choice.temperature == 0.0f) return static_cast<std::int32_t>(best);
    Row row{logits, width, choice.temperature, kLeastNumber, logits[best] / choice.temperature};
    if (row.peak == -kInfinity) return -1;  // dividing made it of all
    if (choice.log_min_p > -kInfinity)
        row.lowest = std::max(row.lowest, static_cast<float>(double{row.peak} + choice.log_min_p));
    Candidates& kept = scratch.kept;
    std::int64_t total;
    const bool ranked = choice.top_k > 0 && choice.top_k < width;
    if (ranked) {
        collect_top(row, choice.top_k, kept);
        total = weigh(row, kept);
    } else if (choice.top_p >= 1.0) {
        return draw_from_all(row, choice.random, scratch);
    } else {
        total = sum_blocks(row, scratch);
        const std::int64_t need = mass_of(choice.top_p, total);
        row.lowest = std::max(row.lowest, least_that_matters(row.peak, total, need, width));
        collect_reaching(row, kept);
        weigh(row, kept);
    }
    if (choice.top_p < 1.0) total = keep_mass(row, mass_of(choice.top_p, total), scratch);
    return ranked ? draw_unordered(kept, target_of(choice.random, total))
                  : draw_in_order(kept, target_of(choice.random, total));
}

std::int32_t RowSampler::draw_unordered(Candidates& kept, std::int64_t target) {
    for (Candidate& candidate : kept) candidate.key &= 0xffffffffu;  // a draw goes by id
    return kept[static_cast<std::size_t>(fewest_with(kept, target + 1) - 1)].id();
}

std::int32_t RowSampler::draw_in_order(const Candidates& kept, std::int64_t target) {
    std::size_t place = 0;
    while (target >= kept[place].weight) target -= kept[place++].weight;
    return kept[place].id();
}

std::int64_t RowSampler::sum_blocks(const Row& row, Scratch& scratch) const {
    float t[kSampleBlock];
    std::int64_t total = 0;
    scratch.block_sums.clear();
    for (std::int64_t start = 0; start < row.width; start += kSampleBlock) {
        const std::int64_t count = std::min<std::int64_t>(kSampleBlock, row.width - start);
        kernels_->scale(row.logits + start, count, row.temperature, row.lowest, t);
        scratch.block_sums.push_back(kernels_->weigh(t, count, row.peak, nullptr));
        total += scratch.block_sums.back();
    }
    return total;
}

std::int32_t RowSampler::draw_from_all(const Row& row, double random, Scratch& scratch) const {
    std::int64_t left = target_of(random, sum_blocks(row, scratch));
    std::size_t block = 0;
    while (left >= scratch.block_sums[block]) left -= scratch.block_sums[block++];
    const std::int64_t start = static_cast<std::int64_t>(block) * kSampleBlock;
    const std::int64_t count = std::min<std::int64_t>(kSampleBlock, row.width - start);
    float t[kSampleBlock];
    std::int64_t weights[kSampleBlock];
    kernels_->scale(row.logits + start, count, row.temperature, row.lowest, t);
    kernels_->weigh(t, count, row.peak, weights);
    std::int64_t place = 0;
    while (left >= weights[place]) left -= weights[place++];
    return static_cast<std::int32_t>(start + place);
}

// The tokens of a block that reach the row's lowest, in order of their ids.
void RowSampler::append_reaching(const Row& row, std::int64_t start, Candidates& found) const {
    float values[kSampleBlock];
    std::int32_t places[kSampleBlock];
    const std::int64_t size = std::min<std::int64_t>(kSampleBlock, row.width - start);
    const std::int64_t count =
        kernels_->reaching(row.logits + start, size, row.temperature, row.lowest, values, places);
    for (std::int64_t i = 0; i < count; ++i) found.push_back({key_of(values[i], start + places[i]), 0});
}

void RowSampler::collect_reaching(const Row& row, Candidates& found) const {
    found.clear();
    for (std::int64_t start = 0; start < row.width; start += kSampleBlock) append_reaching(row, start, found);
}

// The `count` largest tokens, in no order. What cannot be among them any more is passed over: it has to beat
// the least of those found so far, since an equal one has a higher id.
void RowSampler::collect_top(Row row, std::int64_t count, Candidates& found) const {
    const std::size_t wanted = static_cast<std::size_t>(count);
    const auto shrink = [&] {
        if (found.size() <= wanted) return;
        std::nth_element(found.begin(), found.begin() + count - 1, found.end());
        found.resize(wanted);
        row.lowest = std::nextafter(value_of(found.back().key), kInfinity);
    };
    found.clear();
    for (std::int64_t start = 0; start < row.width; start += kSampleBlock) {
        append_reaching(row, start, found);
        if (found.size() >= 2 * wanted + 64) shrink();
    }
    shrink();
}

std::int64_t RowSampler::weigh(const Row& row, Candidates& found) const {
    float t[kSampleBlock];
    std::int64_t weights[kSampleBlock], total = 0;
    for (std::size_t start = 0; start < found.size(); start += kSampleBlock) {
        const std::size_t count = std::min<std::size_t>(kSampleBlock, found.size() - start);
        for (std::size_t i = 0; i < count; ++i) t[i] = value_of(found[start + i].key);
        total += kernels_->weigh(t, static_cast<std::int64_t>(count), row.peak, weights);
        for (std::size_t i = 0; i < count; ++i) found[start + i].weight = weights[i];
    }
    return total;
}

// Keeps the fewest tokens, largest first, that weigh `need`, without changing their order; returns what they
// weigh. Only tokens of one bucket are compared with each other.
std::int64_t RowSampler::keep_mass(const Row& row, std::int64_t need, Scratch& scratch) {
    std::int64_t sums[kBuckets] = {};
    for (const Candidate& candidate : scratch.kept)
        sums[bucket_of(value_of(candidate.key), row.peak)] += candidate.weight;
    int bucket = 0;
    while (need > sums[bucket]) need -= sums[bucket++];
    scratch.bucket.clear();
    for (const Candidate& candidate : scratch.kept)
        if (bucket_of(value_of(candidate.key), row.peak) == bucket) scratch.bucket.push_back(candidate);
    const std::uint64_t last =
        scratch.bucket[static_cast<std::size_t>(fewest_with(scratch.bucket, need) - 1)].key;
    std::erase_if(scratch.kept, [&](const Candidate& candidate) { return candidate.key > last; });
    std::int64_t total = 0;
    for (const Candidate& candidate : scratch.kept) total += candidate.weight;
    return total;
}

}  // namespace pelton
