// Vector mathematics of the fused kernels: exponential, bf16 conversion, sums.
#pragma once
#include <immintrin.h>
#include <cstdint>

namespace distillery {

constexpr float LOWEST_EXPONENT = -120.0f;  // e^x below this is 0 in fp32

// e^x to about 1 ulp, for x <= 88: x = n ln2 + r, polynomial in r (Cephes' coefficients), scaled by 2^n.
inline __m512 exponential(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(LOWEST_EXPONENT), x);  // in this order a NaN stays one
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504088896341f)), 0);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(-2.12194440e-4f), r);
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), p, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
  return _mm512_scalef_ps(p, n);
}

constexpr float LOG2_E = 1.44269504088896341f;

// 2^x to 4e-5, for x <= 127: enough where the result is rounded to bf16 (4e-3), in half the instructions.
inline __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-150.0f), x);
  const __m512 n = _mm512_roundscale_ps(x, 0);
  const __m512 f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(9.618129e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.550411e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402265e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931472e-1f));
  return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f)), n);
}

// 16 bf16 values as fp32.
inline __m512 load_bf16(const uint16_t* source) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)source)), 16));
}

// Rounded to nearest even, as every conversion to bf16 here.
inline __m256i to_bf16(__m512 value) { return (__m256i)_mm512_cvtneps_pbh(value); }

inline void store_bf16(uint16_t* target, __m512 value) { _mm256_storeu_si256((__m256i*)target, to_bf16(value)); }

// Lane i holds (first[i], second[i]) as a pair of bf16, first in the low half.
inline __m512i interleave_bf16(__m256i first, __m256i second) {
  return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

}  // namespace distillery
