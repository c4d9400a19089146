// Zeroed memory on a 64-byte boundary (2 MiB when large, so that the kernel can back it by huge pages).
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace pelton {

class AlignedBuffer {
  public:
    AlignedBuffer() = default;
    // Throws Error(kMemory).
    explicit AlignedBuffer(std::size_t num_bytes);
    ~AlignedBuffer();
    AlignedBuffer(AlignedBuffer&& other) noexcept
        : memory_(std::exchange(other.memory_, nullptr)),
          data_(std::exchange(other.data_, nullptr)),
          num_bytes_(std::exchange(other.num_bytes_, 0)) {}
    AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
        std::swap(num_bytes_, other.num_bytes_);
        return *this;
    }

    std::uint8_t* data() noexcept { return data_; }
    const std::uint8_t* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return num_bytes_; }

  private:
    void* memory_ = nullptr;
    std::uint8_t* data_ = nullptr;
    std::size_t num_bytes_ = 0;
};

}  // namespace pelton
