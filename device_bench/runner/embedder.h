// The text embedder: WordPiece, then an exported file.
#pragma once

#include <string>
#include <vector>

#include "modules.h"
#include "tokenizers.h"

namespace atom {

// How texts become ids of the embedder.
struct EmbedderIds {
  int begin;
  int end;
  int longest;  // ids of a text, with both
};

class Embedder {
 public:
  Embedder(const ProgramFile& program, const Tokenizer& tokenizer, const EmbedderIds& ids);

  // The unit vector of a text.
  std::vector<float> embed(const std::string& text, int threads);

 private:
  Program program_;
  const Tokenizer& tokenizer_;
  EmbedderIds ids_;
};

// The cosine of two unit vectors.
float cosine(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace atom
