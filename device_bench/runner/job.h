// What a host asks the runner to do: files, clips, prompts, settings, and the sessions to run.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "decoder.h"
#include "embedder.h"
#include "search.h"

namespace atom {

// A clip: prepared frames, uint8, (T, 3, H, W), and the window of its video.
struct ClipFile {
  std::string id;
  std::string path;
  std::string video;
  double start_s = 0.0;
  std::optional<double> end_s;
};

// One session: a residency and a schedule.
struct Arm {
  std::string residency;
  std::string schedule;
};

// A prompt, and the instruction behind the captions of a script that it asks for.
struct Prompt {
  std::string text;
  std::string instruction;
};

// What is done with the captions.
struct Pipeline {
  bool writes_script = false;  // assembly; else retrieval
  bool indexed = false;        // captions and their vectors serve all prompts
  std::vector<Prompt> prompts;
  size_t most_hits = 0;
  double least_similarity = 0.0;
  double same_similarity = 1.0;
  GenerationSettings script;
  std::vector<int> ids_before;  // of a text prompt, such as a chat template's
  std::vector<int> ids_after;
};

struct Job {
  std::string nonce;
  ProgramFile encoder;
  ProgramFile decoder;
  ProgramFile script_decoder;  // of co_resident: a copy of the decoder, packed by itself
  std::string tables;
  std::string rotary;
  std::string tokenizer;
  ProgramFile embedder;
  std::string embedder_tokenizer;
  std::string unicode;
  std::string embedding;
  std::string workspaces;
  DecoderShape shape;
  GenerationSettings generation;
  EmbedderIds embedder_ids;
  std::vector<int> frame_shape;
  std::vector<ClipFile> clips;
  std::vector<int> prompt;
  int end_id = 0;
  int queue = 1;
  int threads_alone = 1;
  int threads_beside = 1;
  long long encoder_bytes = 0;  // that a load reads, as the Python runtime counts them
  long long decoder_bytes = 0;
  long long embedder_bytes = 0;
  std::vector<Arm> sessions;
  std::optional<Pipeline> pipeline;  // captions alone without one

  // Reads a file; throws std::runtime_error with what it lacks.
  static Job read(const std::string& path);
};

}  // namespace atom
