#include "memory.h"

#include <sys/resource.h>

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

// The number behind a name in a file of lines such as `VmHWM:  123 kB`; -1 without it.
long long kibibytes_of(const char* path, const std::string& wanted) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    long long number = 0;
    if (words >> name >> number && name == wanted) {
      return number * 1024;
    }
  }
  return -1;
}

}  // namespace

bool reset_peak() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return static_cast<bool>(clear);
}

long long peak_resident() { return kibibytes_of("/proc/self/status", "VmHWM:"); }

long long proportional_set() { return kibibytes_of("/proc/self/smaps_rollup", "Pss:"); }

long long major_faults() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_majflt : -1;
}

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
