// Sums run over 16 lanes from left to right and are then added in the fixed tree of reduce_add.
#include "kernels/norm.h"

#include "isa/simd.h"

namespace pelton::PELTON_ISA {

namespace {

PELTON_INLINE int lanes_left(int64_t left) { return left < 16 ? static_cast<int>(left) : 16; }

PELTON_INLINE float root(float x) {
    float lanes[16];
    store(lanes, sqrt(set1(x)));
    return lanes[0];
}

float mean_of(const float* x, int64_t width) {
    f32x16 sum = set1(0.0f);
    for (int64_t i = 0; i < width; i += 16) sum += load_first(x + i, lanes_left(width - i));
    return reduce_add(sum) / static_cast<float>(width);
}

// mean((x - centre)^2)
float spread_around(const float* x, int64_t width, float centre) {
    f32x16 sum = set1(0.0f);
    int64_t i = 0;
    for (; i + 16 <= width; i += 16) {
        const f32x16 d = load(x + i) - set1(centre);
        sum = fma(d, d, sum);
    }
    if (i < width) {
        const int left = lanes_left(width - i);
        const f32x16 d = select(first_lanes(left), load_first(x + i, left) - set1(centre), set1(0.0f));
        sum = fma(d, d, sum);
    }
    return reduce_add(sum) / static_cast<float>(width);
}

// y = (x - centre) / divisor * weight + bias
void affine(const NormCall& call, int64_t index, float centre, float divisor) {
    const float* x = call.x + index * call.group;
    float* y = call.y + index * call.group;
    const int64_t row = index % call.period * call.group;
    const f32x16 factor = set1(1.0f / divisor), shift = set1(centre);
    for (int64_t i = 0; i < call.group; i += 16) {
        const int left = lanes_left(call.group - i);
        f32x16 value = (load_first(x + i, left) - shift) * factor;
        if (call.weight != nullptr) value = value * load_first(call.weight + row + i, left);
        if (call.bias != nullptr) value = value + load_first(call.bias + row + i, left);
        store_first(y + i, left, value);
    }
}

}  // namespace

void rms_norm(const NormCall& call) {
    for (int64_t i = 0; i < call.count; ++i) {
        const float mean_square = spread_around(call.x + i * call.group, call.group, 0.0f);
        affine(call, i, 0.0f, root(mean_square + call.eps));
    }
}

void layer_norm(const NormCall& call) {
    for (int64_t i = 0; i < call.count; ++i) {
        const float* x = call.x + i * call.group;
        const float mean = mean_of(x, call.group);
        affine(call, i, mean, root(spread_around(x, call.group, mean) + call.eps));
    }
}

}  // namespace pelton::PELTON_ISA
