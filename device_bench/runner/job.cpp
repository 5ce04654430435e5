#include "job.h"

#include <fstream>
#include <sstream>
#include <stdexcept>

#include "json.h"

namespace atom {

namespace {

// The methods of exported decoders take at most so many beams in a call.
constexpr int kMostBeams = 4;

Arm read_arm(const Json& json) {
  Arm arm{json.at("residency").string(), json.at("schedule").string()};
  if (arm.residency != "resident" && arm.residency != "reload_stage" &&
      arm.residency != "reload_input") {
    throw std::runtime_error("the runner does not know the residency " + arm.residency);
  }
  if (arm.schedule != "sequential" && arm.schedule != "parallel") {
    throw std::runtime_error("the runner does not know the schedule " + arm.schedule);
  }
  return arm;
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
  job.encoder = files.at("encoder").string();
  job.decoder = files.at("decoder").string();
  job.tables = files.at("tables").string();
  job.rotary = files.at("rotary").string();
  job.embedding = json.at("embedding").string();
  job.workspaces = json.at("workspaces").string();
  job.shape = DecoderShape::of(json.at("decoder"));
  job.generation = GenerationSettings::of(json.at("generation"));
  job.frame_shape = json.at("frame_shape").integers();
  for (const Json& clip : json.at("clips").array()) {
    job.clips.push_back({clip.at("id").string(), clip.at("file").string()});
  }
  job.prompt = json.at("prompt").integers();
  job.end_id = json.at("end_id").integer();
  job.queue = json.at("queue").integer();
  job.threads_alone = json.at("threads_alone").integer();
  job.threads_beside = json.at("threads_beside").integer();
  job.encoder_bytes = static_cast<long long>(json.at("bytes").at("encoder").number());
  job.decoder_bytes = static_cast<long long>(json.at("bytes").at("decoder").number());
  for (const Json& session : json.at("sessions").array()) {
    job.sessions.push_back(read_arm(session));
  }
  if (job.generation.beams < 1 || job.generation.beams > kMostBeams) {
    throw std::runtime_error("the runner searches with 1 to 4 beams, not " +
                             std::to_string(job.generation.beams));
  }
  return job;
}

}  // namespace atom
