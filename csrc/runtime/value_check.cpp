#include "runtime/value_check.h"

#include <string>

#include "core/errors.h"

namespace pelton {

namespace {

[[noreturn]] void fail(const char* instruction, const std::string& message) {
    throw Error(ErrorKind::kInvalidArgument, std::string(instruction) + ": " + message);
}

}  // namespace

void ValueCheck::that(bool holds, const char* message) const {
    if (!holds) fail(instruction_, message);
}

const ValueSpec& ValueCheck::spec(const char* role, int value) const {
    if (value < 0 || value >= static_cast<int>(values_.size()))
        fail(instruction_, std::string(role) + " is missing");
    return values_[static_cast<std::size_t>(value)];
}

void ValueCheck::shape(const char* role, int value, std::int64_t width, int row_set) const {
    const ValueSpec& found = spec(role, value);
    if (found.width != width)
        fail(instruction_, std::string(role) + " is " + std::to_string(found.width) + " wide, not " +
                               std::to_string(width));
    if (found.row_set != row_set)
        fail(instruction_, std::string(role) + " covers row set " + std::to_string(found.row_set) + ", not " +
                               std::to_string(row_set));
}

void ValueCheck::blocks(const char* role, int value, std::int64_t inputs, int row_set) const {
    constexpr std::int64_t kFloats = sizeof(ActivationBlock) / sizeof(float);
    that(inputs >= kBlockInputs && inputs % kBlockInputs == 0, "activations are rounded in blocks of 32");
    shape(role, value, inputs / kBlockInputs * kFloats, row_set);
}

void ValueCheck::pairs(const char* role, int value, std::int64_t inputs, int row_set) const {
    constexpr std::int64_t kFloats = sizeof(ActivationPair) / sizeof(float);
    that(inputs >= kBlockInputs && inputs % kBlockInputs == 0, "activations are rounded in blocks of 32");
    shape(role, value, pairs_of(inputs) * kFloats, row_set);
}

}  // namespace pelton
