#include "embedder.h"

#include <cstdint>

namespace atom {

Embedder::Embedder(
    const ProgramFile& program, const Tokenizer& tokenizer, const EmbedderIds& ids)
    : program_(program, {"forward"}, Threads::kAll), tokenizer_(tokenizer), ids_(ids) {}

std::vector<float> Embedder::embed(const std::string& text, int threads) {
  std::vector<int> pieces = tokenizer_.encode(text);
  if (static_cast<int>(pieces.size()) > ids_.longest - 2) {
    pieces.resize(ids_.longest - 2);
  }
  std::vector<int64_t> ids = {ids_.begin};
  ids.insert(ids.end(), pieces.begin(), pieces.end());
  ids.push_back(ids_.end);
  const auto results = program_.call(
      "forward", {{ids.data(), {1, static_cast<int>(ids.size())}, View::Type::kLong}}, threads);
  return {results[0].data, results[0].data + results[0].size()};
}

float cosine(const std::vector<float>& a, const std::vector<float>& b) {
  float sum = 0.0F;
  for (size_t i = 0; i < a.size(); ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

}  // namespace atom
