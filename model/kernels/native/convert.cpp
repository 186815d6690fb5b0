// fp32 gradients, scaled, as bf16 in one pass.
#include "math.h"

extern "C" void scale_to_bf16(const float* source, uint16_t* target, int64_t count, float scale) {
  using namespace distillery;
  const __m512 factor = _mm512_set1_ps(scale);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < count / 16; ++i)
    store_bf16(target + i * 16, _mm512_mul_ps(_mm512_loadu_ps(source + i * 16), factor));
  for (int64_t i = count / 16 * 16; i < count; ++i) {
    const __m512 value = _mm512_set1_ps(source[i] * scale);
    target[i] = (uint16_t)_mm_extract_epi16(_mm256_castsi256_si128(to_bf16(value)), 0);
  }
}
