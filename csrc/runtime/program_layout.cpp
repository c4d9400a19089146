// What a finished program knows ahead: where values lie and where the team has to meet.
#include <algorithm>

#include "core/errors.h"
#include "runtime/program.h"

namespace pelton {

void Program::finish(const std::vector<int>& keep) {
    check_building();
    check_instructions();
    frame_.offsets.assign(values_.size(), 0);
    frame_.is_local.assign(values_.size(), 0);
    for (const std::unique_ptr<Instruction>& instruction : instructions_)
        for (const Access& access : instruction->accesses())
            if (access.write) frame_.is_local[access.value] = instruction->row_wise();
    assign_slots(keep);
    place_barriers(false);
    place_barriers(true);
    finished_ = true;
}

void Program::check_instructions() const {
    std::vector<std::uint8_t> written(values_.size(), 0);
    for (const std::unique_ptr<Instruction>& instruction : instructions_) {
        const ValueCheck values(instruction->name(), values_);
        instruction->check(values);
        for (const Access& access : instruction->accesses()) {
            const std::size_t value = static_cast<std::size_t>(checked(access.value));
            values.that(!access.write || written[value] == 0, "writes a value that is written already");
            written[value] = written[value] != 0 || access.write;
        }
    }
}

// Slots are reused once their value is dead, among values of one row set and kind. An instruction's outputs
// are placed before its inputs are let go, so they never overlap, but for the input it says may be
// overwritten.
void Program::assign_slots(const std::vector<int>& keep) {
    constexpr std::int64_t kNever = -1;
    std::vector<std::int64_t> last_use(values_.size(), kNever);
    for (std::int64_t i = 0; i < num_instructions(); ++i)
        for (const Access& access : instructions_[i]->accesses()) last_use[access.value] = i;
    for (const int value : keep) last_use[checked(value)] = num_instructions();
    slot_of_.assign(values_.size(), -1);
    for (std::int64_t i = 0; i < num_instructions(); ++i) {
        const Instruction& instruction = *instructions_[i];
        const int reusable = instruction.reusable_input(), first = instruction.first_output();
        if (reusable >= 0 && last_use[reusable] == i && can_take_over(instruction, reusable, first)) {
            slot_of_[first] = slot_of_[reusable];
            last_use[reusable] = kNever;  // the output owns the slot now
        }
        for (const Access& access : instruction.accesses()) {
            if (access.write && slot_of_[access.value] < 0) slot_of_[access.value] = take_slot(access.value);
            require(slot_of_[access.value] >= 0, "a value is read before it is written");
        }
        for (const Access& access : instruction.accesses())
            if (last_use[access.value] == i) slots_[slot_of_[access.value]].free = true;
    }
    // Values that no instruction touches any more (fused away) still need a valid place, which all may share.
    for (std::size_t v = 0; v < values_.size(); ++v) {
        if (slot_of_[v] >= 0) continue;
        slot_of_[v] = take_slot(static_cast<int>(v));
        slots_[slot_of_[v]].free = true;
    }
}

bool Program::can_take_over(const Instruction& instruction, int input, int output) const {
    int uses = 0;
    for (const Access& access : instruction.accesses()) uses += access.value == input;
    return uses == 1 && !frame_.is_local[input] && !frame_.is_local[output] &&
           values_[input].width == values_[output].width && values_[input].row_set == values_[output].row_set;
}

int Program::take_slot(int value) {
    const ValueSpec& spec = values_[value];
    const bool local = frame_.is_local[value] != 0;
    int best = -1;
    for (int i = 0; i < static_cast<int>(slots_.size()); ++i) {
        const Slot& slot = slots_[i];
        if (!slot.free || slot.row_set != spec.row_set || slot.local != local) continue;
        // The smallest that fits, else the largest, which then grows.
        const auto rank = [&](const Slot& s) {
            return s.width >= spec.width ? s.width : (std::int64_t{1} << 40) - s.width;
        };
        if (best < 0 || rank(slot) < rank(slots_[best])) best = i;
    }
    if (best < 0) {
        slots_.push_back({spec.width, spec.row_set, local, false});
        return static_cast<int>(slots_.size()) - 1;
    }
    slots_[best].width = std::max(slots_[best].width, spec.width);
    slots_[best].free = false;
    return best;
}

namespace {

enum Touch : std::uint8_t { kReadOwn = 1, kReadAny = 2, kWroteOwn = 4, kWroteAny = 8 };

// What happened to a slot since the last barrier. Shares of rows match only between values of one width.
struct Touched {
    std::uint8_t how = 0;
    std::int64_t width = 0;
};

bool stays_own(const Touched& slot, const Access& access, std::int64_t width) {
    return access.own_rows && (slot.width == 0 || slot.width == width);
}

bool clashes(const Touched& slot, bool own, bool write) {
    std::uint8_t clashing = own ? kWroteAny : kWroteAny | kWroteOwn;
    if (write) clashing |= own ? kReadAny : kReadAny | kReadOwn;
    return (slot.how & clashing) != 0;
}

void touch(Touched& slot, bool own, bool write, std::int64_t width) {
    slot.how |= write ? (own ? kWroteOwn : kWroteAny) : (own ? kReadOwn : kReadAny);
    if (own) slot.width = width;
}

}  // namespace

// A barrier stands before an instruction that touches a slot which another thread may have written since the
// last barrier, or writes one that another thread may still read.
void Program::place_barriers(bool replicated) {
    std::vector<Touched> slots(slots_.size());
    std::vector<std::uint8_t>& barriers = barriers_[replicated];
    barriers.assign(instructions_.size(), 0);
    bool attended = false;  // partial states of attention are one scratch for all layers
    for (std::int64_t i = 0; i < num_instructions(); ++i) {
        const Instruction& instruction = *instructions_[i];
        const bool is_attend = dynamic_cast<const AttendInstruction*>(&instruction) != nullptr;
        const auto for_accesses = [&](const auto& visit) {
            for (const Access& access : instruction.accesses()) {
                if (replicated && frame_.is_local[access.value]) continue;
                Touched& slot = slots[slot_of_[access.value]];
                const std::int64_t width = values_[access.value].width;
                visit(slot, !replicated && stays_own(slot, access, width), access.write, width);
            }
        };
        bool conflict = is_attend && attended;
        for_accesses([&](const Touched& slot, bool own, bool write, std::int64_t) {
            conflict = conflict || clashes(slot, own, write);
        });
        if (conflict) barriers[i] = 1;
        const bool meets = replicated && instruction.meets_when_replicated();
        if (conflict || meets) {
            slots.assign(slots_.size(), Touched{});
            attended = false;
        }
        attended = attended || is_attend;
        if (!meets) for_accesses(touch);
    }
}

}  // namespace pelton
