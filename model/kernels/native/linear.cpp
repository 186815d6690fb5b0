// Linear layers over bf16 rows, y = x W^T + b with or without GELU, forward and backward, for CPUs with AVX512-BF16.
//
// A panel is up to 48 columns of the result. Its operand is packed by the thread that owns it and stays in that thread's
// second-level cache while the rows stream past.
//
// Shapes: T tokens (at least 8), K width of the input, N of the output (both multiples of 16).
#include <omp.h>
#include <algorithm>
#include <vector>
#include "gemm.h"
#include "math.h"
#include "philox.h"
#include "workspace.h"

extern "C" {

struct Linear {
  const uint16_t* input;     // (T, K)
  const uint16_t* weight;    // (N, K)
  const uint16_t* bias;      // (N); forward only
  uint16_t* inner;           // (T, N): x W^T + b, what GELU read; null without GELU, or where there is no backward
  uint16_t* out;             // (T, N); forward only
  const uint16_t* grad_out;  // (T, N); backward from here on
  uint16_t* grad_input;      // (T, K)
  uint16_t* grad_weight;     // (N, K)
  float* grad_bias;          // (N)
  int64_t tokens, width, outputs, has_gelu;
};

}  // extern "C"

namespace {

using namespace distillery;

constexpr long BLOCK_ROWS = 32;     // of d(out), packed at a time
constexpr long SPAN_TOKENS = 1024;  // of backward: what is packed of them stays in the last-level cache

// The normal distribution's cumulative function and e^(-x^2 / 2) (Abramowitz and Stegun 7.1.26, 1.5e-7).
inline __m512 cumulative(__m512 x, __m512& bell) {
  const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
  const __m512 t = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), _mm512_set1_ps(1.0f)));
  __m512 p = _mm512_set1_ps(1.061405429f);
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-1.453152027f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(1.421413741f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(-0.284496736f));
  p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(0.254829592f));
  bell = power_of_two(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-LOG2_E)));
  const __m512 tail = _mm512_mul_ps(_mm512_mul_ps(_mm512_mul_ps(p, t), bell), _mm512_set1_ps(0.5f));
  const __mmask16 positive = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ);
  return _mm512_mask_sub_ps(tail, positive, _mm512_set1_ps(1.0f), tail);
}

inline __m512 gelu(__m512 x) {
  __m512 bell;
  return _mm512_mul_ps(x, cumulative(x, bell));
}

inline __m512 gelu_slope(__m512 x) {
  __m512 bell;
  const __m512 share = cumulative(x, bell);
  return _mm512_fmadd_ps(_mm512_mul_ps(x, bell), _mm512_set1_ps(0.39894228f), share);
}

struct Panel {
  long column;
  int groups;
};

std::vector<Panel> panels(long columns) {
  std::vector<Panel> result;
  for_columns(columns / LANES, [&]<int NR>(long column) { result.push_back({column, NR}); });
  return result;
}

// Runs `task.template operator()<NR>(column, packed)` for every panel, dealt to the threads; `pairs` is the operand's depth.
template <class Task>
int for_panels(long columns, long pairs, Task task) {
  const std::vector<Panel> all = panels(columns);
  int failed = 0;
#pragma omp parallel
  {
    // Kept by the thread: fresh pages would be faulted in anew by every layer.
    static thread_local std::vector<uint32_t> packed;
    try {
      packed.resize(std::max(packed.size(), (size_t)pairs * TILE_COLUMNS));
    } catch (const std::bad_alloc&) {
#pragma omp atomic write
      failed = 1;
    }
#pragma omp barrier
#pragma omp for schedule(dynamic)
    for (size_t i = 0; i < all.size(); ++i) {
      if (failed) continue;
      const Panel& panel = all[i];
      if (panel.groups == 3) task.template operator()<3>(panel.column, packed.data());
      if (panel.groups == 2) task.template operator()<2>(panel.column, packed.data());
      if (panel.groups == 1) task.template operator()<1>(panel.column, packed.data());
    }
  }
  return failed;
}

// NR * 16 rows of W as columns: [pair along K][row].
template <int NR>
void pack_transposed(const uint16_t* rows, long width, uint32_t* target) {
  const long pairs = width / 2;
  for (long k = 0; k < pairs; k += LANES) {
    const long some = std::min<long>(LANES, pairs - k);
    for (int n = 0; n < NR; ++n) {
      __m512i block[LANES];
      for (int i = 0; i < LANES; ++i)
        block[i] = _mm512_maskz_loadu_epi32((__mmask16)((1u << some) - 1),
                                            (const uint32_t*)(rows + (n * LANES + i) * width) + k);
      transpose(block);
      for (int i = 0; i < some; ++i) _mm512_storeu_si512(target + ((k + i) * NR + n) * LANES, block[i]);
    }
  }
}

