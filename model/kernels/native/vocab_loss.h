// What the walk of the vocabulary loss is given, and what it knows of each token.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

extern "C" {

struct VocabLoss {
  // inputs, all contiguous
  const uint16_t* student_features;  // (T, H) bf16
  const uint16_t* student_weight;    // (V, H)
  const float* student_bias;         // (V)
  const uint16_t* teacher_features;  // (T, teacher_width); null: no distillation, the student is its own teacher
  const uint16_t* teacher_weight;    // (V, teacher_width)
  const float* teacher_bias;         // (V)
  const int64_t* order;              // (T) token of each row of the walk; masked ones first
  const int64_t* labels;             // (num_masked)
  // outputs
  float* grad_features;  // (T, H)
  float* grad_weight;    // (V, H)
  float* grad_bias;      // (V)
  double* sums;          // zeros on entry: KL divergence, negative log-likelihood
  // sizes
  int64_t tokens, num_masked, width, teacher_width, vocab_rows, vocab_size, chunk;
  // d(loss)/d(logits) = kl_scale * (p_student - p_teacher) + mlm_scale * (softmax - one-hot)
  float temperature, kl_scale, mlm_scale;
};

}  // extern "C"

namespace distillery {

constexpr float NO_LOGIT = -1e30f;

// Running maximum and sum of exponentials of one model, a lane per token.
struct Normaliser {
  std::vector<float> largest, soft, hard;  // (C): maximum; sum of e^((z - max) / T); of e^(z - max), masked tokens only
  explicit Normaliser(long tokens) : largest(tokens), soft(tokens), hard(tokens) {}
  void reset() {
    std::fill(largest.begin(), largest.end(), NO_LOGIT);
    std::fill(soft.begin(), soft.end(), 0.0f);
    std::fill(hard.begin(), hard.end(), 0.0f);
  }
};

// Per token of a chunk, what turns logits into gradients; combined from all threads.
struct Coefficients {
  std::vector<float> student_max, teacher_max, student_inverse, teacher_inverse, log_ratio, hard_inverse, kl, mlm;
  std::vector<int32_t> label;
  long real = 0;  // tokens, of which there are fewer than lanes at the end
  explicit Coefficients(long tokens)
      : student_max(tokens), teacher_max(tokens), student_inverse(tokens), teacher_inverse(tokens), log_ratio(tokens),
        hard_inverse(tokens), kl(tokens), mlm(tokens), label(tokens) {}
};

}  // namespace distillery
