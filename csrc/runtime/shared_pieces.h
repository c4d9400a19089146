// A product of many rows in pieces that threads take as they come free: see shared_items.h.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/linear.h"
#include "runtime/shared_items.h"

namespace pelton {

constexpr std::int64_t kPieceRows = 96, kPiecePanels = 8, kPieceColumns = kPiecePanels * kPanelOutputs;
// Pieces are narrower where there would be fewer for each thread.
constexpr std::int64_t kPiecesEach = 8;
// Fewer rows are bound by memory, which likes long streams.
constexpr std::int64_t kLeastSharedRows = 16;

class SharedPieces {
  public:
    // All of a product, untaken. One thread, before any other takes a piece.
    void cut(std::int64_t rows, std::int64_t panels, int threads) {
        rows_ = rows;
        panels_ = panels;
        std::int64_t count = 0;
        for (width_ = kPiecePanels;; width_ /= 2) {
            across_ = (panels + width_ - 1) / width_;
            count = across_ * ((rows + kPieceRows - 1) / kPieceRows);
            if (width_ == 2 || count >= kPiecesEach * threads) break;
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
    LinearRange piece(std::int64_t index) const noexcept {
        const std::int64_t row = index / across_ * kPieceRows, panel = index % across_ * width_;
        return {panel, std::min(panel + width_, panels_), row, std::min(row + kPieceRows, rows_)};
    }

    SharedItems items_;
    std::int64_t rows_ = 0, panels_ = 0, width_ = kPiecePanels, across_ = 1;
};

}  // namespace pelton
