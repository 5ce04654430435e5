#include "tokenizers.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "json.h"

namespace atom {

namespace {

// One printable character for each byte, as byte-level tokens are written.
const std::vector<char32_t>& characters_of_bytes() {
  static const std::vector<char32_t> characters = [] {
    std::vector<char32_t> table(256);
    char32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
                             (byte >= 174 && byte <= 255);
      table[byte] = printable ? static_cast<char32_t>(byte) : next++;
    }
    return table;
  }();
  return characters;
}

const std::unordered_map<char32_t, char>& bytes_of_characters() {
  static const std::unordered_map<char32_t, char> bytes = [] {
    std::unordered_map<char32_t, char> table;
    for (int byte = 0; byte < 256; ++byte) {
      table[characters_of_bytes()[byte]] = static_cast<char>(byte);
    }
    return table;
  }();
  return bytes;
}

// Byte-level BPE with the pattern of GPT-2, of a space before the text.
class ByteLevelBpe : public Tokenizer {
 public:
  ByteLevelBpe(const Json& file, const Unicode& unicode) : Tokenizer(file, unicode) {
    int rank = 0;
    for (const Json& merge : file.at("model").at("merges").array()) {
      ranks_[merge.array().at(0).string() + ' ' + merge.array().at(1).string()] = rank++;
    }
  }

 protected:
  void encode_plain(const std::string& text, std::vector<int>& ids) const override {
    const Text characters = decoded(text.empty() || text[0] == ' ' ? text : ' ' + text);
    size_t at = 0;
    while (at < characters.size()) {
      const size_t end = end_of_word(characters, at);
      encode_word(encoded(characters.substr(at, end - at)), ids);
      at = end;
    }
  }

  std::string joined(const std::vector<std::string>& tokens) const override {
    std::string bytes;
    for (const std::string& token : tokens) {
      for (const char32_t c : decoded(token)) {
        const auto found = bytes_of_characters().find(c);
        if (found != bytes_of_characters().end()) {
          bytes += found->second;
        }
      }
    }
    return encoded(decoded(bytes));
  }

 private:
  bool is(const Text& text, size_t at, Unicode::Property property) const {
    return at < text.size() && unicode_.is(text[at], property);
  }

  // Neither space nor letter nor number.
  bool is_sign(const Text& text, size_t at) const {
    return at < text.size() && !is(text, at, Unicode::kSpace) && !is(text, at, Unicode::kLetter) &&
           !is(text, at, Unicode::kNumber);
  }

  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  size_t end_of_word(const Text& text, size_t at) const {
    for (const char32_t* suffix : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"}) {
      const Text wanted(suffix);
      if (text.compare(at, wanted.size(), wanted) == 0) {
        return at + wanted.size();
      }
    }
    const size_t first = text[at] == U' ' ? at + 1 : at;
    size_t end = first;
    while (is(text, end, Unicode::kLetter)) {
      ++end;
    }
    if (end == first) {
      while (is(text, end, Unicode::kNumber)) {
        ++end;
      }
    }
    if (end == first) {
      while (is_sign(text, end)) {
        ++end;
      }
    }
    if (end > first) {
      return end;
    }
    end = at;
    while (is(text, end, Unicode::kSpace)) {
      ++end;
    }
    // Of spaces before a word all but the last, which belongs to the word.
    return end < text.size() && end - at > 1 ? end - 1 : end;
  }

  void encode_word(const std::string& word, std::vector<int>& ids) const {
    std::vector<std::string> parts;
    for (const char byte : word) {
      parts.push_back(encoded(Text(1, characters_of_bytes()[static_cast<unsigned char>(byte)])));
    }
    while (parts.size() > 1) {
      int best = std::numeric_limits<int>::max();
      size_t place = 0;
      for (size_t i = 0; i + 1 < parts.size(); ++i) {
        const auto found = ranks_.find(parts[i] + ' ' + parts[i + 1]);
        if (found != ranks_.end() && found->second < best) {
          best = found->second;
          place = i;
        }
      }
      if (best == std::numeric_limits<int>::max()) {
        break;
      }
      parts[place] += parts[place + 1];
      parts.erase(parts.begin() + place + 1);
    }
    for (const std::string& part : parts) {
      const int id = id_of(part);
      if (id >= 0) {  // a byte that the vocabulary lacks is left out, as the library does
        ids.push_back(id);
      }
    }
  }

