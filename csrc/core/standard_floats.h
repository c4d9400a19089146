// The calling thread's floating-point mode, set to the default while an object lives: rounding to nearest,
// denormals kept. Law 2 needs it: PyTorch's set_flush_denormal, or a library built with -ffast-math, changes
// the mode of one thread, and its share of the rows would then have other bits than the other threads'.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#    include <immintrin.h>
#endif

namespace pelton {

class StandardFloats {
  public:
    StandardFloats() noexcept : before_(mode()) { set_mode(kStandard); }
    ~StandardFloats() { set_mode(before_); }
    StandardFloats(const StandardFloats&) = delete;
    StandardFloats& operator=(const StandardFloats&) = delete;

  private:
#if defined(__x86_64__)
    using Mode = unsigned int;
    static constexpr Mode kStandard = 0x1f80;  // exceptions masked
    static Mode mode() noexcept { return _mm_getcsr(); }
    static void set_mode(Mode mode) noexcept { _mm_setcsr(mode); }
#elif defined(__aarch64__)
    using Mode = std::uint64_t;
    static constexpr Mode kStandard = 0;
    static Mode mode() noexcept {
        Mode mode;
        asm volatile("mrs %0, fpcr" : "=r"(mode));
        return mode;
    }
    static void set_mode(Mode mode) noexcept { asm volatile("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
    using Mode = int;
    static constexpr Mode kStandard = 0;
    static Mode mode() noexcept { return kStandard; }
    static void set_mode(Mode) noexcept {}
#endif
    const Mode before_;
};

}  // namespace pelton
