// Every kernel of one instruction-set level. A kernel family adds its struct of function pointers here and
// its row in table.cpp; nothing else has to know.
#pragma once

#include "kernels/attention.h"
#include "kernels/elementwise.h"
#include "kernels/experts.h"
#include "kernels/linear.h"
#include "kernels/norm.h"
#include "kernels/probe.h"
#include "kernels/rope.h"
#include "kernels/sample.h"

namespace pelton {

struct KernelTable {
    const char* level;  // "generic", "avx2", "avx_vnni", "avx512", "avx512_bf16"
    LinearKernels linear;
    ProbeKernels probe;
    NormKernels norm;
    ElementwiseKernels elementwise;
    RopeKernels rope;
    ExpertKernels experts;
    AttentionKernels attention;
    SampleKernels sample;
};

#if defined(PELTON_ISA)
namespace PELTON_ISA {
const KernelTable& kernels() noexcept;
}
#endif

}  // namespace pelton
