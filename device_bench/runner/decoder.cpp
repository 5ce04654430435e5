#include "decoder.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "json.h"

namespace atom {

namespace {
constexpr float kMasked = -1e9F;  // finite, so that no NaN arises
}

DecoderShape DecoderShape::of(const Json& job) {
  return {job.at("layers").integer(), job.at("heads").integer(), job.at("kv_heads").integer(),
          job.at("head_width").integer(), job.at("width").integer()};
}

// Keys and values: of the prompt, which all beams share and nothing copies, and of each beam.
class Decoder::Cache {
 public:
  Cache(const DecoderShape& shape, int beams, int slots)
      : shape_(shape), beams_(beams), slots_(slots), beam_mask_(slots, kMasked) {
    const size_t size = static_cast<size_t>(beams) * shape.kv_heads * shape.head_width * slots;
    keys_.assign(shape.layers, std::vector<float>(size));
    values_.assign(shape.layers, std::vector<float>(size));
  }

  int prefix() const { return prefix_; }
  int length() const { return length_; }

  // Keeps the prompt's keys and values, the results of `prefill` behind its logits.
  void set_prefix(const std::vector<Result>& results, int positions) {
    prefix_ = positions;
    prefix_mask_.assign(positions, 0.0F);
    for (size_t i = 1; i < results.size(); ++i) {
      shared_.emplace_back(results[i].data, results[i].data + results[i].size());
    }
  }

  // Writes the keys and values of a new position of every beam, the results of `step` behind its
  // logits.
  void append(const std::vector<Result>& results) {
    const int heads = beams_ * shape_.kv_heads;
    const int width = shape_.head_width;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const float* k = results[1 + 2 * layer].data;
      const float* v = results[2 + 2 * layer].data;
      for (int head = 0; head < heads; ++head) {
        float* keys = keys_[layer].data() + static_cast<size_t>(head) * width * slots_;
        for (int c = 0; c < width; ++c) {
          keys[c * slots_ + length_] = k[head * width + c];
        }
        float* values = values_[layer].data() + (static_cast<size_t>(head) * slots_ + length_) * width;
        std::memcpy(values, v + static_cast<size_t>(head) * width, width * sizeof(float));
      }
    }
    beam_mask_[length_] = 0.0F;
    ++length_;
  }

  // Makes each beam a continuation of its parent.
  void reorder(const std::vector<int>& parents) {
    bool same = true;
    for (int beam = 0; beam < beams_; ++beam) {
      same = same && parents[beam] == beam;
    }
    if (same || length_ == 0) {
      return;
    }
    for (auto* tensors : {&keys_, &values_}) {
      for (auto& tensor : *tensors) {
        const size_t of_beam = tensor.size() / beams_;
        moved_.resize(tensor.size());
        for (int beam = 0; beam < beams_; ++beam) {
          std::memcpy(moved_.data() + beam * of_beam, tensor.data() + parents[beam] * of_beam,
                      of_beam * sizeof(float));
        }
        tensor.swap(moved_);
      }
    }
  }

  // The arguments of `step` behind the new tokens and their rotary rows.
  void arguments(std::vector<View>& views) const {
    const int heads = beams_ * shape_.kv_heads;
    views.push_back({prefix_mask_.data(), {1, 1, 1, prefix_}});
    views.push_back({beam_mask_.data(), {1, 1, 1, slots_}});
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const int width = shape_.head_width;
      views.push_back({shared_[2 * layer].data(), {1, shape_.kv_heads, width, prefix_}});
      views.push_back({shared_[2 * layer + 1].data(), {1, shape_.kv_heads, prefix_, width}});
      views.push_back({keys_[layer].data(), {1, heads, width, slots_}});
      views.push_back({values_[layer].data(), {1, heads, slots_, width}});
    }
  }

 private:
  DecoderShape shape_;
  int beams_;
  int slots_;
  int prefix_ = 0;
  int length_ = 0;
  std::vector<float> prefix_mask_;
  std::vector<float> beam_mask_;
  std::vector<std::vector<float>> shared_;  // keys (J, C, P) and values (J, P, C) of each layer
  std::vector<std::vector<float>> keys_;    // of each layer, (K, J, C, G)
  std::vector<std::vector<float>> values_;  // of each layer, (K, J, G, C)
  std::vector<float> moved_;
};

