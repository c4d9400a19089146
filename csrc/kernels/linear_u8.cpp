#include "kernels/linear_block.h"

namespace pelton::PELTON_ISA {

void linear_u8(const LinearCall& call, const LinearRange& range) {
    block_dispatch<BlockLoop, 8, false>(call, range);
}

}  // namespace pelton::PELTON_ISA
