// norm(residual + dropout(hidden)) over rows of bf16, forward and backward, for CPUs with AVX512-BF16.
//
// Dropout is drawn as model/kernels/philox.py says: element i of the flat tensor is half i % 8 of group i / 8.
// Shapes: T rows, H width (multiple of 16).
#include <omp.h>
#include <cmath>
#include <vector>
#include "math.h"
#include "philox.h"

extern "C" {

struct LayerNorm {
  const uint16_t* hidden;    // (T, H); forward only
  const uint16_t* residual;  // (T, H); null: none; forward only
  const uint16_t* weight;    // (H)
  const uint16_t* bias;      // (H); forward only
  uint16_t* total;           // (T, H): residual + dropout(hidden); written by forward, read by backward
  float* mean;               // (T)
  float* inverse;            // (T): 1 / standard deviation
  uint16_t* out;             // (T, H); forward only
  const uint16_t* grad_out;  // (T, H); backward from here on
  uint16_t* grad_hidden;     // (T, H)
  uint16_t* grad_residual;   // (T, H); null where it equals grad_hidden: no dropout
  float* grad_weight;        // (H)
  float* grad_bias;          // (H)
  int64_t rows, width;
  uint64_t seed;
  uint32_t drop_below;
  float epsilon;
};

}  // extern "C"

namespace {

using namespace distillery;

constexpr long DRAWN = 8 * LANES_OF_BITS;

// A bit for each element of a row, set where it is kept.
struct KeepMask {
  std::vector<uint32_t> bits;
  explicit KeepMask(long width) : bits((width + DRAWN - 1) / DRAWN * DRAWN / 32) {}

  void draw(const LayerNorm& a, long row) {
    const uint64_t group = (uint64_t)row * a.width / 8;
    for (long i = 0; i * DRAWN < a.width; ++i) keep_bits(group + i * LANES_OF_BITS, a.seed, a.drop_below, &bits[i * 4]);
  }
  __mmask16 at(long column) const { return (__mmask16)(bits[column / 32] >> (column % 32)); }
};

float kept_scale(const LayerNorm& a) { return 65536.0f / (65536.0f - a.drop_below); }

void forward_row(const LayerNorm& a, KeepMask& mask, long row) {
  const long start = row * a.width;
  const __m512 scale = _mm512_set1_ps(kept_scale(a));
  if (a.drop_below) mask.draw(a, row);
  __m512 sum = _mm512_setzero_ps();
  for (long i = 0; i < a.width; i += 16) {
    __m512 x = load_bf16(a.hidden + start + i);
    if (a.drop_below) x = _mm512_maskz_mul_ps(mask.at(i), x, scale);
    if (a.residual) x = _mm512_add_ps(x, load_bf16(a.residual + start + i));
    store_bf16(a.total + start + i, x);
    sum = _mm512_add_ps(sum, load_bf16(a.total + start + i));
  }
  const float mean = _mm512_reduce_add_ps(sum) / a.width;
  const __m512 center = _mm512_set1_ps(mean);
  __m512 squares = _mm512_setzero_ps();
  for (long i = 0; i < a.width; i += 16) {
    const __m512 x = _mm512_sub_ps(load_bf16(a.total + start + i), center);
    squares = _mm512_fmadd_ps(x, x, squares);
  }
  const float inverse = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / a.width + a.epsilon);
  a.mean[row] = mean;
  a.inverse[row] = inverse;
  for (long i = 0; i < a.width; i += 16) {
    const __m512 x = _mm512_mul_ps(_mm512_sub_ps(load_bf16(a.total + start + i), center), _mm512_set1_ps(inverse));
    store_bf16(a.out + start + i, _mm512_fmadd_ps(x, load_bf16(a.weight + i), load_bf16(a.bias + i)));
  }
}

void backward_row(const LayerNorm& a, KeepMask& mask, long row, float* grad_weight, float* grad_bias) {
  const long start = row * a.width;
  const __m512 center = _mm512_set1_ps(a.mean[row]), inverse = _mm512_set1_ps(a.inverse[row]);
  __m512 sum = _mm512_setzero_ps(), weighted = _mm512_setzero_ps();
  for (long i = 0; i < a.width; i += 16) {
    const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(load_bf16(a.total + start + i), center), inverse);
    const __m512 grad = load_bf16(a.grad_out + start + i);
    _mm512_storeu_ps(grad_bias + i, _mm512_add_ps(_mm512_loadu_ps(grad_bias + i), grad));
    _mm512_storeu_ps(grad_weight + i, _mm512_fmadd_ps(grad, normal, _mm512_loadu_ps(grad_weight + i)));
    const __m512 inner = _mm512_mul_ps(grad, load_bf16(a.weight + i));
    sum = _mm512_add_ps(sum, inner);
    weighted = _mm512_fmadd_ps(inner, normal, weighted);
  }
  const __m512 mean_grad = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / a.width);
  const __m512 mean_weighted = _mm512_set1_ps(_mm512_reduce_add_ps(weighted) / a.width);
  if (a.drop_below) mask.draw(a, row);
  const __m512 scale = _mm512_set1_ps(kept_scale(a));
  for (long i = 0; i < a.width; i += 16) {
    const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(load_bf16(a.total + start + i), center), inverse);
    const __m512 inner = _mm512_mul_ps(load_bf16(a.grad_out + start + i), load_bf16(a.weight + i));
    const __m512 centred = _mm512_fnmadd_ps(normal, mean_weighted, _mm512_sub_ps(inner, mean_grad));
    const __m512 grad = _mm512_mul_ps(centred, inverse);
    if (a.grad_residual) store_bf16(a.grad_residual + start + i, grad);
    store_bf16(a.grad_hidden + start + i, a.drop_below ? _mm512_maskz_mul_ps(mask.at(i), grad, scale) : grad);
  }
}

}  // namespace

extern "C" int layer_norm_forward(const LayerNorm* a) {
#pragma omp parallel
  {
    KeepMask mask(a->width);
#pragma omp for schedule(static)
    for (long row = 0; row < a->rows; ++row) forward_row(*a, mask, row);
  }
  return 0;
}

extern "C" int layer_norm_backward(const LayerNorm* a) {
  const int threads = omp_get_max_threads();
  std::vector<float> sums((size_t)threads * 2 * a->width);
#pragma omp parallel num_threads(threads)
  {
    KeepMask mask(a->width);
    float* own = sums.data() + (size_t)omp_get_thread_num() * 2 * a->width;
#pragma omp for schedule(static)
    for (long row = 0; row < a->rows; ++row) backward_row(*a, mask, row, own, own + a->width);
  }
  for (long i = 0; i < a->width; ++i) {
    a->grad_weight[i] = a->grad_bias[i] = 0.0f;
    for (int thread = 0; thread < threads; ++thread) {
      a->grad_weight[i] += sums[(size_t)thread * 2 * a->width + i];
      a->grad_bias[i] += sums[(size_t)thread * 2 * a->width + a->width + i];
    }
  }
  return 0;
}
