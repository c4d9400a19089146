// Attention with the KV arena: stores keys and values of all rows, then reads what each query may see.
#pragma once

#include <memory>

#include "runtime/attend_work.h"
#include "runtime/instruction.h"
#include "runtime/rope_table.h"
#include "runtime/shared_items.h"

namespace pelton {

struct AttendSpec {
    std::int64_t kv_layer;
    float scale, cap;
    std::shared_ptr<RopeTable> query_rope, key_rope;  // null: q or k are rotated already
    bool wants_mass;
};

class AttendInstruction : public Instruction {
  public:
    AttendInstruction(int q, int k, int v, int output, AttendSpec spec, std::shared_ptr<AttendWork> work);
    void check(const ValueCheck& values) const override;
    void prepare(const Frame& frame) override;
    void start(const Frame& frame) override;
    void run(const Frame& frame, int thread) const override;
    const char* name() const noexcept override { return "attend"; }
    bool meets_when_replicated() const noexcept override { return true; }

    // The attention after this one, of `layer`.
    void set_next(std::shared_ptr<const AttendWork> next, std::int64_t layer) noexcept {
        next_ = std::move(next);
        next_layer_ = layer;
    }
    bool wants_mass() const noexcept { return spec_.wants_mass; }
    // After a run: the attention mass per span and slot, [spans, most blocks * 32].
    const std::vector<float>& mass() const noexcept { return mass_; }

  private:
    bool stores_first(const RaggedBatch& batch) const noexcept;
    void store_row(const Frame& frame, std::int64_t row, RowRange kv_heads, int thread) const;
    void run_units(const Frame& frame, bool store_first, int thread) const;
    void run_unit(const Frame& frame, const AttendUnit& unit, const AttendUnit* next, int thread) const;
    void run_shared_unit(const Frame& frame, const SharedUnit& unit, int thread) const;
    void load_queries(const Frame& frame, const AttendTile& tile, RowRange heads, std::int64_t first,
                      int thread) const;
    AttentionTile loaded(const Frame& frame, std::int64_t queries, int thread) const;
    AttentionTile load_tile(const Frame& frame, const AttendUnit& unit, const AttendUnit* next,
                            int thread) const;
    std::int64_t find_blocks(const Frame& frame, const AttendUnit& unit, AttendScratch& scratch) const;
    void ask_ahead(const Frame& frame, std::int64_t end, const AttendUnit* next,
                   AttendScratch& scratch) const;
    void gather_blocks(const Frame& frame, const AttendUnit& unit, AttendScratch& scratch) const;
    void merge_rows(const Frame& frame, int thread) const;
    void merge_row(const Frame& frame, const AttendTile& tile, std::int64_t row, int thread) const;
    void add_span_mass(const Frame& frame, const AttendTile& tile, int thread) const;

    int q_, k_, v_, output_;
    AttendSpec spec_;
    std::shared_ptr<AttendWork> work_;
    std::shared_ptr<const AttendWork> next_;  // null: there is none
    std::int64_t next_layer_ = 0;
    mutable SharedItems units_;
    mutable std::vector<float> mass_;
};

}  // namespace pelton
