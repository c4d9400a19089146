#include "core/partition.h"

namespace pelton {

LinearRange linear_share(std::int64_t num_panels, std::int64_t num_rows, int thread_id,
                         int num_threads) noexcept {
    std::int64_t across = num_threads, least = INT64_MAX;  // threads side by side along the panels
    for (std::int64_t p = num_threads; p >= 1; --p) {
        if (num_threads % p != 0) continue;
        const std::int64_t r = num_threads / p;
        const std::int64_t cell = ((num_panels + p - 1) / p) * ((num_rows + r - 1) / r);
        if (cell < least) {
            least = cell;
            across = p;
        }
    }
    const std::int64_t down = num_threads / across, x = thread_id % across, y = thread_id / across;
    return {num_panels * x / across, num_panels * (x + 1) / across, num_rows * y / down,
            num_rows * (y + 1) / down};
}

}  // namespace pelton
