// The vocabulary projection with distillation and masked-LM loss, for CPUs with AVX512-BF16; the mathematics and the
// contract are in model/kernels/vocab_loss.py, whose plain version this must equal.
//
// A chunk of tokens at a time, every thread owning a range of the vocabulary:
//   1. logits of student and teacher, transposed (vocabulary x tokens), so that a lane is a token and no sum crosses
//      lanes; running maximum and normaliser on the way;
//   2. the threads' normalisers are combined;
//   3. d(logits) from both logits, in bf16 over the student's, at once multiplied by W into this thread's share of
//      d(features);
//   4. d(W) += d(logits)^T features: the larger the chunk, the fewer passes over W and d(W).
//
// Shapes: T tokens, H width (multiple of 16), V padded vocabulary (multiple of 16), C tokens of a chunk (multiple of 16).
#include <omp.h>
#include <algorithm>
#include <cmath>
#include <vector>
#include "gemm.h"
#include "math.h"
#include "vocab_loss.h"
#include "workspace.h"

namespace {

using namespace distillery;

constexpr long BLOCK = 128;  // vocabulary rows whose d(logits) stay in the second-level cache between 3's two halves

class Walk {
 public:
  explicit Walk(const VocabLoss& arguments)
      : a(arguments), threads(team(a.vocab_rows / TILE_ROWS)), inverse_temperature(1.0f / a.temperature),
        has_teacher(a.teacher_features != nullptr),
        student_packed(0, (size_t)a.chunk * a.width * 2), teacher_packed(1, (size_t)a.chunk * a.teacher_width * 2),
        features_packed(2, (size_t)a.chunk * a.width * 2), student_logits(3, (size_t)a.vocab_rows * a.chunk * 4),
        teacher_logits(4, has_teacher ? (size_t)a.vocab_rows * a.chunk * 4 : 0),
        grad_features(5, (size_t)threads * a.chunk * a.width * 4), student_norms(threads, Normaliser(a.chunk)),
        teacher_norms(threads, Normaliser(a.chunk)), coefficients(a.chunk), kl_of(threads), nll_of(threads),
        block_pairs(threads, std::vector<uint32_t>(BLOCK / 2 * a.chunk)),
        block_weight(threads, std::vector<uint32_t>(BLOCK / 2 * a.width)) {}

  void run() {
#pragma omp parallel num_threads(threads)
    for (long first = 0; first < a.tokens; first += a.chunk)
      walk_chunk(omp_get_thread_num(), first, std::min(a.chunk, a.tokens - first));
    // Thread by thread, so that the sum does not depend on who was first.
    for (int thread = 0; thread < threads; ++thread) {
      a.sums[0] += kl_of[thread];
      a.sums[1] += nll_of[thread];
    }
  }

 private:
  const VocabLoss& a;
  const int threads;
  const float inverse_temperature;
  const bool has_teacher;
  Buffer student_packed, teacher_packed, features_packed, student_logits, teacher_logits, grad_features;
  std::vector<Normaliser> student_norms, teacher_norms;
  Coefficients coefficients;
  std::vector<double> kl_of, nll_of;                           // of each thread, as the two below
  std::vector<std::vector<uint32_t>> block_pairs, block_weight;  // a block's d(logits) and W, packed

  // Threads that really come, at most one for each tile of the vocabulary: a limit on threads may grant fewer than wanted.
  static int team(long tiles) {
    int count = 1;
#pragma omp parallel
#pragma omp single
    count = omp_get_num_threads();
    return (int)std::clamp<long>(tiles, 1, count);
  }

  static long padded(long tokens) { return (tokens + LANES - 1) / LANES * LANES; }

  // This thread's rows of the vocabulary: whole tiles.
  void range(int thread, long& first, long& last) const {
    const long tiles = a.vocab_rows / TILE_ROWS;
    first = tiles * thread / threads * TILE_ROWS;
    last = tiles * (thread + 1) / threads * TILE_ROWS;
  }

  // d(logits) (V, C) in bf16, where the student's logits (V, C) were in fp32: twice the stride.
  uint16_t* grad_logits(long v) const { return (uint16_t*)(student_logits.as<float>() + v * a.chunk); }