  std::unordered_map<std::string, int> ranks_;  // of the merges, by both parts
};

// One token a word or run of other signs, as random weights have them.
class WordLevel : public Tokenizer {
 public:
  WordLevel(const Json& file, const Unicode& unicode)
      : Tokenizer(file, unicode), unknown_(id_of(file.at("model").at("unk_token").string())) {}

 protected:
  void encode_plain(const std::string& text, std::vector<int>& ids) const override {
    const Text characters = decoded(text);
    size_t at = 0;
    while (at < characters.size()) {
      if (unicode_.is(characters[at], Unicode::kSpace)) {
        ++at;
        continue;
      }
      const bool word = unicode_.is(characters[at], Unicode::kWord);
      size_t end = at;
      while (end < characters.size() && unicode_.is(characters[end], Unicode::kWord) == word &&
             !unicode_.is(characters[end], Unicode::kSpace)) {
        ++end;
      }
      const int id = id_of(encoded(characters.substr(at, end - at)));
      ids.push_back(id < 0 ? unknown_ : id);
      at = end;
    }
  }

  std::string joined(const std::vector<std::string>& tokens) const override {
    std::string text;
    for (const std::string& token : tokens) {
      text += (text.empty() ? "" : " ") + token;
    }
    return text;
  }

 private:
  int unknown_;
};

// BERT's: characters normalised, words and signs apart, each word in its longest known pieces.
class WordPiece : public Tokenizer {
 public:
  bool writes() const override { return false; }
  WordPiece(const Json& file, const Unicode& unicode) : Tokenizer(file, unicode) {
    const Json& model = file.at("model");
    unknown_ = id_of(model.at("unk_token").string());
    prefix_ = model.at("continuing_subword_prefix").string();
    longest_word_ = static_cast<size_t>(model.at("max_input_chars_per_word").integer());
  }

 protected:
  void encode_plain(const std::string& text, std::vector<int>& ids) const override {
    const Text characters = normalised(decoded(text));
    size_t at = 0;
    while (at < characters.size()) {
      if (unicode_.is(characters[at], Unicode::kSpace)) {
        ++at;
        continue;
      }
      size_t end = at + 1;
      if (!is_sign(characters[at])) {
        while (end < characters.size() && !unicode_.is(characters[end], Unicode::kSpace) &&
               !is_sign(characters[end])) {
          ++end;
        }
      }
      encode_word(characters.substr(at, end - at), ids);
      at = end;
    }
  }

  std::string joined(const std::vector<std::string>&) const override {
    throw std::runtime_error("a WordPiece tokenizer is for reading alone");
  }

 private:
  bool is_sign(char32_t c) const {
    const bool ascii = (c >= 33 && c <= 47) || (c >= 58 && c <= 64) || (c >= 91 && c <= 96) ||
                       (c >= 123 && c <= 126);
    return ascii || unicode_.is(c, Unicode::kPunctuation);
  }

