// A plan as a flat list of instructions: memory assigned ahead, barriers only where threads depend on each
// other.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "core/aligned_buffer.h"
#include "runtime/attend_instruction.h"
#include "runtime/instruction.h"
#include "runtime/page_reserve.h"
#include "runtime/screened_linear.h"
#include "runtime/watched_texts.h"

namespace pelton {

// The memory of values, shared by all programs of one executor: one pass at a time. It grows to the largest
// batch seen. Old memory lives as long as somebody holds it.
class Workspace {
  public:
    // Starts a pass, which ends the one before, even if the memory is refused: at least that many floats of
    // each kind, contents lost. Keeps the pass's KV arena alive, of which it uses blocks below `used`.
    // Returns the number of the pass.
    std::int64_t start_pass(std::int64_t shared, std::int64_t local, const KvArrays& kv, std::int64_t used,
                            std::shared_ptr<const void> arena);
    // Of the arena's memory, for a pool whose threads have time for it.
    const std::shared_ptr<PageReserve>& reserve() const noexcept { return reserve_; }
    // Of the present pass.
    std::int64_t pass() const noexcept { return pass_; }
    const std::shared_ptr<const void>& arena() const noexcept { return arena_; }
    const std::shared_ptr<AlignedBuffer>& buffer(bool local) const noexcept {
        return local ? local_ : shared_;
    }
    float* shared_floats() const noexcept {
        return shared_ ? reinterpret_cast<float*>(shared_->data()) : nullptr;
    }
    float* local_floats() const noexcept {
        return local_ ? reinterpret_cast<float*>(local_->data()) : nullptr;
    }
    std::int64_t num_bytes() const noexcept;

  private:
    std::shared_ptr<AlignedBuffer> shared_, local_;
    std::shared_ptr<const void> arena_;
    std::shared_ptr<PageReserve> reserve_ = std::make_shared<PageReserve>();
    std::int64_t pass_ = 0;  // counts, so that a pass that was overtaken can tell
};

// Rows up to which every thread computes local values itself. Measured: a row's norm takes 0.6 microseconds
// and its rounding 0.15 (576 wide); a barrier takes 0.1 when all arrive together, 0.3 to 0.5 as they come.
constexpr std::int64_t kReplicatedRows = 2;

// One instruction on one thread: when it began (with the barrier before it) and ended on the trace's clock,
// and how long of that it waited for others.
struct TraceEvent {
    std::int64_t instruction, start, end, wait;
};
constexpr std::size_t kMostEvents = std::size_t{1} << 18;

class Program {
  public:
    Program(std::shared_ptr<ThreadPool> pool, const KernelTable& kernels,
            std::shared_ptr<Workspace> workspace)
        : pool_(std::move(pool)), workspace_(std::move(workspace)) {
        frame_.kernels = &kernels;
        frame_.pool = pool_.get();
        frame_.specs = &values_;
    }

    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    // Building, until finish(). Values are numbered from 0; each is written by one instruction.
    int add_value(std::int64_t width, int row_set);
    void add(std::unique_ptr<Instruction> instruction);
    void add_head(std::unique_ptr<ScreenedLinearInstruction> head);
    void add_attend(int q, int k, int v, int output, AttendSpec spec, const AttendShape& shape);
    std::shared_ptr<RopeTable> rope_table(const RopeSpec& spec);
    // Checks every instruction, assigns memory and barriers. Values in `keep` stay readable to the end of a
    // pass. Throws Error(kInvalidArgument) that names the instruction and what is wrong.
    void finish(const std::vector<int>& keep);

