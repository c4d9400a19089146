// Rotary positions on one row.
#pragma once

#include <stdint.h>

namespace pelton {

// `half` pairs of each head turn by the row's angles: table is cos [half] then sin [half]. Pairs are
// neighbours when interleaved, else (i, i + half); the rest of a head is copied. y may be x.
struct RopeCall {
    const float* x;
    float* y;
    const float* table;
    int64_t heads, head_dim, half;
    bool interleaved;
};

struct RopeKernels {
    void (*rotate)(const RopeCall& call);
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
void rotate(const RopeCall& call);
}
#endif

}  // namespace pelton
