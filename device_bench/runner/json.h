// JSON: a reader for jobs, a writer for lines of results.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

namespace atom {

// A value that was read. Accessors throw std::runtime_error where it is of another kind.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::map<std::string, Json>;

  // Reads a whole text; throws std::runtime_error with the position of the first mistake.
  static Json parse(const std::string& text);

  const Json& at(const std::string& key) const;
  bool has(const std::string& key) const { return object().count(key) != 0; }
  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  const Array& array() const { return get<Array>("an array"); }
  const Object& object() const { return get<Object>("an object"); }
  const std::string& string() const { return get<std::string>("a string"); }
  double number() const { return get<double>("a number"); }
  int integer() const { return static_cast<int>(number()); }
  bool boolean() const { return get<bool>("true or false"); }
  std::vector<int> integers() const;

 private:
  friend class JsonReader;
  template <typename T>
  const T& get(const char* what) const {
    if (const T* value = std::get_if<T>(&value_)) {
      return *value;
    }
    throw std::runtime_error(std::string("the job has something else where it needs ") + what);
  }
  std::variant<std::nullptr_t, bool, double, std::string, Array, Object> value_ = nullptr;
};

// One line of results, written member by member.
class JsonLine {
 public:
  explicit JsonLine(const std::string& kind) { add("kind", kind); }
  JsonLine& add(const std::string& key, const std::string& value);
  JsonLine& add(const std::string& key, double value);
  JsonLine& add(const std::string& key, long long value);
  JsonLine& add(const std::string& key, const std::vector<int>& values);
  JsonLine& add(const std::string& key, const std::vector<float>& values);
  JsonLine& add(const std::string& key, const std::vector<std::string>& values);
  std::string text() const { return "{" + members_ + "}\n"; }

 private:
  JsonLine& raw(const std::string& key, const std::string& value);
  std::string members_;
};

}  // namespace atom