  void walk_chunk(int me, long first, long count) {
    const long columns = padded(count);
    pack_right(me, a.student_features, a.width, first, count, student_packed.as<uint32_t>());
    if (has_teacher) pack_right(me, a.teacher_features, a.teacher_width, first, count, teacher_packed.as<uint32_t>());
    pack_features(me, first, count);
#pragma omp barrier
    project(me, first, columns);
#pragma omp barrier
#pragma omp single
    combine(first, count, columns);
    differentiate(me, columns, first == 0);
    weight_gradient(me, columns, first > 0);
#pragma omp barrier
    write_features(me, first, count);
  }

  const uint16_t* row(const uint16_t* features, long width, long position) const {
    return features + a.order[position] * width;
  }

  // Features of the chunk as the right operand of W x^T: [group of 48 tokens][pair along H][token].
  void pack_right(int me, const uint16_t* features, long width, long first, long count, uint32_t* target) const {
    const long columns = padded(count), pairs = width / 2;
    long group = 0;
    for_columns(columns / LANES, [&]<int NR>(long column) {
      if (group++ % threads != me) return;
      for (long token = column; token < column + NR * LANES; ++token) {
        uint32_t* out = target + column * pairs + token - column;
        if (token < count) {
          const uint32_t* source = (const uint32_t*)row(features, width, first + token);
          for (long k = 0; k < pairs; ++k) out[k * NR * LANES] = source[k];
        } else {
          for (long k = 0; k < pairs; ++k) out[k * NR * LANES] = 0;
        }
      }
    });
  }

  // The same features as the right operand of d(logits)^T x: [group of 48 columns of H][pair of tokens][column].
  void pack_features(int me, long first, long count) const {
    const long pairs = padded(count) / 2;
    uint32_t* target = features_packed.as<uint32_t>();
    const __m256i zero = _mm256_setzero_si256();
    for_columns(a.width / LANES, [&]<int NR>(long column) {
      for (long pair = me; pair < pairs; pair += threads)
        for (int n = 0; n < NR; ++n) {
          auto load = [&](long token) {
            if (token >= count) return zero;
            return _mm256_loadu_si256(
                (const __m256i*)(row(a.student_features, a.width, first + token) + column + n * LANES));
          };
          _mm512_storeu_si512(target + column * pairs + (pair * NR + n) * LANES,
                              interleave_bf16(load(2 * pair), load(2 * pair + 1)));
        }
    });
  }

  // Step 1: this thread's rows of both models' logits, and their normalisers.
  void project(int me, long first, long columns) {
    student_norms[me].reset();
    teacher_norms[me].reset();
    const long masked = std::clamp(a.num_masked - first, 0L, columns);
    long begin, end;
    range(me, begin, end);
    project_model(a.student_weight, a.student_bias, a.width, student_packed, student_logits, begin, end, columns,
                  student_norms[me], masked);
    if (has_teacher)
      project_model(a.teacher_weight, a.teacher_bias, a.teacher_width, teacher_packed, teacher_logits, begin, end,
                    columns, teacher_norms[me], 0);
  }

  // One model after the other: the packed features of both would crowd each other out of the second-level cache.
  void project_model(const uint16_t* weight, const float* bias, long width, const Buffer& packed, const Buffer& target,
                     long begin, long end, long columns, Normaliser& norm, long masked) const {
    for (long v = begin; v < end; v += TILE_ROWS) {
      if (v + TILE_ROWS < end) fetch(weight + (v + TILE_ROWS) * width, TILE_ROWS * width);
      for_columns(columns / LANES, [&]<int NR>(long column) {
        logits<NR>(weight, bias, width, packed, target, v, column, norm, masked);
      });
    }
  }

  // Into the second-level cache, while the tiles before it are computed.
  static void fetch(const uint16_t* source, long count) {
    for (long i = 0; i < count; i += 32) _mm_prefetch((const char*)(source + i), _MM_HINT_T1);
  }

  template <int NR>
  inline void logits(const uint16_t* weight, const float* bias, long width, const Buffer& packed, const Buffer& target,
                     long v, long column, Normaliser& norm, long masked) const {
    Tile<TILE_ROWS, NR> tile;
    const long pairs = width / 2;
    multiply(tile, Left{(const uint32_t*)(weight + v * width), pairs, 1},
                 Right{packed.as<uint32_t>() + column * pairs, NR * LANES}, pairs);
    float* out = target.as<float>() + v * a.chunk + column;
#pragma GCC unroll 8
    for (int m = 0; m < TILE_ROWS; ++m) {
      const __m512 added = _mm512_set1_ps(bias[v + m]);
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) {
        tile.sum[m][n] = v + m < a.vocab_size ? _mm512_add_ps(tile.sum[m][n], added) : _mm512_set1_ps(NO_LOGIT);
        _mm512_storeu_ps(out + m * a.chunk + n * LANES, tile.sum[m][n]);
      }
    }
    for (int n = 0; n < NR; ++n) absorb<NR>(tile, n, column + n * LANES, norm, column + n * LANES < masked);
  }

