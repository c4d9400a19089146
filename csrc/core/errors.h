// What the core throws; the bindings turn it into pelton's Python exceptions.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

namespace pelton {

enum class ErrorKind {
    kInvalidArgument,  // ValueError: a caller passed sizes or values that do not fit together
    kUnsupported,      // KernelUnsupportedError: well-formed, but this build or machine has no code for it
    kConfig,           // ConfigError: a setting or environment variable that cannot be used
    kPlan,             // PlanError: a plan that cannot be run as given
    kMemory,           // MemoryBudgetError: the allocation was refused
};

class Error : public std::runtime_error {
  public:
    Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
    ErrorKind kind() const noexcept { return kind_; }

  private:
    ErrorKind kind_;
};

inline void require(bool condition, const char* message) {
    if (!condition) throw Error(ErrorKind::kInvalidArgument, message);
}

}  // namespace pelton
