#include "job.h"

#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

#include "json.h"

namespace atom {

namespace {

// The methods of exported decoders take at most so many beams in a call.
constexpr int kMostBeams = 4;

long long whole(const Json& json) { return static_cast<long long>(json.number()); }

Arm read_arm(const Json& json) {
  Arm arm{json.at("residency").string(), json.at("schedule").string()};
  if (arm.residency != "resident" && arm.residency != "reload_stage" &&
      arm.residency != "reload_input" && arm.residency != "co_resident") {
    throw std::runtime_error("the runner does not know the residency " + arm.residency);
  }
  if (arm.schedule != "sequential" && arm.schedule != "parallel") {
    throw std::runtime_error("the runner does not know the schedule " + arm.schedule);
  }
  return arm;
}

ClipFile read_clip(const Json& json) {
  ClipFile clip{json.at("id").string(), json.at("file").string(), json.at("video").string(),
                json.at("start_s").number(), std::nullopt};
  if (!json.at("end_s").is_null()) {
    clip.end_s = json.at("end_s").number();
  }
  return clip;
}

GenerationSettings read_generation(const Json& json) {
  const GenerationSettings settings = GenerationSettings::of(json);
  if (settings.beams < 1 || settings.beams > kMostBeams) {
    throw std::runtime_error("the runner searches with 1 to 4 beams, not " +
                             std::to_string(settings.beams));
  }
  return settings;
}

Pipeline read_pipeline(const Json& json) {
  Pipeline pipeline;
  pipeline.indexed = json.at("session").string() == "indexed";
  for (const Json& prompt : json.at("prompts").array()) {
    pipeline.prompts.push_back({prompt.at("text").string(), prompt.at("instruction").string()});
  }
  pipeline.most_hits = static_cast<size_t>(json.at("most_hits").integer());
  pipeline.least_similarity = json.at("least_similarity").number();
  pipeline.same_similarity = json.at("same_similarity").number();
  pipeline.writes_script = !json.at("script").is_null();
  if (pipeline.writes_script) {
    pipeline.script = read_generation(json.at("script"));
    pipeline.ids_before = json.at("ids_before").integers();
    pipeline.ids_after = json.at("ids_after").integers();
  }
  return pipeline;
}

}  // namespace

Job Job::read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw std::runtime_error(path + " cannot be opened");
  }
  std::stringstream text;
  text << file.rdbuf();
  const Json json = Json::parse(text.str());
  Job job;
  job.nonce = json.at("nonce").string();
  const Json& files = json.at("files");
  const std::string packed = json.at("packed").string();
  if (!packed.empty()) {
    std::filesystem::create_directories(packed);
  }
  const auto program = [&](const std::string& name) {
    const std::string file = files.at(name).string();
    return ProgramFile{file, packed.empty() ? "" : packed + "/" + file + ".packed"};
  };
  job.encoder = program("encoder");
  job.decoder = program("decoder");
  job.script_decoder = job.decoder;
  job.script_decoder.cache = "script_decoder";
  if (!packed.empty()) {
    job.script_decoder.packed = packed + "/script_decoder.packed";
  }
  job.tables = files.at("tables").string();
  job.rotary = files.at("rotary").string();
  job.tokenizer = files.at("tokenizer").string();
  job.unicode = files.at("unicode").string();
  job.embedding = json.at("embedding").string();
  job.workspaces = json.at("workspaces").string();
  job.shape = DecoderShape::of(json.at("decoder"));
  job.generation = read_generation(json.at("generation"));
  job.frame_shape = json.at("frame_shape").integers();
  for (const Json& clip : json.at("clips").array()) {
    job.clips.push_back(read_clip(clip));
  }
  job.prompt = json.at("prompt").integers();
  job.end_id = json.at("end_id").integer();
  job.queue = json.at("queue").integer();
  job.threads_alone = json.at("threads_alone").integer();
  job.threads_beside = json.at("threads_beside").integer();
  if (job.threads_beside != 1 && job.threads_beside != job.threads_alone) {
    throw std::runtime_error("stages beside each other have one thread or all");
  }
  job.encoder_bytes = whole(json.at("bytes").at("encoder"));
  job.decoder_bytes = whole(json.at("bytes").at("decoder"));
  for (const Json& session : json.at("sessions").array()) {
    job.sessions.push_back(read_arm(session));
  }
  if (json.has("pipeline")) {
    job.pipeline = read_pipeline(json.at("pipeline"));
    job.embedder = program("embedder");
    job.embedder_tokenizer = files.at("embedder_tokenizer").string();
    job.embedder_bytes = whole(json.at("bytes").at("embedder"));
    const Json& ids = json.at("embedder");
    job.embedder_ids = {ids.at("begin").integer(), ids.at("end").integer(),
                        ids.at("longest").integer()};
  }
  return job;
}

}  // namespace atom
