// Properties of characters, from a table that the host writes (atom_repro/hosts/runner_text.py).
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace atom {

using Text = std::u32string;

// UTF-8 to code points; what is no UTF-8 becomes U+FFFD, one for each maximal part of a character.
Text decoded(const std::string& utf8);
std::string encoded(const Text& text);

class Unicode {
 public:
  enum Property : uint8_t {
    kLetter = 1,
    kNumber = 2,
    kSpace = 4,
    kWord = 8,
    kNonspacingMark = 16,
    kPunctuation = 32,
    kOther = 64,  // control, format, private use, unassigned
  };

  // Reads a table; throws std::runtime_error where it is none.
  explicit Unicode(const std::string& path);

  bool is(char32_t c, Property property) const;
  // Canonical decomposition, and lower case; of most characters the character itself.
  void append_decomposed(char32_t c, Text& text) const;
  void append_lower(char32_t c, Text& text) const;

 private:
  struct Range {
    char32_t first;
    char32_t last;
    uint8_t properties;
  };
  static void append(const std::unordered_map<char32_t, Text>& map, char32_t c, Text& text);
  std::vector<Range> ranges_;  // in order, without overlap
  std::unordered_map<char32_t, Text> decomposed_;
  std::unordered_map<char32_t, Text> lower_;
};

}  // namespace atom
