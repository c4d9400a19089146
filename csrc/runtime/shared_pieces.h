// A product of many rows in pieces that threads take as they come free: see shared_items.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "core/packed_weight.h"
#include "kernels/linear.h"
#include "runtime/shared_items.h"

namespace pelton {

constexpr std::int64_t kPieceRows = 96, kPiecePanels = 8, kPieceColumns = kPiecePanels * kPanelOutputs;
// Pieces are narrower where there would be fewer for each thread.
constexpr std::int64_t kPiecesEach = 8;
// Fewer rows are bound by memory, which likes long streams.
constexpr std::int64_t kLeastSharedRows = 16;

// Rows that are enough for a thread to keep to itself, as far as it can: what it rounds and normalizes then
// lies in its own caches. The other core may be far away: rounding 48 rows takes 14 instead of 3.5 us where a
// round trip between the two takes 330 ns and not 54. Unpacked codes, which all tiles of a piece share, want
// more rows.
constexpr std::int64_t kLeastOwnRows = 24, kLeastOwnRowsUnpacked = 48, kTileMultiple = 6;
constexpr std::int64_t kNoOwnRows = kPieceRows + 1;

// Of block formats only: neither floats nor pairs are unpacked for other tiles.
inline std::int64_t least_own_rows(const PackedWeight& weight, const WeightReading& reading) {
    const bool unpacks = weight.has_blocks() && reading.prepared == Prepared::kCodes;
    return unpacks ? kLeastOwnRowsUnpacked : kLeastOwnRows;
}

class SharedPieces {
  public:
    // All of a product, untaken, in pieces of at least `least` panels, 2, 4 or 8, and of at least `own_rows`
    // rows of a thread's own. One thread, before any other takes a piece.
    void cut(std::int64_t rows, std::int64_t panels, int threads, std::int64_t own_rows,
             std::int64_t least = 2) {
        rows_ = rows;
        panels_ = panels;
        height_ = piece_height(rows, threads, own_rows);
        std::int64_t count = 0;
        for (width_ = kPiecePanels;; width_ /= 2) {
            across_ = (panels + width_ - 1) / width_;
            count = across_ * ((rows + height_ - 1) / height_);
            if (width_ == least || count >= kPiecesEach * threads) break;
        }
        items_.cut(count, threads);
    }

    // Calls visit(piece, next) for pieces that nobody else gets until none are left; `next` is what would
    // follow, or the piece itself.
    template <typename Visit>
    void for_pieces(int part, const Visit& visit) {
        items_.for_items(part, [&](std::int64_t i, std::int64_t next) { visit(piece(i), piece(next)); });
    }

  private:
    // Of no more rows than the threads can keep to themselves in a piece each: as many pieces down as
    // threads.
    static std::int64_t piece_height(std::int64_t rows, std::int64_t threads, std::int64_t own_rows) {
        const std::int64_t each = (rows + threads - 1) / threads;
        if (each < own_rows || each > kPieceRows) return kPieceRows;
        return (each + kTileMultiple - 1) / kTileMultiple * kTileMultiple;
    }

    LinearRange piece(std::int64_t index) const noexcept {
        const std::int64_t row = index / across_ * height_, panel = index % across_ * width_;
        return {panel, std::min(panel + width_, panels_), row, std::min(row + height_, rows_)};
    }

    SharedItems items_;
    std::int64_t rows_ = 0, panels_ = 0, height_ = kPieceRows, width_ = kPiecePanels, across_ = 1;
};

}  // namespace pelton
