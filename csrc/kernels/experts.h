// The router of a mixture of experts.
#pragma once

#include <stdint.h>

namespace pelton {

struct ExpertKernels {
    // Softmax over `count` scores; the top_k largest stay (lowest id on ties), all others become 0; with
    // `normalize` those that stay are divided by their sum. Scores without a softmax (a NaN, an infinity)
    // give the first top_k a NaN each.
    void (*route)(const float* scores, float* weights, int64_t count, int64_t top_k, bool normalize);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void route(const float* scores, float* weights, int64_t count, int64_t top_k, bool normalize);
}
#endif

}  // namespace pelton
