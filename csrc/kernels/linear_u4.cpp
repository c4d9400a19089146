#include "kernels/linear_block.h"

namespace pelton::PELTON_ISA {

void linear_u4(const LinearCall& call, const LinearRange& range) {
    block_dispatch<BlockLoop, 4, false>(call, range);
}

}  // namespace pelton::PELTON_ISA
