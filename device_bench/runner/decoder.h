// The Llama decoder around its exported methods: embedding rows, rotary rows, masks, KV cache.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "modules.h"
#include "safetensors.h"
#include "search.h"
#include "tokenizers.h"

namespace atom {

class Json;

// Sizes of a decoder.
struct DecoderShape {
  int layers;
  int heads;
  int kv_heads;
  int head_width;
  int width;
  static DecoderShape of(const Json& job);
};

// What an encoder hands over: `count` tokens of the decoder's width.
struct VisualTokens {
  std::vector<float> values;
  int count = 0;
};

// An exported decoder: methods `prefill` and `step`, as atom_repro/models/exported.py has them.
class Decoder {
 public:
  // `rotary` has tensors `cos` and `sin`, a row of `head_width` for each position.
  Decoder(const DecoderShape& shape, const ProgramFile& program, const std::string& tables,
          const std::string& embedding, const std::string& rotary,
          std::unique_ptr<Tokenizer> tokenizer, Threads threads);

  const Tokenizer& tokenizer() const { return *tokenizer_; }

  // Generates a continuation of a prompt in which -1 stands for a visual token.
  Generated generate(const std::vector<int>& prompt, const VisualTokens& visual, int end_id,
                     const GenerationSettings& settings, int threads);

 private:
  class Cache;
  std::vector<float> embedded(const std::vector<int>& prompt, const VisualTokens& visual) const;
  std::vector<float> prefill(const std::vector<int>& prompt, const VisualTokens& visual,
                             Cache& cache, int threads);
  const float* step(const std::vector<int>& tokens, Cache& cache, int threads);

  DecoderShape shape_;
  Program program_;
  SafeTensors tables_file_;
  SafeTensors rotary_file_;
  Table table_;
  const MappedTensor& cos_;
  const MappedTensor& sin_;
  std::unique_ptr<Tokenizer> tokenizer_;
  int vocabulary_ = 0;
};

}  // namespace atom
