#include "safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "json.h"

namespace atom {

const float* MappedTensor::floats() const {
  if (type != "F32") {
    throw std::runtime_error("a tensor is " + type + " and not F32");
  }
  return reinterpret_cast<const float*>(data);
}

const int8_t* MappedTensor::bytes() const {
  if (type != "I8") {
    throw std::runtime_error("a tensor is " + type + " and not I8");
  }
  return reinterpret_cast<const int8_t*>(data);
}

SafeTensors::SafeTensors(const std::string& path) : path_(path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file < 0 || ::fstat(file, &status) != 0) {
    throw std::runtime_error(path + " cannot be opened: " + std::strerror(errno));
  }
  size_ = static_cast<size_t>(status.st_size);
  start_ = size_ ? ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file, 0) : MAP_FAILED;
  ::close(file);
  if (start_ == MAP_FAILED) {
    start_ = nullptr;
    throw std::runtime_error(path + " cannot be mapped");
  }
  const auto* bytes = static_cast<const uint8_t*>(start_);
  uint64_t header = 0;
  if (size_ >= 8) {
    std::memcpy(&header, bytes, 8);
  }
  if (size_ < 8 || header > size_ - 8) {
    throw std::runtime_error(path + " is no safetensors file, or is cut off");
  }
  const Json names = Json::parse(std::string(reinterpret_cast<const char*>(bytes) + 8, header));
  for (const auto& [name, value] : names.object()) {
    if (name == "__metadata__") {
      continue;
    }
    const auto offsets = value.at("data_offsets").array();
    const auto begin = static_cast<uint64_t>(offsets.at(0).number());
    const auto end = static_cast<uint64_t>(offsets.at(1).number());
    if (begin > end || end > size_ - 8 - header) {
      throw std::runtime_error(path + " is cut off: " + name + " ends beyond it");
    }
    tensors_[name] = {
        value.at("dtype").string(), value.at("shape").integers(), bytes + 8 + header + begin};
  }
}

SafeTensors::~SafeTensors() {
  if (start_ != nullptr) {
    ::munmap(start_, size_);
  }
}

const MappedTensor& SafeTensors::at(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw std::runtime_error(path_ + " has no tensor " + name);
  }
  return found->second;
}

Table::Table(const SafeTensors& file, const std::string& name) {
  const bool plain = file.has(name);
  const MappedTensor& tensor = file.at(plain ? name : name + ".codes");
  rows_ = tensor.shape.at(0);
  width_ = tensor.shape.at(1);
  if (plain) {
    values_ = tensor.floats();
  } else {
    codes_ = tensor.bytes();
    scales_ = file.at(name + ".scales").floats();
  }
}

void Table::read(int id, float* row) const {
  if (id < 0 || id >= rows_) {
    throw std::runtime_error("the embedding table has no row " + std::to_string(id));
  }
  const size_t start = static_cast<size_t>(id) * width_;
  for (int i = 0; i < width_; ++i) {
    row[i] = values_ ? values_[start + i] : static_cast<float>(codes_[start + i]) * scales_[id];
  }
}

}  // namespace atom
