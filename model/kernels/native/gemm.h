// Products of bf16 operands with fp32 sums in registers, for AVX512-BF16: the building block of the fused kernels.
//
// A tile is MR rows by NR * 16 columns, usually 8 by 48. Operands come as 32-bit pairs of neighbours along the summed dimension: an element
// of A is broadcast, a row of B is loaded, and vdpbf16ps adds two products at once. 24 sums, 3 loads and 1 broadcast fit
// the 32 registers, and 11 loads feed 24 multiply-adds.
#pragma once
#include <immintrin.h>
#include <cstdint>

namespace distillery {

constexpr int TILE_ROWS = 8;
constexpr int LANES = 16;
constexpr int TILE_GROUPS = 3;  // groups of 16 columns in a full tile
constexpr int TILE_COLUMNS = TILE_GROUPS * LANES;

// Pairs of A: element (m, k) is at a[m * row + k * step].
struct Left {
  const uint32_t* data;
  long row, step;
};

// Pairs of B: row k, columns of this tile, at b[k * step ...].
struct Right {
  const uint32_t* data;
  long step;
};

template <int MR, int NR>
struct Tile {
  __m512 sum[MR][NR];
};

// tile = A (MR x 2 pairs) times B (2 pairs x NR * 16).
template <int MR, int NR>
inline __attribute__((always_inline)) void multiply(Tile<MR, NR>& tile, Left a, Right b, long pairs) {
  static_assert(MR * NR + NR < 32, "the sums and a row of B live in registers");
  __m512 sum[MR][NR];
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) sum[m][n] = _mm512_setzero_ps();
  const uint32_t* pa = a.data;
  const uint32_t* pb = b.data;
  for (long k = 0; k < pairs; ++k, pa += a.step, pb += b.step) {
    __m512bh right[NR];
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) right[n] = (__m512bh)_mm512_loadu_si512(pb + n * LANES);
#pragma GCC unroll 12
    for (int m = 0; m < MR; ++m) {
      const __m512bh left = (__m512bh)_mm512_set1_epi32((int)pa[m * a.row]);
#pragma GCC unroll 4
      for (int n = 0; n < NR; ++n) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], right[n], left);
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) tile.sum[m][n] = sum[m][n];
}

// Into fp32 memory, over what is there or added to it.
template <int MR, int NR>
inline void store_tile(const Tile<MR, NR>& tile, float* target, long stride, bool accumulate) {
#pragma GCC unroll 12
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
    for (int n = 0; n < NR; ++n) {
      float* out = target + m * stride + n * LANES;
      _mm512_storeu_ps(out, accumulate ? _mm512_add_ps(tile.sum[m][n], _mm512_loadu_ps(out)) : tile.sum[m][n]);
    }
}

// Calls `run.template operator()<NR>(first column)` for full tiles and for what is left over at the end.
template <class Run>
inline void for_columns(long groups, Run run) {
  long group = 0;
  for (; group + 3 <= groups; group += 3) run.template operator()<3>(group * LANES);
  if (groups - group == 2) run.template operator()<2>(group * LANES);
  if (groups - group == 1) run.template operator()<1>(group * LANES);
}

}  // namespace distillery
