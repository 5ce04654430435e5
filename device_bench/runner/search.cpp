#include "search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "json.h"

namespace atom {

namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

struct Candidate {
  int beam;
  int token;
  float log_prob;
  float total;
};

float log_sum_exp(const float* row, int size) {
  const float largest = *std::max_element(row, row + size);
  double sum = 0.0;
  for (int i = 0; i < size; ++i) {
    sum += std::exp(static_cast<double>(row[i]) - largest);
  }
  return static_cast<float>(largest + std::log(sum));
}

// The places of the `count` largest values, largest first; of equal ones the first.
std::vector<int> largest(const float* row, int size, int count) {
  std::vector<int> heap;  // the smallest of those kept is at the front
  const auto better = [row](int a, int b) { return row[a] != row[b] ? row[a] > row[b] : a < b; };
  for (int i = 0; i < size; ++i) {
    if (static_cast<int>(heap.size()) < count) {
      heap.push_back(i);
      std::push_heap(heap.begin(), heap.end(), better);
    } else if (row[i] > row[heap.front()]) {
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.back() = i;
      std::push_heap(heap.begin(), heap.end(), better);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  return heap;
}

}  // namespace

GenerationSettings GenerationSettings::of(const Json& job) {
  GenerationSettings settings;
  settings.beams = job.at("beams").integer();
  settings.max_new_tokens = job.at("max_new_tokens").integer();
  settings.length_penalty = job.at("length_penalty").number();
  settings.forbid_end = job.at("forbid_end").boolean();
  settings.min_new_tokens = job.at("min_new_tokens").integer();
  settings.gnmt = job.at("length_rule").string() == "gnmt";
  settings.stay = job.at("finished").string() == "stay";
  return settings;
}

double GenerationSettings::score(double total, int length) const {
  const double base = gnmt ? (5 + length) / 6.0 : length;
  return total / std::pow(base, length_penalty);
}

BeamSearch::BeamSearch(const GenerationSettings& settings, int end_id)
    : settings_(settings),
      end_id_(end_id),
      totals_(settings.beams, kNever),
      beams_(settings.beams) {
  totals_[0] = 0.0F;
}

void BeamSearch::advance(const float* logits, int rows, int vocabulary) {
  const int beams = settings_.beams;
  // Twice as many candidates as beams: even if that many of them end, all beams run on.
  const int count = std::min(settings_.stay ? beams : 2 * beams, beams * vocabulary);
  const bool no_end = settings_.forbid_end || length_ < settings_.min_new_tokens;
  std::vector<Candidate> candidates;
  std::vector<float> allowed(vocabulary);
  for (int beam = 0; beam < beams; ++beam) {
    if (totals_[beam] == kNever && beam > 0 && rows == 1) {
      continue;  // beams start equal: the first token comes of the first alone
    }
    const float* row = logits + static_cast<size_t>(rows == 1 ? 0 : beam) * vocabulary;
    const float normaliser = log_sum_exp(row, vocabulary);
    if (no_end) {
      std::copy(row, row + vocabulary, allowed.begin());
      allowed[end_id_] = kNever;
      row = allowed.data();
    }
    for (const int token : largest(row, vocabulary, std::min(count, vocabulary))) {
      const float log_prob = row[token] - normaliser;
      candidates.push_back({beam, token, log_prob, totals_[beam] + log_prob});
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.total > b.total;
  });
  candidates.resize(std::min<size_t>(candidates.size(), count));
  ++length_;

  std::vector<Hypothesis> chosen;
  std::vector<float> totals;
  parents_.clear();
  tokens_.clear();
  const auto run_on = [&](int beam, Hypothesis hypothesis, float total) {
    parents_.push_back(beam);
    tokens_.push_back(hypothesis.tokens.back());
    totals.push_back(total);
    chosen.push_back(std::move(hypothesis));
  };
  for (size_t rank = 0; rank < candidates.size(); ++rank) {
    const Candidate& candidate = candidates[rank];
    const bool ends = candidate.token == end_id_ && static_cast<int>(rank) < beams;
    const bool goes_on = (settings_.stay || candidate.token != end_id_) &&
                         static_cast<int>(chosen.size()) < beams;
    if (!ends && !goes_on) {
      continue;
    }
    Hypothesis extended = beams_[candidate.beam];
    extended.tokens.push_back(candidate.token);
    extended.log_probs.push_back(candidate.log_prob);
    if (ends) {
      finish(extended, candidate.total);
    }
    if (goes_on) {
      run_on(candidate.beam, std::move(extended), candidate.total);
    }
  }
  while (static_cast<int>(chosen.size()) < beams) {  // a vocabulary smaller than the candidates
    Hypothesis never = beams_[0];
    never.tokens.push_back(end_id_);
    never.log_probs.push_back(kNever);
    run_on(0, std::move(never), kNever);
  }
  beams_ = std::move(chosen);
  totals_ = std::move(totals);
  if (length_ == settings_.max_new_tokens) {
    for (int beam = 0; beam < beams; ++beam) {
      if (beams_[beam].tokens.back() != end_id_) {
        finish(beams_[beam], totals_[beam]);
      }
    }
  }
}

void BeamSearch::finish(const Hypothesis& hypothesis, float total) {
  if (total == kNever) {
    return;
  }
  Generated generated;
  generated.tokens = hypothesis.tokens;
  if (generated.tokens.back() == end_id_) {
    generated.tokens.pop_back();
  }
  generated.log_prob = total;
  generated.score = settings_.score(total, length_);
  generated.token_log_probs = hypothesis.log_probs;
  finished_.push_back(std::move(generated));
  std::stable_sort(finished_.begin(), finished_.end(), [](const Generated& a, const Generated& b) {
    return a.score > b.score;
  });
  if (static_cast<int>(finished_.size()) > settings_.beams) {
    finished_.pop_back();
  }
}

bool BeamSearch::done() const {
  if (length_ == settings_.max_new_tokens) {
    return true;
  }
  if (settings_.stay) {
    return beams_[0].tokens.back() == end_id_;
  }
  if (static_cast<int>(finished_.size()) < settings_.beams) {
    return false;
  }
  const float best = *std::max_element(totals_.begin(), totals_.end());
  return finished_.back().score >= settings_.score(best, length_);
}

}  // namespace atom
