// Spans whose block tables begin with the same blocks: which of them read which chunks of keys and values
// together.
//
// This is RelayAttention's observation, that requests with one prompt prefix should read its keys and values
// once, found from the tables alone. Chunks are merged in the same order as ever, so no bit changes.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/batch.h"

namespace pelton {

// Something whose rows all see the first `chunks` chunks of a span completely.
struct PrefixReader {
    std::int64_t tile, span, chunks, queries;
};

// Chunks chunk_begin .. chunk_end are the same blocks for readers first .. first + count of the readers
// given.
struct PrefixRun {
    std::int64_t first, count;
    std::int64_t chunk_begin, chunk_end;
};

// Sorts the readers so that those of every run are neighbours, and lists the runs; no two share a reader and
// a chunk, and the chunks of a reader that are in any run come before those that are in none. A run has two
// readers at least until it is cut at `most_queries`.
std::vector<PrefixRun> find_shared_prefixes(const RaggedBatch& batch, std::int64_t chunk_blocks,
                                            std::int64_t most_queries, std::vector<PrefixReader>& readers);

}  // namespace pelton
