// Memory of this process, sampled in the background.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace atom {

// Bytes of a process: allocations, resident pages of mapped files, and what was swapped out.
struct Memory {
  double at_s = 0.0;
  long long anonymous = 0;
  long long file = 0;
  long long swapped = 0;
};

// Peaks of a stage, and what other processes share of this one.
struct Peak {
  std::string stage;
  double start_s = 0.0;
  double end_s = 0.0;
  long long resident = 0;  // VmHWM, set back when the stage began; -1 where it cannot be
  long long major_faults = 0;
};

// Sets VmHWM back to what is resident now; false where the system does not let it.
bool reset_peak();

// VmHWM in bytes; -1 where it cannot be read.
long long peak_resident();

// Proportional set size in bytes; -1 where it cannot be read.
long long proportional_set();

// Major page faults of this process since its start.
long long major_faults();

// Samples memory every 20 ms from its construction on.
class MemorySampler {
 public:
  explicit MemorySampler(std::function<double()> now);
  ~MemorySampler();
  // Takes a sample now, such as before memory is given back.
  void sample();
  // Ends the sampling and returns what it found.
  std::vector<Memory> stop();

 private:
  void run();
  std::function<double()> now_;
  std::atomic<bool> stopped_{false};
  std::mutex mutex_;
  std::vector<Memory> samples_;
  std::thread thread_;
};

}  // namespace atom
