// Attention over packed sequences for CPUs with AVX512-BF16: scores never leave the second-level cache, backward computes
// them again (Dao et al. 2022), and dropout again from its counters.
//
// A task is one head of one sequence. Scores are held transposed (keys x queries), so that a lane is a query: softmax
// needs no sum across lanes, and pairs of neighbouring keys come from two rows.
//
// Shapes: T tokens, A heads, D head width (multiple of 16), L length of a sequence.
#include <omp.h>
#include <algorithm>
#include <cmath>
#include <vector>
#include "gemm.h"
#include "math.h"
#include "philox.h"

extern "C" {

struct Attention {
  const uint16_t* qkv;       // (T, 3, A, D) bf16
  const int32_t* cu_seqlens; // (S + 1)
  uint16_t* out;             // (T, A, D) bf16; read by backward
  float* log_sum;            // (A, T): log2 of the softmax's denominator; read by backward
  const uint16_t* grad_out;  // (T, A, D); backward only
  uint16_t* grad_qkv;        // (T, 3, A, D); backward only
  int64_t tokens, sequences, heads, width;
  uint64_t seed;
  uint32_t drop_below;  // an element whose 16 bits are below is dropped; 0: no dropout
};

}  // extern "C"

namespace {

using namespace distillery;

constexpr long QUERIES = TILE_COLUMNS;  // of a block
constexpr long KEYS = 96;               // of a block in backward: two bf16 tiles in the first-level cache
constexpr long TALLEST = 12;            // rows of the tallest tile
constexpr float MASKED = -1e30f;

// Rows of one head, `count` of them, `stride` apart, as uint32 pairs along D.
struct Rows {
  const uint16_t* data;
  long stride, count;
  const uint32_t* pairs(long row) const { return (const uint32_t*)(data + row * stride); }
};

class Head {
 public:
  Head(const Attention& a, long longest)
      : a(a), pairs(a.width / 2), rows((longest + KEYS - 1) / KEYS * KEYS), scale(1.0f / std::sqrt((float)a.width)),
        keep_scale(65536.0f / (65536.0f - a.drop_below)), keys(rows * pairs), values(rows * pairs),
        right(rows / 2 * a.width), queries(pairs * QUERIES), grads(pairs * QUERIES), scores(rows * QUERIES),
        weights(rows / 2 * QUERIES) {}

  void forward(long sequence, long head) {
    locate(sequence, head);
    copy_rows(part(1), keys.data());
    interleave_rows(part(2), right.data());
    for (long query = 0; query < length; query += QUERIES) {
      const long groups = (std::min(QUERIES, length - query) + LANES - 1) / LANES;
      transpose_rows(part(0), query, queries.data());
      groups == 3 ? forward_block<3>(query) : groups == 2 ? forward_block<2>(query) : forward_block<1>(query);
    }
  }

  void backward(long sequence, long head) {
    locate(sequence, head);
    copy_rows(part(1), keys.data());
    copy_rows(part(2), values.data());
    interleave_rows(part(1), right.data());
    grad_keys.assign(rows * a.width, 0.0f);
    grad_values.assign(rows * a.width, 0.0f);
    for (long query = 0; query < length; query += QUERIES) {
      const long groups = (std::min(QUERIES, length - query) + LANES - 1) / LANES;
      transpose_rows(part(0), query, queries.data());
      transpose_rows(output_rows(a.grad_out), query, grads.data());
      groups == 3 ? backward_block<3>(query) : groups == 2 ? backward_block<2>(query) : backward_block<1>(query);
    }
    write_rows(grad_keys.data(), grad_part(1), 3 * a.heads * a.width, length);
    write_rows(grad_values.data(), grad_part(2), 3 * a.heads * a.width, length);
  }

 private:
  const Attention& a;
  const long pairs, rows;
  const float scale, keep_scale;
  std::vector<uint32_t> keys, values, right, queries, grads;
  std::vector<float> scores;
  std::vector<uint32_t> weights;  // [pair of keys][query]
  std::vector<float> grad_keys, grad_values;
  std::vector<uint32_t> right_queries, right_grads;
  long first = 0, length = 0, head = 0;

  void locate(long sequence, long which) {
    first = a.cu_seqlens[sequence];
    length = a.cu_seqlens[sequence + 1] - first;
    head = which;
  }

  // Query, key or value of this head: part 0, 1, 2.
  Rows part(long which) const {
    const long stride = 3 * a.heads * a.width;
    return {a.qkv + first * stride + (which * a.heads + head) * a.width, stride, length};
  }
  uint16_t* grad_part(long which) const {
    return a.grad_qkv + (part(which).data - a.qkv);
  }
  Rows output_rows(const uint16_t* tensor) const {
    const long stride = a.heads * a.width;
    return {tensor + first * stride + head * a.width, stride, length};
  }