// NR * 16 columns of a matrix (count, width), rows in pairs: [pair of rows][column]; an odd last row is paired with zeros.
template <int NR>
void pack_interleaved(const uint16_t* columns, long width, long count, uint32_t* target) {
  for (long row = 0; row < count; row += 2)
    for (int n = 0; n < NR; ++n) {
      const uint16_t* source = columns + row * width + n * LANES;
      const __m256i next = row + 1 < count ? _mm256_loadu_si256((const __m256i*)(source + width)) : _mm256_setzero_si256();
      _mm512_storeu_si512(target + (row / 2 * NR + n) * LANES,
                          interleave_bf16(_mm256_loadu_si256((const __m256i*)source), next));
    }
}

// Rows of A (count >= 8, `depth` wide) times a packed panel; `store(row, tile)`. The last tile may begin earlier than its
// turn: its rows are computed twice.
template <int NR, class Store>
inline void rows_times_panel(const uint16_t* left, long depth, long count, const uint32_t* packed, Store store) {
  for (long turn = 0; turn < count; turn += TILE_ROWS) {
    const long row = std::min(turn, count - TILE_ROWS);
    Tile<TILE_ROWS, NR> tile;
    multiply(tile, Left{(const uint32_t*)(left + row * depth), depth / 2, 1}, Right{packed, NR * LANES}, depth / 2);
    store(row, tile);
  }
}

template <int NR>
inline void store_narrow(const Tile<TILE_ROWS, NR>& tile, uint16_t* target, long stride) {
  for (int m = 0; m < TILE_ROWS; ++m)
    for (int n = 0; n < NR; ++n) store_bf16(target + m * stride + n * LANES, tile.sum[m][n]);
}

int forward(const Linear& a) {
  return for_panels(a.outputs, a.width / 2, [&]<int NR>(long column, uint32_t* packed) {
    pack_transposed<NR>(a.weight + column * a.width, a.width, packed);
    __m512 bias[NR];
    for (int n = 0; n < NR; ++n) bias[n] = load_bf16(a.bias + column + n * LANES);
    rows_times_panel<NR>(a.input, a.width, a.tokens, packed, [&](long row, Tile<TILE_ROWS, NR>& tile) {
      const long at = row * a.outputs + column;
      for (int m = 0; m < TILE_ROWS; ++m)
        for (int n = 0; n < NR; ++n) tile.sum[m][n] = _mm512_add_ps(tile.sum[m][n], bias[n]);
      if (a.inner) store_narrow(tile, a.inner + at, a.outputs);
      if (a.has_gelu)
        for (int m = 0; m < TILE_ROWS; ++m)
          for (int n = 0; n < NR; ++n) tile.sum[m][n] = gelu(tile.sum[m][n]);
      store_narrow(tile, a.out + at, a.outputs);
    });
  });
}

// d(out), through GELU where there is one, as the left operand of d(W): [8 outputs][pair of tokens][output]; its rows as
// they are, in `straight`, where GELU changed them; and its sums over tokens.
void pack_gradient(const Linear& a, uint32_t* tiles, uint16_t* straight) {
  const long pairs = (a.tokens + 1) / 2;
  const int threads = omp_get_max_threads();
  std::vector<float> sums((size_t)threads * a.outputs);
#pragma omp parallel num_threads(threads)
  {
    float* own = sums.data() + (size_t)omp_get_thread_num() * a.outputs;
#pragma omp for schedule(static)
    for (long block = 0; block < a.tokens; block += BLOCK_ROWS) {
      const long end = std::min(block + BLOCK_ROWS, a.tokens);
      for (long n = 0; n < a.outputs; n += LANES) {
        __m512 sum = _mm512_loadu_ps(own + n);
        auto gradient = [&](long row) {
          if (row >= end) return _mm256_setzero_si256();
          const long at = row * a.outputs + n;
          __m512 grad = load_bf16(a.grad_out + at);
          if (a.has_gelu) grad = _mm512_mul_ps(grad, gelu_slope(load_bf16(a.inner + at)));
          sum = _mm512_add_ps(sum, grad);
          const __m256i narrow = to_bf16(grad);
          if (a.has_gelu) _mm256_storeu_si256((__m256i*)(straight + at), narrow);
          return narrow;
        };
        for (long row = block; row < end; row += 2) {
          const __m256i first = gradient(row), second = gradient(row + 1);
          const __m512i both = interleave_bf16(first, second);
          uint32_t* target = tiles + (n * pairs + row / 2 * TILE_ROWS);
          _mm256_storeu_si256((__m256i*)target, _mm512_castsi512_si256(both));
          _mm256_storeu_si256((__m256i*)(target + pairs * TILE_ROWS), _mm512_extracti64x4_epi64(both, 1));
        }
        _mm512_storeu_ps(own + n, sum);
      }
    }
  }
  for (long n = 0; n < a.outputs; ++n)
    for (int thread = 0; thread < threads; ++thread) a.grad_bias[n] += sums[(size_t)thread * a.outputs + n];
}

