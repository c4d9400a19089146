#include "kernels/linear_block.h"

namespace pelton::PELTON_ISA {

void linear_u4_table(const LinearCall& call, const LinearRange& range) {
    block_dispatch<BlockLoop, 4, true>(call, range);
}

}  // namespace pelton::PELTON_ISA
