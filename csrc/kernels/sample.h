// Looking at a row of logits to choose a token from it: its largest, and its softmax in whole numbers.
//
// A logit t of a row whose largest is `peak` has the weight round(2^40 * e^(t - peak)), e^x in float32 as
// written out in sample.cpp with nothing but + and *. Whole numbers add up exactly in any order, so blocks,
// threads, levels and NumPy (pelton/decode/softmax.py, the definition) agree to the last bit.
#pragma once

#include <stdint.h>

namespace pelton {

// Logits that are looked at together; also how many fit a caller's scratch.
constexpr int kSampleBlock = 256;

struct SampleKernels {
    // The first index of the largest of x; -1 if one is NaN or none is above -infinity.
    int64_t (*most_likely)(const float* x, int64_t count);
    // Whether some x is above `least`, or may be NaN: of what it finds none in, there is none.
    bool (*exceeds)(const float* x, int64_t count, float least);
    // t = x / temperature, -infinity where that is below `lowest`; returns the largest. count <=
    // kSampleBlock.
    float (*scale)(const float* x, int64_t count, float temperature, float lowest, float* t);
    // Of x / temperature those from `lowest` on, and their places: returns how many. count <= kSampleBlock;
    // values and places have room for that many.
    int64_t (*reaching)(const float* x, int64_t count, float temperature, float lowest, float* values,
                        int32_t* places);
    // The weights of t (null: not wanted); returns their sum. Where `peak` is infinite, infinite logits weigh
    // 2^40 and others nothing. count <= kSampleBlock.
    int64_t (*weigh)(const float* t, int64_t count, float peak, int64_t* weights);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
int64_t most_likely(const float* x, int64_t count);
bool exceeds(const float* x, int64_t count, float least);
float scale_logits(const float* x, int64_t count, float temperature, float lowest, float* t);
int64_t logits_reaching(const float* x, int64_t count, float temperature, float lowest, float* values,
                        int32_t* places);
int64_t weigh_logits(const float* t, int64_t count, float peak, int64_t* weights);
}  // namespace PELTON_ISA
#endif

}  // namespace pelton