// d(W) of a span into `target`, or, where there are several, added up in `sums` (N, K) until the last.
template <int NR>
void store_weight_gradient(Tile<TILE_ROWS, NR>& tile, float* sums, uint16_t* target, long stride, bool is_first,
                           bool is_last) {
  if (!is_last) return store_tile(tile, sums, stride, !is_first);
  if (!is_first)
    for (int m = 0; m < TILE_ROWS; ++m)
      for (int n = 0; n < NR; ++n)
        tile.sum[m][n] = _mm512_add_ps(tile.sum[m][n], _mm512_loadu_ps(sums + m * stride + n * LANES));
  store_narrow(tile, target, stride);
}

int backward_span(const Linear& a, float* sums, bool is_first, bool is_last) {
  const long pairs = (a.tokens + 1) / 2;
  const Buffer tiles(0, (size_t)pairs * a.outputs * 4), straight(1, a.has_gelu ? (size_t)a.tokens * a.outputs * 2 : 0);
  pack_gradient(a, tiles.as<uint32_t>(), straight.as<uint16_t>());
  const uint16_t* rows = a.has_gelu ? straight.as<uint16_t>() : a.grad_out;
  const int failed = for_panels(a.width, a.outputs / 2, [&]<int NR>(long column, uint32_t* packed) {
    pack_interleaved<NR>(a.weight + column, a.width, a.outputs, packed);
    rows_times_panel<NR>(rows, a.outputs, a.tokens, packed, [&](long row, const Tile<TILE_ROWS, NR>& tile) {
      store_narrow(tile, a.grad_input + row * a.width + column, a.width);
    });
  });
  return failed | for_panels(a.width, pairs, [&]<int NR>(long column, uint32_t* packed) {
    pack_interleaved<NR>(a.input + column, a.width, a.tokens, packed);
    for (long n = 0; n < a.outputs; n += TILE_ROWS) {
      Tile<TILE_ROWS, NR> tile;
      multiply(tile, Left{tiles.as<uint32_t>() + n * pairs, 1, TILE_ROWS}, Right{packed, NR * LANES}, pairs);
      const long at = n * a.width + column;
      store_weight_gradient(tile, sums + at, a.grad_weight + at, a.width, is_first, is_last);
    }
  });
}

int backward(const Linear& a) {
  const long spans = (a.tokens + SPAN_TOKENS - 1) / SPAN_TOKENS;
  const long size = ((a.tokens + spans - 1) / spans + BLOCK_ROWS - 1) / BLOCK_ROWS * BLOCK_ROWS;
  const Buffer sums(2, spans > 1 ? (size_t)a.outputs * a.width * 4 : 0);
  std::fill_n(a.grad_bias, a.outputs, 0.0f);
  int failed = 0;
  for (long first = 0, count; first < a.tokens; first += count) {
    // What is left over and less than a tile goes with the span before it.
    count = a.tokens - first < size + TILE_ROWS ? a.tokens - first : size;
    Linear span = a;
    span.tokens = count;
    span.input += first * a.width;
    span.grad_input += first * a.width;
    span.grad_out += first * a.outputs;
    if (a.has_gelu) span.inner += first * a.outputs;
    failed |= backward_span(span, sums.as<float>(), first == 0, first + count == a.tokens);
  }
  return failed;
}

template <class Run>
int guarded(Run run) {
  try {
    return run();
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

extern "C" int linear_forward(const Linear* a) {
  return guarded([&] { return forward(*a); });
}

// GELU alone, for what backward computes again; `count` a multiple of 16.
extern "C" void gelu_forward(const uint16_t* inner, uint16_t* out, int64_t count) {
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count / LANES; ++i) store_bf16(out + i * LANES, gelu(load_bf16(inner + i * LANES)));
}

extern "C" int linear_backward(const Linear* a) {
  return guarded([&] {
    const std::lock_guard lock(workspace_mutex());
    return backward(*a);
  });
}
