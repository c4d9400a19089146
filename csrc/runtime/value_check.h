// What instructions require of the values they name. Checked once, when a program is finished: running trusts
// widths and row sets, so a wrong one would be read or written out of bounds.
#pragma once

#include "runtime/frame.h"

namespace pelton {

// Every function throws Error(kInvalidArgument) that names the instruction and what is wrong. `role` is what
// a value is to the instruction, such as "k"; a value that is not there (-1) fails.
class ValueCheck {
  public:
    ValueCheck(const char* instruction, const std::vector<ValueSpec>& values)
        : instruction_(instruction), values_(values) {}

    void that(bool holds, const char* message) const;
    void shape(const char* role, int value, std::int64_t width, int row_set) const;
    // A value that holds `inputs` activations a row as 8-bit blocks.
    void blocks(const char* role, int value, std::int64_t inputs, int row_set) const;
    // The same in pairs, for weights of that kind.
    void pairs(const char* role, int value, std::int64_t inputs, int row_set) const;
    const ValueSpec& spec(const char* role, int value) const;

  private:
    const char* instruction_;
    const std::vector<ValueSpec>& values_;
};

}  // namespace pelton
