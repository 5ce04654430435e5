#include "memory.h"

#include <chrono>
#include <fstream>
#include <sstream>
#include <string>

namespace atom {

namespace {

Memory read_memory(double at_s) {
  Memory memory;
  memory.at_s = at_s;
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    std::istringstream words(line);
    std::string name;
    long long kibibytes = 0;
    words >> name >> kibibytes;
    if (name == "RssAnon:") {
      memory.anonymous = kibibytes * 1024;
    } else if (name == "RssFile:") {
      memory.file = kibibytes * 1024;
    } else if (name == "VmSwap:") {
      memory.swapped = kibibytes * 1024;
    }
  }
  return memory;
}

}  // namespace

MemorySampler::MemorySampler(std::function<double()> now)
    : now_(std::move(now)), thread_([this] { run(); }) {}

MemorySampler::~MemorySampler() { stop(); }

std::vector<Memory> MemorySampler::stop() {
  stopped_ = true;
  if (thread_.joinable()) {
    thread_.join();
  }
  return samples_;
}

void MemorySampler::sample() {
  const std::lock_guard<std::mutex> lock(mutex_);
  samples_.push_back(read_memory(now_()));
}

void MemorySampler::run() {
  while (!stopped_) {
    sample();
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace atom
