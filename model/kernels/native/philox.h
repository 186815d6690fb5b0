// Counter-based random bits, 16 lanes at a time; the plain reference is model/kernels/philox.py.
#pragma once
#include <immintrin.h>
#include <cstdint>

namespace distillery {

inline __m512i lane_numbers() { return _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0); }

// High and low halves of 32 x 32 bit products.
inline void multiply_wide(__m512i x, uint32_t factor, __m512i& high, __m512i& low) {
  const __m512i by = _mm512_set1_epi32((int)factor);
  const __m512i even = _mm512_mul_epu32(x, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), by);
  low = _mm512_mask_shuffle_epi32(even, 0xAAAA, odd, (_MM_PERM_ENUM)0xA0);
  high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
}

// Philox4x32-10: `words` is the counter on entry, the random words on return.
inline void philox(__m512i words[4], uint64_t seed) {
  uint32_t key0 = (uint32_t)seed, key1 = (uint32_t)(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    __m512i high0, low0, high1, low1;
    multiply_wide(words[0], 0xD2511F53u, high0, low0);
    multiply_wide(words[2], 0xCD9E8D57u, high1, low1);
    words[0] = _mm512_xor_si512(_mm512_xor_si512(high1, words[1]), _mm512_set1_epi32((int)key0));
    words[2] = _mm512_xor_si512(_mm512_xor_si512(high0, words[3]), _mm512_set1_epi32((int)key1));
    words[1] = low1;
    words[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

constexpr long LANES_OF_BITS = 16;

// Bits of 128 neighbouring elements, `bits[i]` of the i-th 32, set where an element's 16 random bits reach `drop_below`.
// Lanes count groups of 8 elements so that, after the words have been put side by side, elements are in order.
inline void keep_bits(uint64_t group, uint64_t seed, uint32_t drop_below, uint32_t bits[4]) {
  const __m512i order = _mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0);
  const __m512i low = _mm512_add_epi32(_mm512_set1_epi32((int)(uint32_t)group), order);
  // A carry into the high half: where the sum wrapped around.
  const __mmask16 carry = _mm512_cmplt_epu32_mask(low, order);
  const __m512i high = _mm512_set1_epi32((int)(uint32_t)(group >> 32));
  __m512i w[4] = {low, _mm512_mask_add_epi32(high, carry, high, _mm512_set1_epi32(1)), _mm512_setzero_si512(),
                  _mm512_setzero_si512()};
  philox(w, seed);
  const __m512i a = _mm512_unpacklo_epi32(w[0], w[1]), b = _mm512_unpackhi_epi32(w[0], w[1]);
  const __m512i c = _mm512_unpacklo_epi32(w[2], w[3]), d = _mm512_unpackhi_epi32(w[2], w[3]);
  const __m512i threshold = _mm512_set1_epi16((short)drop_below);
  bits[0] = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(a, c), threshold);
  bits[1] = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(a, c), threshold);
  bits[2] = _mm512_cmpge_epu16_mask(_mm512_unpacklo_epi64(b, d), threshold);
  bits[3] = _mm512_cmpge_epu16_mask(_mm512_unpackhi_epi64(b, d), threshold);
}

// Rows become columns.
inline void transpose(__m512i rows[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    rows[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    rows[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    rows[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    rows[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(rows[i + j], rows[i + j + 4], 0xDD);
    }
  for (int j = 0; j < 8; ++j) {
    rows[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    rows[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xDD);
  }
}

}  // namespace distillery
