// Greedy and beam search of one clip: atom_repro/models/generation.py, to the digit.
#pragma once

#include <string>
#include <vector>

namespace atom {

class Json;

struct GenerationSettings {
  int beams = 1;
  int max_new_tokens = 1;
  double length_penalty = 1.0;
  bool forbid_end = false;
  int min_new_tokens = 0;
  bool gnmt = false;  // length_rule=gnmt; else power
  bool stay = false;  // finished=stay; else leave

  static GenerationSettings of(const Json& job);
  double score(double total, int length) const;
};

struct Generated {
  std::vector<int> tokens;  // without end-of-sequence
  double log_prob = 0.0;
  double score = 0.0;
  std::vector<float> token_log_probs;
};

// The state of a search: beams that run on, and sequences that ended.
class BeamSearch {
 public:
  BeamSearch(const GenerationSettings& settings, int end_id);

  // Chooses the next token of every beam. `logits` has `rows` rows of `vocabulary` values; a single
  // row stands for all beams, which start equal.
  void advance(const float* logits, int rows, int vocabulary);

  bool done() const;
  const std::vector<int>& parents() const { return parents_; }
  const std::vector<int>& tokens() const { return tokens_; }
  const Generated& result() const { return finished_.at(0); }

 private:
  struct Hypothesis {
    std::vector<int> tokens;
    std::vector<float> log_probs;
  };
  void finish(const Hypothesis& hypothesis, float total);

  GenerationSettings settings_;
  int end_id_;
  int length_ = 0;
  std::vector<float> totals_;
  std::vector<Hypothesis> beams_;
  std::vector<Generated> finished_;  // best first, at most as many as beams
  std::vector<int> parents_;
  std::vector<int> tokens_;
};

}  // namespace atom
