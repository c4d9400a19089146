#include "runtime/program.h"

#include <algorithm>
#include <cstring>

#include "core/errors.h"
#include "core/standard_floats.h"

namespace pelton {

namespace {

std::shared_ptr<AlignedBuffer> grown(const std::shared_ptr<AlignedBuffer>& old, std::int64_t floats) {
    const std::size_t bytes = static_cast<std::size_t>(floats) * sizeof(float);
    if (old && old->size() >= bytes) return old;
    return std::make_shared<AlignedBuffer>(bytes + bytes / 8);
}

}  // namespace

std::int64_t Workspace::start_pass(std::int64_t shared, std::int64_t local, const KvArrays& kv,
                                   std::int64_t used, std::shared_ptr<const void> arena) {
    ++pass_;
    reserve_->watch(kv, used, arena);
    arena_ = std::move(arena);
    shared_ = grown(shared_, shared);
    local_ = grown(local_, local);
    return pass_;
}

std::int64_t Workspace::num_bytes() const noexcept {
    return static_cast<std::int64_t>((shared_ ? shared_->size() : 0) + (local_ ? local_->size() : 0));
}

void Program::check_building() const { require(!finished_, "the program is finished already"); }

void Program::check_finished() const { require(finished_, "the program is not finished"); }

void Program::add(std::unique_ptr<Instruction> instruction) {
    check_building();
    instructions_.push_back(std::move(instruction));
}

int Program::add_value(std::int64_t width, int row_set) {
    check_building();
    require(width > 0 && width < (std::int64_t{1} << 31) && row_set >= 0,
            "a value has a width and a row set");
    values_.push_back({width, row_set});
    return static_cast<int>(values_.size()) - 1;
}

int Program::checked(int value) const {
    require(value >= 0 && value < static_cast<int>(values_.size()), "there is no such value");
    return value;
}

void Program::add_head(std::unique_ptr<ScreenedLinearInstruction> head) {
    check_building();
    require(head_ == nullptr, "a program has one screened head");
    head_ = head.get();
    add(std::move(head));
}

void Program::add_attend(int q, int k, int v, int output, AttendSpec spec, const AttendShape& shape) {
    check_building();
    const std::int64_t layer = spec.kv_layer;
    last_kv_layer_ = std::max(last_kv_layer_, layer);
    std::shared_ptr<AttendWork> work;
    for (const std::shared_ptr<AttendWork>& known : attend_works_)
        if (known->shape() == shape) work = known;
    if (!work) {
        work = std::make_shared<AttendWork>(shape);
        attend_works_.push_back(work);
    }
    auto instruction = std::make_unique<AttendInstruction>(q, k, v, output, std::move(spec), work);
    if (last_attend_ != nullptr) last_attend_->set_next(work, layer);
    last_attend_ = instruction.get();
    if (instruction->wants_mass()) with_mass_.push_back(instruction.get());
    add(std::move(instruction));
}

std::shared_ptr<RopeTable> Program::rope_table(const RopeSpec& spec) {
    for (const std::shared_ptr<RopeTable>& table : rope_tables_)
        if (table->spec() == spec) return table;
    rope_tables_.push_back(std::make_shared<RopeTable>(spec));
    return rope_tables_.back();
}

// Untraced runs only pay the test of one flag per call of run() and of one pointer per inner barrier.
void Program::set_trace(bool on) {
    check_finished();
    tracing_ = on;
    if (!on) return;
    const std::size_t threads = static_cast<std::size_t>(pool_->num_threads());
    trace_.assign(threads * instructions_.size() * 2, 0);
    waits_.assign(threads * kWaitStride, 0);
    events_.assign(threads, {});
}

void Program::begin(const BatchArrays& batch, const std::vector<RowSetView>& row_sets, const KvArrays& kv,
                    std::shared_ptr<const void> arena, bool only_greatest) {
    check_finished();
    pool_->check_process();  // a fork may have left the reserve locked
    pass_ = -1;
    for (const std::shared_ptr<AttendWork>& work : attend_works_)
        require(work->shape().kv_heads == kv.heads && work->shape().head_dim == kv.head_dim,
                "the KV arena has other heads than the plan");
    require(last_kv_layer_ < kv.layers, "the KV arena has fewer layers than the plan");
    for (const ValueSpec& value : values_)
        require(value.row_set <= static_cast<int>(row_sets.size()), "the batch lacks a row set of the plan");
    frame_.batch.assign(batch, row_sets, kv.num_blocks);
    frame_.kv = kv;
    frame_.only_greatest = only_greatest;
    prepare_pass(std::move(arena));
}

// For the batch that the frame has.
void Program::prepare_pass(std::shared_ptr<const void> arena) {
    pass_ = -1;
    frame_.replicated = pool_->num_threads() > 1 && frame_.batch.num_rows() <= kReplicatedRows;
    const std::int64_t shared = lay_out(false), local = lay_out(true);
    const std::int64_t pass =
        workspace_->start_pass(shared, local * (frame_.replicated ? pool_->num_threads() : 1), frame_.kv,
                               frame_.batch.blocks_used(), std::move(arena));
    frame_.shared = workspace_->shared_floats();
    frame_.local = workspace_->local_floats();
    frame_.local_stride = local;
    const StandardFloats floats;
    for (const std::shared_ptr<RopeTable>& table : rope_tables_)
        table->cover(frame_.batch.positions(), frame_.batch.num_rows());
    for (const std::shared_ptr<AttendWork>& work : attend_works_) work->prepare(frame_);
    ahead_.assign(static_cast<std::size_t>(pool_->num_threads()), {});
    frame_.ahead = ahead_.data();
    for (const std::unique_ptr<Instruction>& instruction : instructions_) instruction->prepare(frame_);
    pass_ = pass;
}

// Offsets of all slots of one kind for this batch; returns the floats they take.
std::int64_t Program::lay_out(bool local) {
    std::int64_t total = 0;
    slot_offsets_.resize(slots_.size());
    for (std::size_t i = 0; i < slots_.size(); ++i) {
        if (slots_[i].local != local) continue;
        slot_offsets_[i] = total;
        total += (frame_.batch.rows_of(slots_[i].row_set) * slots_[i].width + 15) / 16 * 16;
    }
    for (std::size_t v = 0; v < values_.size(); ++v)
        if (slots_[slot_of_[v]].local == local) frame_.offsets[v] = slot_offsets_[slot_of_[v]];
    return total + 16;
}

void Program::check_pass() const {
    require(pass_ >= 0, "no forward pass has begun");
    require(pass_ == workspace_->pass(), "another forward pass has begun since");
}

std::int64_t Program::rows_of(int value) const {
    check_pass();
    return frame_.rows(checked(value));
}

const std::shared_ptr<AlignedBuffer>& Program::memory_of(int value) const {
    check_pass();
    return workspace_->buffer(frame_.is_local[checked(value)] != 0);
}

std::optional<std::vector<std::int32_t>> Program::greatest() const {
    check_pass();
    require(frame_.only_greatest, "the pass was to leave its logits");
    if (head_ == nullptr) return std::nullopt;
    return head_->greatest();
}

const std::vector<float>& Program::mass(std::int64_t index) const {
    check_pass();
    require(index >= 0 && index < static_cast<std::int64_t>(with_mass_.size()),
            "there is no such attention mass");
    return with_mass_[static_cast<std::size_t>(index)]->mass();
}

bool Program::barrier_before(std::int64_t index, bool replicated) const {
    check_finished();
    return barriers_[replicated][static_cast<std::size_t>(index)] != 0;
}

const float* Program::read(int value) const {
    check_pass();
    return frame_.value(checked(value), 0);
}

void Program::run(std::int64_t begin, std::int64_t end) {
    check_pass();
    require(0 <= begin && begin <= end && end <= num_instructions(), "there are no such instructions");
    if (begin == end) return;
    frame_.waits = tracing_ ? waits_.data() : nullptr;
    const std::uint8_t* barrier = barriers_[frame_.replicated].data();
    steps_.clear();
    for (std::int64_t i = begin; i < end; ++i) {
        instructions_[i]->start(frame_);
        if (i == begin || barrier[i] != 0) steps_.push_back(i);
    }
    const std::uint32_t count = static_cast<std::uint32_t>(steps_.size());
    steps_.push_back(end);
    if (tracing_) return pool_->run([&](int thread) { run_traced(count, thread); });
    pool_->run([&](int thread) {
        pool_->steps(count, thread, [this](std::uint32_t step, int part) {
            for (std::int64_t i = steps_[step]; i < steps_[step + 1]; ++i)
                instructions_[i]->run(frame_, part);
        });
    });
}

std::vector<std::vector<std::int32_t>> Program::feed_back(std::int64_t passes,
                                                          const std::vector<std::int32_t>& ends,
                                                          WatchedTexts watched) {
    check_pass();
    require(passes > 0 && head_ != nullptr, "only a program with a screened head runs several passes");
    for (const WatchedText& text : watched.texts)
        require(text.row >= 0 && text.row < frame_.batch.num_rows() && watched.repeated > 0,
                "a text is watched that no row goes on with, or for nothing");
    std::vector<std::vector<std::int32_t>> found;
    for (;;) {
        run(0, num_instructions());
        found.push_back(*greatest());
        const bool ended = std::any_of(found.back().begin(), found.back().end(), [&](std::int32_t token) {
            return token < 0 || std::find(ends.begin(), ends.end(), token) != ends.end();
        });
        if (ended || static_cast<std::int64_t>(found.size()) == passes) return found;
        require(watched.texts.empty() ||
                    static_cast<std::int64_t>(found.back().size()) == frame_.batch.num_rows(),
                "a text is watched where not every row finds a token");
        if (watched.repeat_after(found.back())) return found;
        pass_ = -1;  // should the next not begin
        frame_.batch.move_on(found.back(), frame_.kv.num_blocks);
        prepare_pass(workspace_->arena());
    }
}

// Events belong to the thread, sums to the part.
void Program::run_traced(std::uint32_t count, int thread) {
    std::vector<TraceEvent>& events = events_[static_cast<std::size_t>(thread)];
    std::int64_t before = nanoseconds();
    pool_->steps(count, thread, [&](std::uint32_t step, int part) {
        std::int64_t* trace = trace_.data() + part * num_instructions() * 2;
        const std::int64_t& waited = waits_[static_cast<std::size_t>(kWaitStride * part)];
        std::int64_t outside = nanoseconds() - before;  // waited for the step to begin
        for (std::int64_t i = steps_[step]; i < steps_[step + 1]; ++i) {
            const std::int64_t waited_before = waited;
            instructions_[i]->run(frame_, part);
            const std::int64_t stop = nanoseconds(), wait = waited - waited_before + outside;
            trace[2 * i] += stop - before - wait;
            trace[2 * i + 1] += wait;
            if (events.size() < kMostEvents) events.push_back({i, before, stop, wait});
            before = stop;
            outside = 0;
        }
    });
}

void Program::write(int value, const float* from) {
    check_pass();
    const std::size_t bytes = static_cast<std::size_t>(rows_of(value) * width_of(value)) * sizeof(float);
    const int copies = frame_.is_local[value] && frame_.replicated ? pool_->num_threads() : 1;
    for (int thread = 0; thread < copies; ++thread) std::memcpy(frame_.value(value, thread), from, bytes);
}

}  // namespace pelton
