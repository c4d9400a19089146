#include "kernels/sample.h"

#include "isa/simd.h"

namespace pelton::PELTON_ISA {

namespace {

constexpr float kNothing = -__builtin_inff();

PELTON_INLINE f32x16 load_padded(const float* p, int64_t count) {
    if (count >= 16) return load(p);
    const int left = static_cast<int>(count);
    return select(first_lanes(left), load_first(p, left), set1(kNothing));
}

// Largest of a block; its bits without sign go into `magnitudes`, where a NaN is larger than all numbers.
PELTON_INLINE float block_peak(const float* x, int64_t count, i32x16& magnitudes) {
    f32x16 largest = set1(kNothing);
    for (int64_t i = 0; i < count; i += 16) {
        const f32x16 v = load_padded(x + i, count - i);
        largest = max(largest, v);
        magnitudes = max(magnitudes, as_i32(v) & set1_i32(0x7fffffff));
    }
    return reduce_max(largest);
}

// e^x for -30 <= x <= 0 within 2 units in the last place; no fma, so that NumPy can say the same.
PELTON_INLINE f32x16 power_of_e(f32x16 x) {
    const f32x16 n = round_even(x * set1(1.44269504f));
    const f32x16 r = (x - n * set1(0.693359375f)) + n * set1(2.12194440e-4f);
    f32x16 p = set1(0.001381454f);
    p = p * r + set1(0.008368745f);
    p = p * r + set1(0.04166839f);
    p = p * r + set1(0.16666521f);
    p = p * r + set1(0.49999994f);
    p = (p * (r * r) + r) + set1(1.0f);
    return p * power_of_two(to_i32(n));
}

// round(2^40 * w) as 2^20 * high + low, each within int32: w has 24 bits, so nothing is rounded but low.
struct Weight {
    i32x16 high, low;
};

PELTON_INLINE Weight weight_of(f32x16 w) {
    const i32x16 high = to_i32(w * set1(1048576.0f));
    const f32x16 rest = w - to_f32(high) * set1(1.0f / 1048576.0f);
    return {high, to_i32(rest * set1(1099511627776.0f))};
}

PELTON_INLINE int64_t joined(int32_t high, int32_t low) { return high * (int64_t{1} << 20) + low; }

}  // namespace

int64_t most_likely(const float* x, int64_t count) {
    i32x16 magnitudes = set1_i32(0);
    float peak = kNothing;
    int64_t at = -1;
    for (int64_t start = 0; start < count; start += kSampleBlock) {
        const float largest =
            block_peak(x + start, count - start < kSampleBlock ? count - start : kSampleBlock, magnitudes);
        if (largest > peak) {
            peak = largest;
            at = start;
        }
    }
    if (reduce_max(magnitudes) > 0x7f800000 || at < 0) return -1;
    while (x[at] != peak) ++at;
    return at;
}

// A sum is NaN where one of its terms is, or where infinities meet.
bool exceeds(const float* x, int64_t count, float least) {
    f32x16 largest = set1(kNothing), sum = set1(0.0f);
    for (int64_t i = 0; i < count; i += 16) {
        const int left = count - i < 16 ? static_cast<int>(count - i) : 16;
        largest = max(largest, load_padded(x + i, count - i));
        sum += load_first(x + i, left);
    }
    const f32x16 none = set1(0.0f), some = set1(1.0f), infinity = set1(-kNothing);
    const f32x16 above = select(less(set1(least), largest), some, none);
    return any(less(none, max(above, select(less(sum, infinity), none, some))));
}

float scale_logits(const float* x, int64_t count, float temperature, float lowest, float* t) {
    f32x16 largest = set1(kNothing);
    for (int64_t i = 0; i < count; i += 16) {
        f32x16 v = load_padded(x + i, count - i);
        if (temperature != 1.0f) v = v / set1(temperature);
        v = select(less(v, set1(lowest)), set1(kNothing), v);
        largest = max(largest, v);
        count - i < 16 ? store_first(t + i, static_cast<int>(count - i), v) : store(t + i, v);
    }
    return reduce_max(largest);
}

int64_t logits_reaching(const float* x, int64_t count, float temperature, float lowest, float* values,
                        int32_t* places) {
    constexpr int64_t kGroup = 64;  // looked at together: most hold none
    float t[kGroup];
    int64_t found = 0;
    for (int64_t start = 0; start < count; start += kGroup) {
        const int64_t size = count - start < kGroup ? count - start : kGroup;
        if (!(scale_logits(x + start, size, temperature, kNothing, t) >= lowest)) continue;
        for (int64_t i = 0; i < size; ++i) {  // without branches, which nobody could predict
            values[found] = t[i];
            places[found] = static_cast<int32_t>(start + i);
            found += t[i] >= lowest;
        }
    }
    return found;
}

PELTON_INLINE void store_joined(int64_t* weights, Weight weight) {
    int32_t high[16], low[16];
    store_i32(high, weight.high);
    store_i32(low, weight.low);
    for (int lane = 0; lane < 16; ++lane) weights[lane] = joined(high[lane], low[lane]);
}

int64_t weigh_logits(const float* t, int64_t count, float peak, int64_t* weights) {
    constexpr float kLargest = 3.4028234e38f, kLowest = -30.0f;  // 2^40 * e^-30 rounds to 0
    Weight sum{set1_i32(0), set1_i32(0)};
    for (int64_t i = 0; i < count; i += 16) {
        const f32x16 v = load_padded(t + i, count - i);
        const f32x16 w = peak > kLargest ? select(less(set1(kLargest), v), set1(1.0f), set1(0.0f))
                                         : power_of_e(max(v - set1(peak), set1(kLowest)));
        const Weight weight = weight_of(w);
        sum = {sum.high + weight.high, sum.low + weight.low};
        if (weights == nullptr) continue;
        if (count - i >= 16) {
            store_joined(weights + i, weight);
        } else {
            int64_t last[16];
            store_joined(last, weight);
            memcpy(weights + i, last, static_cast<size_t>(count - i) * sizeof(int64_t));
        }
    }
    // A lane adds 16 numbers up to 2^20, 16 lanes stay below 2^31.
    return joined(reduce_add(sum.high), reduce_add(sum.low));
}

}  // namespace pelton::PELTON_ISA