  // Rows one after the other, zeros behind them up to a whole block of keys.
  void copy_rows(Rows source, uint32_t* target) const {
    const long padded = (source.count + KEYS - 1) / KEYS * KEYS;
    for (long row = 0; row < padded; ++row)
      for (long k = 0; k < pairs; ++k) target[row * pairs + k] = row < source.count ? source.pairs(row)[k] : 0;
  }

  // Pairs of neighbouring rows: [pair of rows][D], zeros behind.
  void interleave_rows(Rows source, uint32_t* target, long begin = 0, long padded = 0) const {
    if (padded == 0) padded = (source.count + KEYS - 1) / KEYS * KEYS;
    auto load = [&](long row, long column) {
      if (row >= source.count) return _mm256_setzero_si256();
      return _mm256_loadu_si256((const __m256i*)(source.data + row * source.stride + column));
    };
    for (long row = 0; row < padded; row += 2)
      for (long column = 0; column < a.width; column += LANES)
        _mm512_storeu_si512(target + row / 2 * a.width + column,
                            interleave_bf16(load(begin + row, column), load(begin + row + 1, column)));
  }

  // A block of rows as columns: [pair along D][row].
  void transpose_rows(Rows source, long begin, uint32_t* target) const {
    for (long row = 0; row < QUERIES; row += LANES)
      for (long k = 0; k < pairs; k += LANES) {
        const long width = std::min<long>(LANES, pairs - k);
        const __mmask16 some = (__mmask16)((1u << width) - 1);
        __m512i block[LANES];
        for (int i = 0; i < LANES; ++i)
          block[i] = begin + row + i < source.count ? _mm512_maskz_loadu_epi32(some, source.pairs(begin + row + i) + k)
                                                    : _mm512_setzero_si512();
        transpose(block);
        for (int i = 0; i < width; ++i) _mm512_storeu_si512(target + (k + i) * QUERIES + row, block[i]);
      }
  }

  // Scores of 8 keys for NR * 16 queries, in units of log 2; absent keys masked.
  template <int NR>
  inline void score(Tile<TILE_ROWS, NR>& tile, long key) const {
    multiply(tile, Left{keys.data() + key * pairs, pairs, 1}, Right{queries.data(), QUERIES}, pairs);
    const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
#pragma GCC unroll 8
    for (int m = 0; m < TILE_ROWS; ++m)
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n)
        tile.sum[m][n] = key + m < length ? _mm512_mul_ps(tile.sum[m][n], factor) : _mm512_set1_ps(MASKED);
  }

