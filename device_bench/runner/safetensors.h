// Tensors of a safetensors file, mapped and not copied.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace atom {

// A tensor inside a mapped file.
struct MappedTensor {
  std::string type;
  std::vector<int> shape;
  const uint8_t* data = nullptr;

  // Throws std::runtime_error where it is not of this type.
  const float* floats() const;
  const int8_t* bytes() const;
};

// A file of tensors, mapped until it is destroyed.
class SafeTensors {
 public:
  // Throws std::runtime_error where it is no such file.
  explicit SafeTensors(const std::string& path);
  ~SafeTensors();
  SafeTensors(const SafeTensors&) = delete;
  SafeTensors& operator=(const SafeTensors&) = delete;

  bool has(const std::string& name) const { return tensors_.count(name) != 0; }
  // Throws std::runtime_error where there is none of this name.
  const MappedTensor& at(const std::string& name) const;

 private:
  std::string path_;
  void* start_ = nullptr;
  size_t size_ = 0;
  std::map<std::string, MappedTensor> tensors_;
};

// An embedding table that is read by rows: fp32, or int8 codes with a scale for each row.
class Table {
 public:
  Table(const SafeTensors& file, const std::string& name);
  int width() const { return width_; }
  // Writes row `id`, `width()` values, to `row`; throws std::runtime_error where there is none.
  void read(int id, float* row) const;

 private:
  const float* values_ = nullptr;
  const int8_t* codes_ = nullptr;
  const float* scales_ = nullptr;
  int rows_ = 0;
  int width_ = 0;
};

}  // namespace atom
