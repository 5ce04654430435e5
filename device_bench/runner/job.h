// What a host asks the runner to do: files, clips, prompt, settings, and the sessions to run.
#pragma once

#include <string>
#include <vector>

#include "decoder.h"
#include "search.h"

namespace atom {

// A clip: prepared frames, uint8, (T, 3, H, W).
struct ClipFile {
  std::string id;
  std::string path;
};

// One session: a residency and a schedule.
struct Arm {
  std::string residency;
  std::string schedule;
};

struct Job {
  std::string nonce;
  std::string encoder;
  std::string decoder;
  std::string tables;
  std::string embedding;
  std::string rotary;
  std::string workspaces;
  DecoderShape shape;
  GenerationSettings generation;
  std::vector<int> frame_shape;
  std::vector<ClipFile> clips;
  std::vector<int> prompt;
  int end_id = 0;
  int queue = 1;
  int threads_alone = 1;
  int threads_beside = 1;
  long long encoder_bytes = 0;  // that a load reads, as the Python runtime counts them
  long long decoder_bytes = 0;
  std::vector<Arm> sessions;

  // Reads a file; throws std::runtime_error with what it lacks.
  static Job read(const std::string& path);
};

}  // namespace atom