    // Running: one pass over one batch, in stretches of instructions.
    // `arena` keeps the memory of `kv` alive; it is held until the next pass of any program.
    void begin(const BatchArrays& batch, const std::vector<RowSetView>& row_sets, const KvArrays& kv,
               std::shared_ptr<const void> arena, bool only_greatest);
    void run(std::int64_t begin, std::int64_t end);
    // Of a pass that has begun, over spans of one row each and for their greatest logits only: runs all of
    // it, and then so many passes in all, each over the tokens that the one before found. What each found;
    // the last is the one in which some row found one of `ends`, or none, or after which a text repeats.
    std::vector<std::vector<std::int32_t>> feed_back(std::int64_t passes,
                                                     const std::vector<std::int32_t>& ends,
                                                     WatchedTexts watched);
    // [rows, width] of a value, while it is live.
    const float* read(int value) const;
    void write(int value, const float* from);
    // What keeps the memory of a value alive.
    const std::shared_ptr<AlignedBuffer>& memory_of(int value) const;
    std::int64_t rows_of(int value) const;
    std::int64_t width_of(int value) const { return frame_.width(checked(value)); }
    // Of the rows of logits of a pass that wanted their greatest only, once all of it has run: the place of
    // each, as ScreenedLinearInstruction has it; nothing if the program has no such head.
    std::optional<std::vector<std::int32_t>> greatest() const;
    // The attention mass of the instruction that has it as tap number `index`: [spans, slots].
    const std::vector<float>& mass(std::int64_t index) const;
    std::int64_t num_spans() const noexcept { return frame_.batch.num_spans(); }

    void set_readings(const Readings& readings) noexcept { frame_.readings = readings; }
    // Spans that begin with the same blocks are read together; off only to measure what that is worth.
    void set_share_prefixes(bool on) noexcept { frame_.share_prefixes = on; }
    // Reads of a chunk of 256 positions that this saves an attention layer of the present pass.
    std::int64_t saved_chunks() const noexcept {
        return attend_works_.empty() ? 0 : attend_works_.front()->saved_chunks();
    }

    // Per thread and instruction: nanoseconds of work, nanoseconds of waiting at barriers before and inside.
    // Summed while switched on.
    void set_trace(bool on);
    const std::vector<std::int64_t>& trace() const noexcept { return trace_; }
    // The same one by one, per thread in order of time; the first kMostEvents of each.
    const std::vector<std::vector<TraceEvent>>& events() const noexcept { return events_; }

    std::int64_t num_instructions() const noexcept { return static_cast<std::int64_t>(instructions_.size()); }
    const Instruction& instruction(std::int64_t index) const { return *instructions_[index]; }
    // Of a finished program.
    bool barrier_before(std::int64_t index, bool replicated) const;
    const std::shared_ptr<Workspace>& workspace() const noexcept { return workspace_; }

  private:
    struct Slot {
        std::int64_t width;
        int row_set;
        bool local;
        bool free;
    };
    int checked(int value) const;
    void check_building() const;
    void check_finished() const;
    void check_pass() const;
    void check_instructions() const;
    void assign_slots(const std::vector<int>& keep);
    bool can_take_over(const Instruction& instruction, int input, int output) const;
    int take_slot(int value);
    void place_barriers(bool replicated);
    std::int64_t lay_out(bool local);
    void prepare_pass(std::shared_ptr<const void> arena);
    void run_traced(std::uint32_t count, int thread);

    std::shared_ptr<ThreadPool> pool_;
    std::shared_ptr<Workspace> workspace_;
    Frame frame_;
    std::vector<ValueSpec> values_;
    std::vector<std::unique_ptr<Instruction>> instructions_;
    std::vector<std::int64_t> steps_;  // of a run: where barriers cut its instructions, and the end
    std::vector<std::shared_ptr<AttendWork>> attend_works_;
    std::vector<const AttendInstruction*> with_mass_;  // in order of addition
    AttendInstruction* last_attend_ = nullptr;         // that was added
    std::vector<ReadAhead> ahead_;                     // of each thread
    const ScreenedLinearInstruction* head_ = nullptr;
    std::vector<std::shared_ptr<RopeTable>> rope_tables_;
    std::vector<Slot> slots_;
    std::vector<int> slot_of_;  // of value i
    std::vector<std::uint8_t> barriers_[2];
    std::vector<std::int64_t> slot_offsets_;
    std::vector<std::int64_t> trace_, waits_;
    std::vector<std::vector<TraceEvent>> events_;
    bool tracing_ = false, finished_ = false;
    std::int64_t last_kv_layer_ = -1;
    std::int64_t pass_ = -1;  // of the workspace; -1: none has begun
};

}  // namespace pelton