  // Eight more logits of 16 tokens into their maximum and sums.
  template <int NR>
  inline void absorb(const Tile<TILE_ROWS, NR>& tile, int n, long column, Normaliser& norm, bool has_masked) const {
    const __m512 scale = _mm512_set1_ps(inverse_temperature);
    const __m512 before = _mm512_loadu_ps(&norm.largest[column]);
    __m512 largest = before;
#pragma GCC unroll 8
    for (int m = 0; m < TILE_ROWS; ++m) largest = _mm512_max_ps(largest, tile.sum[m][n]);
    __m512 soft = _mm512_setzero_ps(), hard = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int m = 0; m < TILE_ROWS; ++m) {
      const __m512 distance = _mm512_sub_ps(tile.sum[m][n], largest);
      const __m512 power = exponential(_mm512_mul_ps(distance, scale));
      soft = _mm512_add_ps(soft, power);
      if (has_masked) hard = _mm512_add_ps(hard, untempered(power, distance));
    }
    __m512 soft_before = _mm512_loadu_ps(&norm.soft[column]), hard_before = _mm512_loadu_ps(&norm.hard[column]);
    if (_mm512_cmp_ps_mask(largest, before, _CMP_NEQ_OQ)) {
      const __m512 distance = _mm512_sub_ps(before, largest);
      const __m512 power = exponential(_mm512_mul_ps(distance, scale));
      soft_before = _mm512_mul_ps(soft_before, power);
      hard_before = _mm512_mul_ps(hard_before, untempered(power, distance));
      _mm512_storeu_ps(&norm.largest[column], largest);
    }
    _mm512_storeu_ps(&norm.soft[column], _mm512_add_ps(soft_before, soft));
    if (has_masked) _mm512_storeu_ps(&norm.hard[column], _mm512_add_ps(hard_before, hard));
  }

  // e^z where e^(z / T) is at hand: at T = 2 its square, one exponential for both.
  inline __m512 untempered(__m512 power, __m512 distance) const {
    return a.temperature == 2.0f ? _mm512_mul_ps(power, power) : exponential(distance);
  }

  // Step 2: one normaliser for every token of the chunk.
  void combine(long first, long count, long columns) {
    coefficients.real = count;
    for (long token = 0; token < columns; ++token) {
      double soft, hard, largest, teacher_soft, unused, teacher_largest;
      total(student_norms, token, largest, soft, hard);
      total(has_teacher ? teacher_norms : student_norms, token, teacher_largest, teacher_soft, unused);
      const bool is_real = token < count, is_masked = first + token < a.num_masked;
      Coefficients& c = coefficients;
      c.student_max[token] = (float)largest;
      c.teacher_max[token] = (float)teacher_largest;
      c.student_inverse[token] = (float)(1.0 / soft);
      c.teacher_inverse[token] = (float)(1.0 / teacher_soft);
      // log p_teacher - log p_student = ((t - max_t) - (s - max_s)) / T + log_ratio
      c.log_ratio[token] = (float)(std::log(soft) - std::log(teacher_soft));
      c.kl[token] = is_real ? a.kl_scale : 0.0f;
      c.hard_inverse[token] = is_masked ? (float)(1.0 / hard) : 0.0f;
      c.mlm[token] = is_masked ? a.mlm_scale : 0.0f;
      c.label[token] = is_masked ? (int32_t)a.labels[first + token] : -1;
      if (is_masked) a.sums[1] += largest + std::log(hard);  // minus the label's logit, which `differentiate` meets
    }
  }

  void total(const std::vector<Normaliser>& norms, long token, double& largest, double& soft, double& hard) const {
    largest = NO_LOGIT;
    for (const Normaliser& norm : norms) largest = std::max(largest, (double)norm.largest[token]);
    soft = hard = 0.0;
    for (const Normaliser& norm : norms) {
      const double distance = norm.largest[token] - largest;
      soft += norm.soft[token] * std::exp(distance * inverse_temperature);
      hard += norm.hard[token] * std::exp(distance);
    }
  }

  // Step 3: d(logits) of this thread's rows, and their share of d(features) (C, H).
  void differentiate(int me, long columns, bool is_first) {
    long begin, end;
    range(me, begin, end);
    float* share = grad_features.as<float>() + (size_t)me * a.chunk * a.width;
    uint32_t *pairs = block_pairs[me].data(), *weight = block_weight[me].data();
    double my_kl = 0.0, my_nll = 0.0;
    for (long v = begin; v < end; v += BLOCK) {
      const long rows = std::min(BLOCK, end - v);
      for (long column = 0; column < columns; column += LANES)
        gradients(v, rows, column, columns, pairs, my_kl, my_nll);
      for (long r = 0; r < rows; ++r) add_bias_gradient(v + r, columns, is_first);
      pack_weight(v, rows, weight);
      const long upcoming = std::min(BLOCK, end - v - rows) * a.width, portion = upcoming / (columns / TILE_ROWS);
      for (long token = 0; token < columns; token += TILE_ROWS) {
        fetch(a.student_weight + (v + rows) * a.width + token / TILE_ROWS * portion, portion);
        for_columns(a.width / LANES, [&]<int NR>(long column) {
          Tile<TILE_ROWS, NR> tile;
          multiply(tile, Left{pairs + token, 1, columns},
                       Right{weight + column * rows / 2, NR * LANES}, rows / 2);
          store_tile(tile, share + token * a.width + column, a.width, v != begin);
        });
      }
    }
    kl_of[me] += my_kl;
    nll_of[me] += my_nll;
  }

  // d(logits) of 16 tokens for `rows` rows of the vocabulary: over the student's logits, and as pairs along V.
  inline void gradients(long v, long rows, long column, long columns, uint32_t* pairs, double& kl_sum, double& nll_sum) {
    const Coefficients& c = coefficients;
    const __m512 scale = _mm512_set1_ps(inverse_temperature);
    const __m512 student_max = _mm512_loadu_ps(&c.student_max[column]);
    const __m512 teacher_max = _mm512_loadu_ps(&c.teacher_max[column]);
    const __m512 student_inverse = _mm512_loadu_ps(&c.student_inverse[column]);
    const __m512 teacher_inverse = _mm512_loadu_ps(&c.teacher_inverse[column]);
    const __m512 log_ratio = _mm512_loadu_ps(&c.log_ratio[column]);
    const __m512 hard = _mm512_mul_ps(_mm512_loadu_ps(&c.hard_inverse[column]), _mm512_loadu_ps(&c.mlm[column]));
    const __m512 mlm = _mm512_loadu_ps(&c.mlm[column]), kl_scale = _mm512_loadu_ps(&c.kl[column]);
    const __m512i label = _mm512_loadu_si512(&c.label[column]);
    const bool has_masked = _mm512_reduce_max_epi32(label) >= 0;
    const float* student = student_logits.as<float>() + v * a.chunk + column;
    const float* teacher = (has_teacher ? teacher_logits : student_logits).as<float>() + v * a.chunk + column;
    __m512 divergence = _mm512_setzero_ps(), picked = _mm512_setzero_ps();
    for (long r = 0; r < rows; r += 2) {
      __m256i narrow[2];
#pragma GCC unroll 2
      for (int i = 0; i < 2; ++i) {
        const __m512 s = _mm512_loadu_ps(student + (r + i) * a.chunk);
        const __m512 ds = _mm512_sub_ps(s, student_max);
        const __m512 dt = _mm512_sub_ps(_mm512_loadu_ps(teacher + (r + i) * a.chunk), teacher_max);
        const __m512 power = exponential(_mm512_mul_ps(ds, scale));
        const __m512 q = _mm512_mul_ps(power, student_inverse);
        const __m512 p = _mm512_mul_ps(exponential(_mm512_mul_ps(dt, scale)), teacher_inverse);
        const __m512 difference = _mm512_sub_ps(q, p);
        const __m512 log_p_over_q = _mm512_fmadd_ps(_mm512_sub_ps(dt, ds), scale, log_ratio);
        // q - p sums to zero in exact arithmetic; here it cancels, to first order, the rounding of both normalisers.
        divergence = _mm512_add_ps(divergence, _mm512_fmadd_ps(p, log_p_over_q, difference));
        __m512 gradient = _mm512_mul_ps(difference, kl_scale);
        if (has_masked) {
          const __mmask16 is_label = _mm512_cmpeq_epi32_mask(label, _mm512_set1_epi32((int)(v + r + i)));
          gradient = _mm512_fmadd_ps(untempered(power, ds), hard, gradient);
          gradient = _mm512_mask_sub_ps(gradient, is_label, gradient, mlm);
          picked = _mm512_mask_mov_ps(picked, is_label, s);
        }
        narrow[i] = to_bf16(gradient);
        // Columns are walked upwards: these bytes held logits of columns that are done with.
        _mm256_storeu_si256((__m256i*)(grad_logits(v + r + i) + column), narrow[i]);
      }
      _mm512_storeu_si512(pairs + r / 2 * columns + column, interleave_bf16(narrow[0], narrow[1]));
    }
    const __mmask16 is_real = (__mmask16)((1u << std::clamp<long>(c.real - column, 0, LANES)) - 1);
    kl_sum += _mm512_mask_reduce_add_ps(is_real, divergence);
    nll_sum -= _mm512_reduce_add_ps(picked);
  }

  inline void add_bias_gradient(long v, long columns, bool is_first) const {
    const uint16_t* source = grad_logits(v);
    __m512 sum = _mm512_setzero_ps();
    for (long column = 0; column < columns; column += LANES) sum = _mm512_add_ps(sum, load_bf16(source + column));
    const float total = _mm512_reduce_add_ps(sum);
    a.grad_bias[v] = is_first ? total : a.grad_bias[v] + total;
  }

  // Rows [v, v + rows) of W as the right operand of d(logits) W: [group of 48 columns of H][pair of rows][column].
  void pack_weight(long v, long rows, uint32_t* target) const {
    for_columns(a.width / LANES, [&]<int NR>(long column) {
      for (long r = 0; r < rows; r += 2)
        for (int n = 0; n < NR; ++n) {
          const __m256i* upper = (const __m256i*)(a.student_weight + (v + r) * a.width + column + n * LANES);
          const __m256i* lower = (const __m256i*)((const uint16_t*)upper + a.width);
          _mm512_storeu_si512(target + column * rows / 2 + (r / 2 * NR + n) * LANES,
                              interleave_bf16(_mm256_loadu_si256(upper), _mm256_loadu_si256(lower)));
        }
    });
  }

  // The threads' shares of d(features), added up and put where the tokens came from.
  void write_features(int me, long first, long count) const {
    const float* shares = grad_features.as<float>();
    for (long token = me; token < count; token += threads)
      for (long column = 0; column < a.width; column += LANES) {
        __m512 sum = _mm512_loadu_ps(shares + token * a.width + column);
        for (int other = 1; other < threads; ++other)
          sum = _mm512_add_ps(sum, _mm512_loadu_ps(shares + (other * a.chunk + token) * a.width + column));
        _mm512_storeu_ps(a.grad_features + a.order[first + token] * a.width + column, sum);
      }
  }

  // Step 4: d(W) of this thread's rows.
  void weight_gradient(int me, long columns, bool accumulate) const {
    long begin, end;
    range(me, begin, end);
    const long pairs = columns / 2;
    for (long v = begin; v < end; v += TILE_ROWS) {
      if (v + TILE_ROWS < end)
        for (int m = 0; m < TILE_ROWS; ++m) fetch(grad_logits(v + TILE_ROWS + m), columns);
      for_columns(a.width / LANES, [&]<int NR>(long column) {
        Tile<TILE_ROWS, NR> tile;
        float* target = a.grad_weight + v * a.width + column;
        for (int m = 0; m < TILE_ROWS; ++m)
          for (int n = 0; n < NR; ++n) _mm_prefetch((const char*)(target + m * a.width + n * LANES), _MM_HINT_T0);
        multiply(tile, Left{(const uint32_t*)grad_logits(v), a.chunk, 1},
                     Right{features_packed.as<uint32_t>() + column * pairs, NR * LANES}, pairs);
        store_tile(tile, target, a.width, accumulate);
      });
    }
  }
};

}  // namespace

extern "C" int vocab_loss(const VocabLoss* arguments) {
  try {
    const std::lock_guard lock(workspace_mutex());
    Walk(*arguments).run();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}
