#include "kernels/quantize_block.h"
#if defined(PELTON_ISA_avx512)
#    include "kernels/quantize_avx512.h"
#endif

namespace pelton::PELTON_ISA {

void quantize(const float* x, int64_t stride, int64_t width, bool fine, ActivationBlock* blocks,
              int64_t begin, int64_t end) {
    const int64_t per_row = width / kBlockInputs;
    int64_t row = begin / per_row, column = begin % per_row;
    for (int64_t i = begin; i < end; ++i) {
        const float* source = x + row * stride + column * kBlockInputs;
#if defined(PELTON_ISA_avx512)
        if (column + 4 <= per_row && i + 4 <= end && quantize_four(source, fine, blocks + i)) {
            i += 3;
            column += 3;
        } else
#endif
            quantize_block(load(source), load(source + 16), fine, blocks + i);
        if (++column == per_row) {
            column = 0;
            ++row;
        }
    }
}

}  // namespace pelton::PELTON_ISA
