#include "unicode.h"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace atom {

namespace {

constexpr char32_t kReplacement = 0xFFFD;

// How many bytes follow a first one, and the range of the second; -1 for a byte that begins nothing.
struct Lead {
  int following;
  unsigned char lowest;
  unsigned char highest;
};

Lead lead(unsigned char byte) {
  if (byte < 0x80) {
    return {0, 0, 0};
  }
  if (byte >= 0xC2 && byte <= 0xDF) {
    return {1, 0x80, 0xBF};
  }
  if (byte >= 0xE0 && byte <= 0xEF) {
    return {2, static_cast<unsigned char>(byte == 0xE0 ? 0xA0 : 0x80),
            static_cast<unsigned char>(byte == 0xED ? 0x9F : 0xBF)};
  }
  if (byte >= 0xF0 && byte <= 0xF4) {
    return {3, static_cast<unsigned char>(byte == 0xF0 ? 0x90 : 0x80),
            static_cast<unsigned char>(byte == 0xF4 ? 0x8F : 0xBF)};
  }
  return {-1, 0, 0};
}

}  // namespace

Text decoded(const std::string& utf8) {
  Text text;
  size_t i = 0;
  while (i < utf8.size()) {
    const auto first = static_cast<unsigned char>(utf8[i++]);
    const Lead expected = lead(first);
    if (expected.following <= 0) {
      text += expected.following == 0 ? first : kReplacement;
      continue;
    }
    char32_t code = first & (0x3F >> expected.following);
    int got = 0;
    for (; got < expected.following && i < utf8.size(); ++got, ++i) {
      const auto byte = static_cast<unsigned char>(utf8[i]);
      const unsigned char lowest = got == 0 ? expected.lowest : 0x80;
      const unsigned char highest = got == 0 ? expected.highest : 0xBF;
      if (byte < lowest || byte > highest) {
        break;
      }
      code = (code << 6) | (byte & 0x3F);
    }
    text += got == expected.following ? code : kReplacement;
  }
  return text;
}

std::string encoded(const Text& text) {
  std::string utf8;
  for (const char32_t c : text) {
    if (c < 0x80) {
      utf8 += static_cast<char>(c);
    } else if (c < 0x800) {
      utf8 += static_cast<char>(0xC0 | (c >> 6));
      utf8 += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
      utf8 += static_cast<char>(0xE0 | (c >> 12));
      utf8 += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
      utf8 += static_cast<char>(0x80 | (c & 0x3F));
    } else {
      utf8 += static_cast<char>(0xF0 | (c >> 18));
      utf8 += static_cast<char>(0x80 | ((c >> 12) & 0x3F));
      utf8 += static_cast<char>(0x80 | ((c >> 6) & 0x3F));
      utf8 += static_cast<char>(0x80 | (c & 0x3F));
    }
  }
  return utf8;
}

// Lines of the table, numbers hexadecimal: `p FIRST LAST PROPERTIES`, `d FROM TO…`, `l FROM TO…`.
Unicode::Unicode(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind;
    uint32_t from = 0;
    words >> kind >> std::hex >> from;
    if (kind == "p") {
      uint32_t last = 0;
      uint32_t properties = 0;
      words >> last >> properties;
      ranges_.push_back({from, last, static_cast<uint8_t>(properties)});
    } else {
      Text& to = (kind == "d" ? decomposed_ : lower_)[from];
      for (uint32_t code = 0; words >> code;) {
        to += static_cast<char32_t>(code);
      }
    }
  }
  if (ranges_.empty()) {
    throw std::runtime_error(path + " is no table of characters");
  }
}

bool Unicode::is(char32_t c, Property property) const {
  const auto after = std::upper_bound(
      ranges_.begin(), ranges_.end(), c,
      [](char32_t code, const Range& range) { return code < range.first; });
  return after != ranges_.begin() && c <= (after - 1)->last &&
         ((after - 1)->properties & property) != 0;
}

void Unicode::append(const std::unordered_map<char32_t, Text>& map, char32_t c, Text& text) {
  const auto found = map.find(c);
  if (found == map.end()) {
    text += c;
  } else {
    text += found->second;
  }
}

void Unicode::append_decomposed(char32_t c, Text& text) const { append(decomposed_, c, text); }

void Unicode::append_lower(char32_t c, Text& text) const { append(lower_, c, text); }

}  // namespace atom
