// Tokenizers of tokenizer.json files: byte-level BPE, words, and BERT's WordPiece.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "unicode.h"

namespace atom {

class Json;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads a file; throws std::runtime_error where its kind is not known here.
  static std::unique_ptr<Tokenizer> read(const std::string& path, const Unicode& unicode);

  // Ids of a text, without special tokens around it. Special tokens inside it are their own.
  std::vector<int> encode(const std::string& text) const;
  // The text of ids, without special tokens, and without space around it.
  std::string decode(const std::vector<int>& ids) const;
  // Whether it can: WordPiece only reads here.
  virtual bool writes() const { return true; }

 protected:
  Tokenizer(const Json& file, const Unicode& unicode);

  virtual void encode_plain(const std::string& text, std::vector<int>& ids) const = 0;
  virtual std::string joined(const std::vector<std::string>& tokens) const = 0;
  int id_of(const std::string& token) const;  // -1 where there is none

  const Unicode& unicode_;

 private:
  std::unordered_map<std::string, int> ids_;
  std::unordered_map<int, std::string> tokens_;
  std::map<std::string, int> specials_;
};

}  // namespace atom