  // Factor of 8 neighbouring keys' dropout for 16 queries: 0 or 1 / (1 - p).
  inline void dropout(long query, long key, __m512 factor[TILE_ROWS]) const {
    const __m512i token = _mm512_add_epi32(_mm512_set1_epi32((int)(first + query)), lane_numbers());
    __m512i words[4] = {token, _mm512_set1_epi32((int)(key / TILE_ROWS)), _mm512_set1_epi32((int)head),
                        _mm512_setzero_si512()};
    philox(words, a.seed);
    const __m512i threshold = _mm512_set1_epi32((int)a.drop_below);
    const __m512 kept = _mm512_set1_ps(keep_scale);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) {
      const __m512i low = _mm512_and_si512(words[w], _mm512_set1_epi32(0xFFFF)), high = _mm512_srli_epi32(words[w], 16);
      factor[2 * w] = _mm512_maskz_mov_ps(_mm512_cmpge_epi32_mask(low, threshold), kept);
      factor[2 * w + 1] = _mm512_maskz_mov_ps(_mm512_cmpge_epi32_mask(high, threshold), kept);
    }
  }

  template <int NR>
  void forward_block(long query) {
    __m512 largest[NR], sum[NR];
    for (int n = 0; n < NR; ++n) largest[n] = _mm512_set1_ps(MASKED), sum[n] = _mm512_setzero_ps();
    for (long key = 0; key < length; key += TILE_ROWS) {
      Tile<TILE_ROWS, NR> tile;
      score<NR>(tile, key);
      for (int m = 0; m < TILE_ROWS; ++m)
        for (int n = 0; n < NR; ++n) {
          largest[n] = _mm512_max_ps(largest[n], tile.sum[m][n]);
          _mm512_storeu_ps(&scores[(key + m) * QUERIES + n * LANES], tile.sum[m][n]);
        }
    }
    for (long key = 0; key < length; key += TILE_ROWS)
      for (int n = 0; n < NR; ++n) {
        __m512 factor[TILE_ROWS], weight[TILE_ROWS];
        if (a.drop_below) dropout(query + n * LANES, key, factor);
        for (int m = 0; m < TILE_ROWS; ++m) {
          const __m512 s = _mm512_loadu_ps(&scores[(key + m) * QUERIES + n * LANES]);
          weight[m] = power_of_two(_mm512_sub_ps(s, largest[n]));
          sum[n] = _mm512_add_ps(sum[n], weight[m]);
          if (a.drop_below) weight[m] = _mm512_mul_ps(weight[m], factor[m]);
        }
        for (int m = 0; m < TILE_ROWS; m += 2)
          _mm512_storeu_si512(&weights[(key + m) / 2 * QUERIES + n * LANES],
                              interleave_bf16(to_bf16(weight[m]), to_bf16(weight[m + 1])));
      }
    alignas(64) float inverse[QUERIES], log_sum[QUERIES];
    for (int n = 0; n < NR; ++n) {
      _mm512_store_ps(inverse + n * LANES, _mm512_div_ps(_mm512_set1_ps(1.0f), sum[n]));
      _mm512_store_ps(log_sum + n * LANES, largest[n]);
    }
    const long count = std::min<long>(NR * LANES, length - query);
    for (long i = 0; i < count; ++i) a.log_sum[head * a.tokens + first + query + i] = log_sum[i] - std::log2(inverse[i]);
    const long stride = a.heads * a.width;
    weights_times_right(NR * LANES, count, inverse, a.out + (first + query) * stride + head * a.width, stride);
  }

  // A times [pair][D], tile by tile: `store(row, column, tile)`. Rows: a multiple of 12, or, where a row may be stored
  // twice, any number above.
  template <class Store>
  void times_right(Left left, const uint32_t* by, long count, long steps, Store store) const {
    auto tiles = [&]<int MR, int NR>(long column) {
      for (long row = 0; row < count; row += MR) {
        Tile<MR, NR> tile;
        const long begin = std::min<long>(row, count - MR);
        multiply(tile, Left{left.data + begin * left.row, left.row, left.step}, Right{by + column, a.width}, steps);
        store(begin, column, tile);
      }
    };
    long column = 0;
    for (; column + 64 <= a.width; column += 64) tiles.template operator()<6, 4>(column);
    for (; column + 32 <= a.width; column += 32) tiles.template operator()<TALLEST, 2>(column);
    for (; column < a.width; column += 16) tiles.template operator()<TALLEST, 1>(column);
  }

  // A block of queries' weights [pair of keys][query], transposed, times `right` [pair of keys][D], scaled, as bf16.
  void weights_times_right(long queries, long count, const float* factors, uint16_t* target, long stride) const {
    const long steps = (length + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS / 2;
    times_right(Left{weights.data(), 1, QUERIES}, right.data(), queries, steps,
                [&]<int MR, int NR>(long row, long column, const Tile<MR, NR>& tile) {
                  for (int m = 0; m < MR && row + m < count; ++m)
                    for (int n = 0; n < NR; ++n)
                      store_bf16(target + (row + m) * stride + column + n * LANES,
                                 _mm512_mul_ps(tile.sum[m][n], _mm512_set1_ps(factors ? factors[row + m] : 1.0f)));
                });
  }

  template <int NR>
  void backward_block(long query) {
    const long count = std::min<long>(NR * LANES, length - query);
    alignas(64) float log_sum[QUERIES] = {}, delta[QUERIES] = {};
    for (long i = 0; i < count; ++i) {
      log_sum[i] = a.log_sum[head * a.tokens + first + query + i];
      delta[i] = dot(output_rows(a.grad_out).data, output_rows(a.out).data, query + i);
    }
    right_queries.resize(QUERIES / 2 * a.width);
    right_grads.resize(QUERIES / 2 * a.width);
    interleave_rows(part(0), right_queries.data(), query, QUERIES);
    interleave_rows(output_rows(a.grad_out), right_grads.data(), query, QUERIES);
    for (long key = 0; key < length; key += KEYS) backward_keys<NR>(query, key, log_sum, delta);
    const long stride = part(0).stride;
    weights_times_right(NR * LANES, count, nullptr, grad_part(0) + query * stride, stride);
  }

  // One block of keys: d(scores) kept for d(query), d(key) and d(value) added up.
  template <int NR>
  void backward_keys(long query, long key, const float* log_sum, const float* delta) {
    alignas(64) uint16_t dropped[KEYS * QUERIES], grad_scores[KEYS * QUERIES];  // [key][query]
    const long end = std::min(KEYS, (length - key + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS);
    for (long k = 0; k < end; k += TILE_ROWS) {
      Tile<TILE_ROWS, NR> score_tile, grad_tile;
      score<NR>(score_tile, key + k);
      multiply(grad_tile, Left{values.data() + (key + k) * pairs, pairs, 1}, Right{grads.data(), QUERIES}, pairs);
      for (int n = 0; n < NR; ++n) {
        const __m512 offset = _mm512_load_ps(log_sum + n * LANES), mean = _mm512_load_ps(delta + n * LANES);
        __m512 factor[TILE_ROWS];
        if (a.drop_below) dropout(query + n * LANES, key + k, factor);
        __m256i narrow[TILE_ROWS];
        for (int m = 0; m < TILE_ROWS; ++m) {
          const __m512 weight = power_of_two(_mm512_sub_ps(score_tile.sum[m][n], offset));
          __m512 kept = weight, grad = grad_tile.sum[m][n];
          if (a.drop_below) kept = _mm512_mul_ps(weight, factor[m]), grad = _mm512_mul_ps(grad, factor[m]);
          const long at = (k + m) * QUERIES + n * LANES;
          _mm256_store_si256((__m256i*)(dropped + at), to_bf16(kept));
          grad = _mm512_mul_ps(_mm512_mul_ps(weight, _mm512_sub_ps(grad, mean)), _mm512_set1_ps(scale));
          narrow[m] = to_bf16(grad);
          _mm256_store_si256((__m256i*)(grad_scores + at), narrow[m]);
        }
        for (int m = 0; m < TILE_ROWS; m += 2)
          _mm512_storeu_si512(&weights[(key + k + m) / 2 * QUERIES + n * LANES],
                              interleave_bf16(narrow[m], narrow[m + 1]));
      }
    }
    const long tall = (end + TALLEST - 1) / TALLEST * TALLEST;
    for (long at = end * QUERIES; at < tall * QUERIES; ++at) dropped[at] = grad_scores[at] = 0;
    add_product(dropped, right_grads.data(), tall, NR * LANES / 2, &grad_values[key * a.width]);
    add_product(grad_scores, right_queries.data(), tall, NR * LANES / 2, &grad_keys[key * a.width]);
  }

  // target (keys, D) += left [key][query] times [pair of queries][D].
  void add_product(const uint16_t* left, const uint32_t* by, long count, long steps, float* target) const {
    times_right(Left{(const uint32_t*)left, QUERIES / 2, 1}, by, count, steps,
                [&]<int MR, int NR>(long row, long column, const Tile<MR, NR>& tile) {
                  store_tile(tile, target + row * a.width + column, a.width, true);
                });
  }

  float dot(const uint16_t* x, const uint16_t* y, long row) const {
    const long at = row * a.heads * a.width;
    __m512 sum = _mm512_setzero_ps();
    for (long k = 0; k < a.width; k += LANES)
      sum = _mm512_fmadd_ps(load_bf16(x + at + k), load_bf16(y + at + k), sum);
    return _mm512_reduce_add_ps(sum);
  }

  void write_rows(const float* source, uint16_t* target, long stride, long count) const {
    for (long row = 0; row < count; ++row)
      for (long k = 0; k < a.width; k += LANES)
        store_bf16(target + row * stride + k, _mm512_loadu_ps(source + row * a.width + k));
  }
};

// Every head of every sequence, dealt to the threads one by one.
template <class Task>
int for_heads(const Attention& a, Task task) {
  long longest = 0;
  for (long s = 0; s < a.sequences; ++s) longest = std::max<long>(longest, a.cu_seqlens[s + 1] - a.cu_seqlens[s]);
  int failed = 0;
#pragma omp parallel
  try {
    Head head(a, longest);
#pragma omp for schedule(dynamic) nowait
    for (long i = 0; i < a.sequences * a.heads; ++i) task(head, i / a.heads, i % a.heads);
  } catch (const std::bad_alloc&) {
#pragma omp atomic write
    failed = 1;
  }
  return failed;
}

}  // namespace

extern "C" int attention_forward(const Attention* a) {
  return for_heads(*a, [](Head& head, long sequence, long which) { head.forward(sequence, which); });
}

extern "C" int attention_backward(const Attention* a) {
  return for_heads(*a, [](Head& head, long sequence, long which) { head.backward(sequence, which); });
}
