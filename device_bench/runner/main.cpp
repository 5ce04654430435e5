// Runs the sessions of a job and writes what they left as lines of JSON:
//
//   runner JOB.json > results.jsonl
//
// The last line has the job's nonce; without it the run did not end. Status 3 is too little memory,
// 1 any other error, which stands on stderr in one line.
#include <cstdio>
#include <exception>
#include <new>

#include "job.h"
#include "json.h"
#include "modules.h"
#include "session.h"

namespace {

void write(const atom::JsonLine& line) {
  const std::string text = line.text();
  std::fwrite(text.data(), 1, text.size(), stdout);
}

void write(long long session, long long prompt, const atom::Caption& caption) {
  write(atom::JsonLine("caption")
            .add("session", session)
            .add("prompt", prompt)
            .add("clip", caption.clip)
            .add("text", caption.text)
            .add("tokens", caption.generated.tokens)
            .add("log_prob", caption.generated.log_prob)
            .add("token_log_probs", caption.generated.token_log_probs));
}

void write(long long session, const atom::Trace& trace) {
  for (const atom::Caption& caption : trace.captions) {
    write(session, 0, caption);
  }
  for (size_t i = 0; i < trace.answers.size(); ++i) {
    const atom::Answer& answer = trace.answers[i];
    const auto prompt = static_cast<long long>(i);
    for (const atom::Caption& caption : answer.captions) {
      write(session, prompt, caption);
    }
    write(atom::JsonLine("answer")
              .add("session", session)
              .add("prompt", prompt)
              .add("ranking", answer.ranking)
              .add("texts", answer.texts)
              .add("start_s", answer.start_s)
              .add("end_s", answer.end_s));
  }
  for (const atom::Span& span : trace.spans) {
    write(atom::JsonLine("span")
              .add("session", session)
              .add("stage", span.stage)
              .add("module", span.module)
              .add("item", span.item)
              .add("lane", span.lane)
              .add("start_s", span.start_s)
              .add("end_s", span.end_s)
              .add("bytes_read", span.bytes_read)
              .add("tokens", span.tokens));
  }
  for (const atom::Memory& memory : trace.memory) {
    write(atom::JsonLine("memory")
              .add("session", session)
              .add("at_s", memory.at_s)
              .add("anonymous", memory.anonymous)
              .add("file", memory.file)
              .add("swapped", memory.swapped));
  }
  for (const atom::Peak& peak : trace.peaks) {
    write(atom::JsonLine("peak")
              .add("session", session)
              .add("stage", peak.stage)
              .add("start_s", peak.start_s)
              .add("end_s", peak.end_s)
              .add("resident", peak.resident)
              .add("major_faults", peak.major_faults));
  }
  write(atom::JsonLine("end_of_session")
            .add("session", session)
            .add("proportional", trace.proportional));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: runner JOB.json > results.jsonl\n", stderr);
    return 2;
  }
  try {
    const atom::Job job = atom::Job::read(argv[1]);
    const atom::Unicode unicode(job.unicode);
    atom::start_runtime(job.threads_alone, job.workspaces);
    for (size_t i = 0; i < job.sessions.size(); ++i) {
      write(static_cast<long long>(i), atom::run_session(job, job.sessions[i], unicode));
    }
    write(atom::JsonLine("end").add("nonce", job.nonce));
    return std::fflush(stdout) == 0 ? 0 : 1;
  } catch (const std::bad_alloc&) {
    std::fputs("error: out of memory\n", stderr);
    return 3;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
