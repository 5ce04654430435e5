#include "json.h"

#include <cstdio>
#include <cstdlib>

namespace atom {

// Reads one text from left to right.
class JsonReader {
 public:
  explicit JsonReader(const std::string& text) : text_(text) {}

  Json whole() {
    Json value = read();
    skip_space();
    if (at_ != text_.size()) {
      fail("nothing more");
    }
    return value;
  }

 private:
  [[noreturn]] void fail(const std::string& wanted) const {
    throw std::runtime_error(
        "the job is no JSON: at byte " + std::to_string(at_) + " it should have " + wanted);
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t' ||
                                  text_[at_] == '\r')) {
      ++at_;
    }
  }

  bool take(const std::string& word) {
    if (text_.compare(at_, word.size(), word) != 0) {
      return false;
    }
    at_ += word.size();
    return true;
  }

  void expect(const std::string& word) {
    skip_space();
    if (!take(word)) {
      fail(word);
    }
  }

  Json read() {
    Json json;
    skip_space();
    if (at_ >= text_.size()) {
      fail("a value");
    }
    const char first = text_[at_];
    if (first == '{') {
      json.value_ = object();
    } else if (first == '[') {
      json.value_ = array();
    } else if (first == '"') {
      json.value_ = string();
    } else if (take("true")) {
      json.value_ = true;
    } else if (take("false")) {
      json.value_ = false;
    } else if (!take("null")) {
      json.value_ = number();
    }
    return json;
  }

  Json::Object object() {
    Json::Object object;
    expect("{");
    skip_space();
    if (take("}")) {
      return object;
    }
    do {
      skip_space();
      std::string key = string();
      expect(":");
      object.emplace(std::move(key), read());
      skip_space();
    } while (take(","));
    expect("}");
    return object;
  }

  Json::Array array() {
    Json::Array array;
    expect("[");
    skip_space();
    if (take("]")) {
      return array;
    }
    do {
      array.push_back(read());
      skip_space();
    } while (take(","));
    expect("]");
    return array;
  }

  double number() {
    const char* begin = text_.c_str() + at_;
    char* end = nullptr;
    const double value = std::strtod(begin, &end);
    if (end == begin) {
      fail("a value");
    }
    at_ += end - begin;
    return value;
  }

  std::string string() {
    if (at_ >= text_.size() || text_[at_] != '"') {
      fail("a string");
    }
    ++at_;
    std::string value;
    while (at_ < text_.size() && text_[at_] != '"') {
      value += text_[at_] == '\\' ? escaped() : std::string(1, text_[at_++]);
    }
    if (at_++ >= text_.size()) {
      fail("the end of a string");
    }
    return value;
  }

  std::string escaped() {
    ++at_;
    const char kind = at_ < text_.size() ? text_[at_++] : '\0';
    switch (kind) {
      case '"':
      case '\\':
      case '/':
        return std::string(1, kind);
      case 'b':
        return "\b";
      case 'f':
        return "\f";
      case 'n':
        return "\n";
      case 'r':
        return "\r";
      case 't':
        return "\t";
      case 'u':
        return utf8(code_point());
      default:
        fail("an escape");
    }
  }

  unsigned code_point() {
    unsigned unit = hexadecimal();
    if (unit >= 0xD800 && unit < 0xDC00 && take("\\u")) {  // the first of a surrogate pair
      unit = 0x10000 + ((unit - 0xD800) << 10) + (hexadecimal() - 0xDC00);
    }
    return unit;
  }

  unsigned hexadecimal() {
    if (at_ + 4 > text_.size()) {
      fail("four digits");
    }
    const std::string digits = text_.substr(at_, 4);
    at_ += 4;
    return static_cast<unsigned>(std::strtoul(digits.c_str(), nullptr, 16));
  }

  static std::string utf8(unsigned code) {
    std::string bytes;
    if (code < 0x80) {
      bytes += static_cast<char>(code);
    } else if (code < 0x800) {
      bytes += static_cast<char>(0xC0 | (code >> 6));
      bytes += static_cast<char>(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
      bytes += static_cast<char>(0xE0 | (code >> 12));
      bytes += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      bytes += static_cast<char>(0x80 | (code & 0x3F));
    } else {
      bytes += static_cast<char>(0xF0 | (code >> 18));
      bytes += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
      bytes += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
      bytes += static_cast<char>(0x80 | (code & 0x3F));
    }
    return bytes;
  }

  const std::string& text_;
  size_t at_ = 0;
};

Json Json::parse(const std::string& text) { return JsonReader(text).whole(); }

const Json& Json::at(const std::string& key) const {
  const Object& object = get<Object>("an object");
  const auto found = object.find(key);
  if (found == object.end()) {
    throw std::runtime_error("the job lacks " + key);
  }
  return found->second;
}

std::vector<int> Json::integers() const {
  std::vector<int> values;
  for (const Json& value : array()) {
    values.push_back(value.integer());
  }
  return values;
}

namespace {

std::string quoted(const std::string& text) {
  std::string escaped = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      escaped += '\\';
      escaped += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof(code), "\\u%04x", c);
      escaped += code;
    } else {
      escaped += c;
    }
  }
  return escaped + "\"";
}

std::string digits(const char* format, double value) {
  char text[40];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

template <typename T, typename Write>
std::string list(const std::vector<T>& values, Write write) {
  std::string text;
  for (const T& value : values) {
    text += (text.empty() ? "" : ",") + write(value);
  }
  return "[" + text + "]";
}

}  // namespace

JsonLine& JsonLine::raw(const std::string& key, const std::string& value) {
  members_ += (members_.empty() ? "" : ",") + quoted(key) + ":" + value;
  return *this;
}

JsonLine& JsonLine::add(const std::string& key, const std::string& value) {
  return raw(key, quoted(value));
}

JsonLine& JsonLine::add(const std::string& key, double value) {
  return raw(key, digits("%.9g", value));
}

JsonLine& JsonLine::add(const std::string& key, long long value) {
  return raw(key, std::to_string(value));
}

JsonLine& JsonLine::add(const std::string& key, const std::vector<int>& values) {
  return raw(key, list(values, [](int value) { return std::to_string(value); }));
}

JsonLine& JsonLine::add(const std::string& key, const std::vector<std::string>& values) {
  return raw(key, list(values, quoted));
}

JsonLine& JsonLine::add(const std::string& key, const std::vector<float>& values) {
  return raw(key, list(values, [](float value) { return digits("%.9g", value); }));
}

}  // namespace atom
