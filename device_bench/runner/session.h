// A session: clips through encoder and decoder under a residency and a schedule, with its spans.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "job.h"
#include "memory.h"

namespace atom {

// A timed interval of work, as atom_repro/datatypes.py has it.
struct Span {
  std::string stage;
  std::string module;
  std::string item;
  std::string lane;
  double start_s = 0.0;
  double end_s = 0.0;
  long long bytes_read = 0;
  long long tokens = 0;
};

struct Caption {
  std::string clip;
  std::string text;
  Generated generated;
};

// The answer to one prompt: its hits, best first, the captions that it used, and its script.
struct Answer {
  std::vector<Caption> captions;
  std::vector<std::string> ranking;
  std::vector<std::string> texts;
  double start_s = 0.0;
  double end_s = 0.0;
};

// What a session left; captions are those of a job without a pipeline.
struct Trace {
  std::vector<Caption> captions;
  std::vector<Answer> answers;
  std::vector<Span> spans;
  std::vector<Memory> memory;
  std::vector<Peak> peaks;
  long long proportional = -1;  // PSS with all that is loaded at the end
};

Trace run_session(const Job& job, const Arm& arm, const Unicode& unicode);

}  // namespace atom
