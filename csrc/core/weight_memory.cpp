#include "core/weight_memory.h"

namespace pelton {

namespace {
// Pages of a piece that nothing was written to take no memory.
constexpr std::size_t kPieceBytes = std::size_t{32} << 20;
// As large as this it gets huge pages without neighbours.
constexpr std::size_t kOwnPieceBytes = std::size_t{4} << 20;

}  // namespace

std::shared_ptr<std::uint8_t> memory_alone(std::size_t num_bytes) {
    const auto buffer = std::make_shared<AlignedBuffer>(num_bytes);
    return {buffer, buffer->data()};
}

std::shared_ptr<std::uint8_t> WeightMemory::take(std::size_t num_bytes) {
    if (num_bytes >= kOwnPieceBytes) return memory_alone(num_bytes);
    const std::size_t needed = (num_bytes + 63) / 64 * 64;
    if (piece_ == nullptr || piece_->size() - taken_ < needed) {
        piece_ = std::make_shared<AlignedBuffer>(kPieceBytes);
        taken_ = 0;
    }
    std::uint8_t* place = piece_->data() + taken_;
    taken_ += needed;
    return {piece_, place};
}

}  // namespace pelton
