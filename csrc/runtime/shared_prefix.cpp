#include "runtime/shared_prefix.h"

#include <algorithm>

namespace pelton {

namespace {

// Chunks from the first on that two readers read from the same blocks.
std::int64_t common_chunks(const RaggedBatch& batch, std::int64_t chunk_blocks, const PrefixReader& a,
                           const PrefixReader& b) {
    const std::int64_t most = std::min(a.chunks, b.chunks) * chunk_blocks;
    std::int64_t equal = 0;
    while (equal < most && batch.block(a.span, equal) == batch.block(b.span, equal)) ++equal;
    return equal / chunk_blocks;
}

// By block table, the shorter first where one begins the other.
bool before(const RaggedBatch& batch, std::int64_t chunk_blocks, const PrefixReader& a,
            const PrefixReader& b) {
    const std::int64_t most = std::min(a.chunks, b.chunks) * chunk_blocks;
    for (std::int64_t i = 0; i < most; ++i) {
        const std::int32_t x = batch.block(a.span, i), y = batch.block(b.span, i);
        if (x != y) return x < y;
    }
    return a.chunks != b.chunks ? a.chunks < b.chunks : a.tile < b.tile;
}

// Readers first .. end, cut into as few runs of equal size as `most_queries` allows.
void add_runs(const std::vector<PrefixReader>& readers, std::int64_t first, std::int64_t end,
              std::int64_t chunk_begin, std::int64_t chunk_end, std::int64_t most_queries,
              std::vector<PrefixRun>& runs) {
    std::int64_t largest = 1;
    for (std::int64_t i = first; i < end; ++i)
        largest = std::max(largest, readers[static_cast<std::size_t>(i)].queries);
    const std::int64_t most = std::max<std::int64_t>(1, most_queries / largest);
    const std::int64_t parts = (end - first + most - 1) / most;
    for (std::int64_t p = 0; p < parts; ++p) {
        const std::int64_t from = first + (end - first) * p / parts,
                           to = first + (end - first) * (p + 1) / parts;
        runs.push_back({from, to - from, chunk_begin, chunk_end});
    }
}

}  // namespace

std::vector<PrefixRun> find_shared_prefixes(const RaggedBatch& batch, std::int64_t chunk_blocks,
                                            std::int64_t most_queries, std::vector<PrefixReader>& readers) {
    std::vector<PrefixRun> runs;
    if (readers.size() < 2) return runs;
    std::sort(readers.begin(), readers.end(), [&](const PrefixReader& a, const PrefixReader& b) {
        return before(batch, chunk_blocks, a, b);
    });
    std::vector<std::int64_t> common;  // of each reader with the next
    for (std::size_t i = 0; i + 1 < readers.size(); ++i)
        common.push_back(common_chunks(batch, chunk_blocks, readers[i], readers[i + 1]));
    struct Group {  // readers that share all chunks before `done`, which have their runs
        std::int64_t first, end, done;
    };
    std::vector<Group> open = {{0, static_cast<std::int64_t>(readers.size()), 0}};
    while (!open.empty()) {
        const Group group = open.back();
        open.pop_back();
        if (group.end - group.first < 2) continue;
        const auto begin = common.begin() + group.first, end = common.begin() + group.end - 1;
        const std::int64_t shared = *std::min_element(begin, end);
        if (shared > group.done)
            add_runs(readers, group.first, group.end, group.done, shared, most_queries, runs);
        std::int64_t first = group.first;
        for (std::int64_t i = group.first; i < group.end; ++i) {
            const bool last = i + 1 == group.end;
            if (!last && common[static_cast<std::size_t>(i)] > shared) continue;
            open.push_back({first, i + 1, shared});
            first = i + 1;
        }
    }
    return runs;
}

}  // namespace pelton