Decoder::Decoder(const DecoderShape& shape, const ProgramFile& program, const std::string& tables,
                 const std::string& embedding, const std::string& rotary,
                 std::unique_ptr<Tokenizer> tokenizer, Threads threads)
    : shape_(shape),
      program_(program, {"prefill", "step"}, threads),
      tables_file_(tables),
      rotary_file_(rotary),
      table_(tables_file_, embedding),
      cos_(rotary_file_.at("cos")),
      sin_(rotary_file_.at("sin")),
      tokenizer_(std::move(tokenizer)) {}

std::vector<float> Decoder::embedded(
    const std::vector<int>& prompt, const VisualTokens& visual) const {
  std::vector<float> rows(prompt.size() * shape_.width);
  int inserted = 0;
  for (size_t i = 0; i < prompt.size(); ++i) {
    float* row = rows.data() + i * shape_.width;
    if (prompt[i] >= 0) {
      table_.read(prompt[i], row);
    } else if (inserted < visual.count) {
      std::memcpy(row, visual.values.data() + static_cast<size_t>(inserted) * shape_.width,
                  shape_.width * sizeof(float));
      ++inserted;
    } else {
      throw std::runtime_error("the prompt has more places for visual tokens than there are");
    }
  }
  if (inserted != visual.count) {
    throw std::runtime_error("the prompt has fewer places for visual tokens than there are");
  }
  return rows;
}

std::vector<float> Decoder::prefill(
    const std::vector<int>& prompt, const VisualTokens& visual, Cache& cache, int threads) {
  const int positions = static_cast<int>(prompt.size());
  if (positions > cos_.shape.at(0)) {
    throw std::runtime_error("the prompt is longer than the decoder's positions");
  }
  const std::vector<float> rows = embedded(prompt, visual);
  // Later positions are masked, for each of the query heads of a key head.
  const int repeats = shape_.heads / shape_.kv_heads;
  std::vector<float> mask(static_cast<size_t>(repeats) * positions * positions, 0.0F);
  for (int r = 0; r < repeats * positions; ++r) {
    for (int later = r % positions + 1; later < positions; ++later) {
      mask[static_cast<size_t>(r) * positions + later] = kMasked;
    }
  }
  const int width = shape_.head_width;
  const auto results = program_.call(
      "prefill",
      {{rows.data(), {positions, shape_.width}},
       {cos_.floats(), {positions, 1, width}},
       {sin_.floats(), {positions, 1, width}},
       {mask.data(), {1, repeats * positions, positions}}},
      threads);
  cache.set_prefix(results, positions);
  vocabulary_ = results[0].shape.back();
  return {results[0].data, results[0].data + vocabulary_};
}

const float* Decoder::step(const std::vector<int>& tokens, Cache& cache, int threads) {
  const int beams = static_cast<int>(tokens.size());
  const int position = cache.prefix() + cache.length();
  if (position >= cos_.shape.at(0)) {
    throw std::runtime_error("the sequence is longer than the decoder's positions");
  }
  std::vector<float> rows(static_cast<size_t>(beams) * shape_.width);
  for (int beam = 0; beam < beams; ++beam) {
    table_.read(tokens[beam], rows.data() + static_cast<size_t>(beam) * shape_.width);
  }
  const int width = shape_.head_width;
  std::vector<View> arguments = {
      {rows.data(), {1, beams, shape_.width}},
      {cos_.floats() + static_cast<size_t>(position) * width, {1, 1, 1, width}},
      {sin_.floats() + static_cast<size_t>(position) * width, {1, 1, 1, width}}};
  cache.arguments(arguments);
  const auto results = program_.call("step", arguments, threads);
  cache.append(results);
  return results[0].data;
}

Generated Decoder::generate(const std::vector<int>& prompt, const VisualTokens& visual, int end_id,
                            const GenerationSettings& settings, int threads) {
  Cache cache(shape_, settings.beams, settings.max_new_tokens);
  BeamSearch search(settings, end_id);
  const std::vector<float> first = prefill(prompt, visual, cache, threads);
  search.advance(first.data(), 1, vocabulary_);
  while (!search.done()) {
    cache.reorder(search.parents());
    search.advance(step(search.tokens(), cache, threads), settings.beams, vocabulary_);
  }
  return search.result();
}

}  // namespace atom
