#include "kernels/attention.h"

#include "kernels/attention_chunk.h"

namespace pelton::PELTON_ISA {

namespace {

PELTON_INLINE float exp_of(float x) {
    float lanes[16];
    store(lanes, exp(set1(x)));
    return lanes[0];
}

// A key's numbers, or pairs of them, to its position among 32.
template <class Type>
PELTON_INLINE void scatter(const Type* key, int64_t count, Type* place) {
    for (int64_t i = 0; i < count; ++i) place[i * kKvBlock] = key[i];
}

// A NaN becomes the lower limit: max and min return their second operand then.
PELTON_INLINE f32x16 bounded(f32x16 x, float limit) { return min(max(x, set1(-limit)), set1(limit)); }

PELTON_INLINE float largest_of(KvFormat format) {
    if (format == KvFormat::kFloat16) return 65504.0f;
    return format == KvFormat::kBFloat16 ? 3.3895314e38f : 3.4028234e38f;
}

// In place: the row's first half becomes its elements as bfloat16.
PELTON_INLINE void round_to_bfloat16(float* query, int64_t head_dim) {
    for (int64_t i = 0; i < head_dim; i += 16) {
        const int count = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
        uint16_t lanes[16];
        store_bf16(lanes, load_first(query + i, count));
        memcpy(reinterpret_cast<uint16_t*>(query) + i, lanes, static_cast<size_t>(count) * 2);
    }
}

}  // namespace

void attend_chunk(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
                  float* states) {
    switch (tile.format) {
        case KvFormat::kFloat16:
            return chunk_of<HalfKv>(tile, chunk, scores, state_size, states);
        case KvFormat::kBFloat16:
            return chunk_of<BrainKv>(tile, chunk, scores, state_size, states);
        case KvFormat::kInt8:
            return chunk_of<ByteKv>(tile, chunk, scores, state_size, states);
        default:
            return chunk_of<FloatKv>(tile, chunk, scores, state_size, states);
    }
}

void add_mass(const AttentionTile& tile, int64_t chunk, float* scores, int64_t state_size,
              const float* states, float* mass) {
    switch (tile.format) {
        case KvFormat::kFloat16:
            return mass_of<HalfKv>(tile, chunk, scores, state_size, states, mass);
        case KvFormat::kBFloat16:
            return mass_of<BrainKv>(tile, chunk, scores, state_size, states, mass);
        case KvFormat::kInt8:
            return mass_of<ByteKv>(tile, chunk, scores, state_size, states, mass);
        default:
            return mass_of<FloatKv>(tile, chunk, scores, state_size, states, mass);
    }
}

void merge_states(float* state, const float* later, int64_t head_dim) {
    if (later[1] == 0.0f) return;
    const int64_t size = kStateHeader + head_dim;
    if (state[1] == 0.0f) {
        memcpy(state, later, static_cast<size_t>(size) * sizeof(float));
        return;
    }
    const float largest = state[0] > later[0] ? state[0] : later[0];
    const float mine = exp_of(state[0] - largest), theirs = exp_of(later[0] - largest);
    state[0] = largest;
    state[1] = state[1] * mine + later[1] * theirs;
    for (int64_t i = kStateHeader; i < size; i += 16) {
        const int left = size - i < 16 ? static_cast<int>(size - i) : 16;
        const f32x16 sum = load_first(state + i, left) * set1(mine);
        store_first(state + i, left, fma(load_first(later + i, left), set1(theirs), sum));
    }
}

void finish_state(const float* state, float* output, int64_t head_dim) {
    const f32x16 inverse = set1(1.0f / state[1]);
    int64_t i = 0;
    for (; i + 16 <= head_dim; i += 16) store(output + i, load(state + kStateHeader + i) * inverse);
    const int left = static_cast<int>(head_dim - i);
    if (left > 0) store_first(output + i, left, load_first(state + kStateHeader + i, left) * inverse);
}

void round_queries(float* queries, int64_t count, int64_t head_dim, KvFormat format) {
    if (format == KvFormat::kInt8) return make_byte_queries(queries, count, head_dim);
    for (float* query = queries; query < queries + count * head_dim; query += head_dim)
        round_to_bfloat16(query, head_dim);
}

void store_kv(const float* key, const float* value, int64_t head_dim, KvFormat format, int64_t position,
              void* keys, void* values) {
    if (format == KvFormat::kInt8) return store_bytes(key, value, head_dim, position, keys, values);
    const float limit = largest_of(format);
    for (int64_t i = 0; i < head_dim; i += 16) {
        const int count = head_dim - i < 16 ? static_cast<int>(head_dim - i) : 16;
        const f32x16 k = bounded(load_first(key + i, count), limit),
                     v = bounded(load_first(value + i, count), limit);
        const int64_t to_key = key_place(format, position, i),
                      to_value = value_place(format, position, i, head_dim);
        if (format == KvFormat::kFloat32) {
            float lanes[16];
            store(lanes, k);
            scatter(lanes, count, static_cast<float*>(keys) + to_key);
            store_first(static_cast<float*>(values) + to_value, count, v);
        } else if (format == KvFormat::kFloat16) {
            uint16_t lanes[16];
            store_f16(lanes, k);
            scatter(lanes, count, static_cast<uint16_t*>(keys) + to_key);
            store_f16(lanes, v);
            memcpy(static_cast<uint16_t*>(values) + to_value, lanes, static_cast<size_t>(count) * 2);
        } else {
            uint16_t lanes[32];
            uint32_t pairs[8];
            store_bf16(lanes, k, v);
            memcpy(pairs, lanes, sizeof pairs);
            scatter(pairs, count / 2, static_cast<uint32_t*>(keys) + to_key / 2);
            auto* places = static_cast<uint16_t*>(values) + to_value;
            if (count == 16) {
                store_apart(places, lanes + 16);
            } else {
                for (int j = 0; j < count; ++j) places[2 * j] = lanes[16 + j];
            }
        }
    }
}

}  // namespace pelton::PELTON_ISA
