// How a team of threads shares one matrix product.
#pragma once

#include <cstdint>

#include "kernels/linear.h"

namespace pelton {

// The rectangle of panels by rows that thread `thread_id` of `num_threads` computes; may be empty. Threads
// form a grid whose largest cell is smallest, more of them along panels when equal: then no weight is read
// twice.
LinearRange linear_share(std::int64_t num_panels, std::int64_t num_rows, int thread_id,
                         int num_threads) noexcept;

}  // namespace pelton
