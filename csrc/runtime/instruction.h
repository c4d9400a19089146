// One step of a program and how it touches values, from which the barriers between steps follow.
#pragma once

#include <vector>

#include "runtime/frame.h"
#include "runtime/value_check.h"

namespace pelton {

struct Access {
    int value;
    bool write;
    bool own_rows;  // a thread touches its own share of the value's rows only
};

class Instruction {
  public:
    virtual ~Instruction() = default;

    // Computes this thread's part; all threads of the team call it.
    virtual void run(const Frame& frame, int thread) const = 0;
    // Once, when the program is finished: throws unless every value it names has the width and row set that
    // `run` relies on.
    virtual void check(const ValueCheck& values) const = 0;
    // Once per pass, on one thread, before anything runs.
    virtual void prepare(const Frame&) {}
    // Before each run, on one thread.
    virtual void start(const Frame&) {}
    virtual const char* name() const noexcept = 0;
    // Whether its outputs are local values (see Frame).
    virtual bool row_wise() const noexcept { return true; }
    // Whether the team meets inside when values are replicated, so that nothing from before is outstanding.
    virtual bool meets_when_replicated() const noexcept { return false; }
    // An input that the first output may take the memory of, or -1.
    virtual int reusable_input() const noexcept { return -1; }

    const std::vector<Access>& accesses() const noexcept { return accesses_; }
    int first_output() const noexcept {
        for (const Access& access : accesses_)
            if (access.write) return access.value;
        return -1;
    }

  protected:
    void reads(int value, bool own_rows = true) { accesses_.push_back({value, false, own_rows}); }
    void writes(int value, bool own_rows = true) { accesses_.push_back({value, true, own_rows}); }

  private:
    std::vector<Access> accesses_;
};

}  // namespace pelton