  static bool is_chinese(char32_t c) {
    constexpr char32_t ranges[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                      {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                      {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    return std::any_of(std::begin(ranges), std::end(ranges), [c](const auto& range) {
      return c >= range[0] && c <= range[1];
    });
  }

  // Without control characters and accents, in lower case, Chinese characters apart.
  Text normalised(const Text& text) const {
    Text spaced;
    for (const char32_t c : text) {
      const bool space = c == U'\t' || c == U'\n' || c == U'\r' || unicode_.is(c, Unicode::kSpace);
      if (space) {
        spaced += U' ';
      } else if (c == 0 || c == 0xFFFD || unicode_.is(c, Unicode::kOther)) {
        continue;
      } else if (is_chinese(c)) {
        spaced += Text{U' ', c, U' '};
      } else {
        spaced += c;
      }
    }
    Text apart;
    for (const char32_t c : spaced) {
      unicode_.append_decomposed(c, apart);
    }
    Text lower;
    for (const char32_t c : apart) {
      if (!unicode_.is(c, Unicode::kNonspacingMark)) {
        unicode_.append_lower(c, lower);
      }
    }
    return lower;
  }

  void encode_word(const Text& word, std::vector<int>& ids) const {
    if (word.size() > longest_word_) {
      ids.push_back(unknown_);
      return;
    }
    std::vector<int> pieces;
    size_t at = 0;
    while (at < word.size()) {
      int id = -1;
      size_t end = word.size();
      for (; end > at; --end) {
        id = id_of((at ? prefix_ : "") + encoded(word.substr(at, end - at)));
        if (id >= 0) {
          break;
        }
      }
      if (id < 0) {
        ids.push_back(unknown_);
        return;
      }
      pieces.push_back(id);
      at = end;
    }
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  int unknown_ = 0;
  std::string prefix_;
  size_t longest_word_ = 0;
};

}  // namespace

Tokenizer::Tokenizer(const Json& file, const Unicode& unicode) : unicode_(unicode) {
  for (const auto& [token, id] : file.at("model").at("vocab").object()) {
    ids_[token] = id.integer();
    tokens_[id.integer()] = token;
  }
  for (const Json& added : file.at("added_tokens").array()) {
    const std::string& token = added.at("content").string();
    const int id = added.at("id").integer();
    specials_[token] = id;
    tokens_[id] = token;
  }
}

std::unique_ptr<Tokenizer> Tokenizer::read(const std::string& path, const Unicode& unicode) {
  std::ifstream stream(path, std::ios::binary);
  if (!stream) {
    throw std::runtime_error(path + " cannot be opened");
  }
  std::stringstream text;
  text << stream.rdbuf();
  const Json file = Json::parse(text.str());
  const std::string& kind = file.at("model").at("type").string();
  if (kind == "BPE") {
    return std::make_unique<ByteLevelBpe>(file, unicode);
  }
  if (kind == "WordLevel") {
    return std::make_unique<WordLevel>(file, unicode);
  }
  if (kind == "WordPiece") {
    return std::make_unique<WordPiece>(file, unicode);
  }
  throw std::runtime_error(path + " is a tokenizer of the kind " + kind + ", which is not known");
}

int Tokenizer::id_of(const std::string& token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

std::vector<int> Tokenizer::encode(const std::string& text) const {
  std::vector<int> ids;
  size_t at = 0;
  while (at <= text.size()) {
    // The first special token from here on; of those at one place the longest.
    size_t place = std::string::npos;
    const std::pair<const std::string, int>* special = nullptr;
    for (const auto& candidate : specials_) {
      const size_t found = text.find(candidate.first, at);
      if (found != std::string::npos &&
          (found < place ||
           (found == place && candidate.first.size() > special->first.size()))) {
        place = found;
        special = &candidate;
      }
    }
    const size_t end = special ? place : text.size();
    if (end > at) {
      encode_plain(text.substr(at, end - at), ids);
    }
    if (!special) {
      break;
    }
    ids.push_back(special->second);
    at = end + special->first.size();
  }
  return ids;
}

std::string Tokenizer::decode(const std::vector<int>& ids) const {
  std::vector<std::string> tokens;
  for (const int id : ids) {
    const auto found = tokens_.find(id);
    if (found != tokens_.end() && !specials_.count(found->second)) {
      tokens.push_back(found->second);
    }
  }
  const Text text = decoded(joined(tokens));
  size_t begin = 0;
  size_t end = text.size();
  while (begin < end && unicode_.is(text[begin], Unicode::kSpace)) {
    ++begin;
  }
  while (end > begin && unicode_.is(text[end - 1], Unicode::kSpace)) {
    --end;
  }
  return encoded(text.substr(begin, end - begin));
}

}  // namespace atom
