#include "session.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>

#include "modules.h"

namespace atom {

namespace {

using Clock = std::chrono::steady_clock;

// Spans on one monotonic clock.
class Timeline {
 public:
  double now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

  // Runs work as a span of a lane; `work` may set the span's counts.
  void span(const std::string& stage, const std::string& module, const std::string& item,
            const std::string& lane, const std::function<void(Span&)>& work) {
    Span span{stage, module, item, lane, now()};
    const auto record = [&] {
      span.end_s = now();
      const std::lock_guard<std::mutex> lock(mutex_);
      spans_.push_back(span);
    };
    try {
      work(span);
    } catch (...) {
      record();
      throw;
    }
    record();
  }

  std::vector<Span> spans() const {
    std::vector<Span> sorted = spans_;
    std::stable_sort(sorted.begin(), sorted.end(), [](const Span& a, const Span& b) {
      return a.start_s != b.start_s ? a.start_s < b.start_s : a.end_s < b.end_s;
    });
    return sorted;
  }

 private:
  Clock::time_point start_ = Clock::now();
  std::mutex mutex_;
  std::vector<Span> spans_;
};

// A module that a residency loads and releases. Used by one lane.
template <typename Module>
class Slot {
 public:
  Slot(std::string name, long long bytes, const std::string& residency, Timeline& timeline,
       std::function<std::unique_ptr<Module>()> load)
      : name_(std::move(name)), bytes_(bytes), residency_(residency), timeline_(timeline),
        load_(std::move(load)) {}

  // Runs work with the module, loaded if it has to be, as a span.
  void run(const std::string& stage, const std::string& item, const std::string& lane,
           const std::function<void(Module&, Span&)>& work) {
    if (!module_) {
      timeline_.span("load", name_, item, lane, [&](Span& span) {
        span.bytes_read = bytes_;
        module_ = load_();
      });
    }
    timeline_.span(stage, name_, item, lane, [&](Span& span) { work(*module_, span); });
    if (residency_ == "reload_input") {
      release(item, lane);
    }
  }

  void release(const std::string& item, const std::string& lane) {
    if (module_) {
      timeline_.span("release", name_, item, lane, [&](Span&) { module_.reset(); });
    }
  }

 private:
  std::string name_;
  long long bytes_;
  std::string residency_;
  Timeline& timeline_;
  std::function<std::unique_ptr<Module>()> load_;
  std::unique_ptr<Module> module_;
};

// Hands encoded clips over, at most `size` waiting, then the end or an error.
class Handover {
 public:
  explicit Handover(size_t size) : size_(size) {}

  // False once the other side has stopped.
  bool put(VisualTokens visual) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return waiting_.size() < size_ || stopped_; });
    if (!stopped_) {
      waiting_.push_back(std::move(visual));
      changed_.notify_all();
    }
    return !stopped_;
  }

  void end(std::exception_ptr error) {
    const std::lock_guard<std::mutex> lock(mutex_);
    ended_ = true;
    error_ = error;
    changed_.notify_all();
  }

  std::optional<VisualTokens> take() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return !waiting_.empty() || ended_; });
    if (waiting_.empty()) {
      if (error_) {
        std::rethrow_exception(error_);
      }
      return std::nullopt;
    }
    VisualTokens visual = std::move(waiting_.front());
    waiting_.pop_front();
    changed_.notify_all();
    return visual;
  }

  void stop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  size_t size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<VisualTokens> waiting_;
  bool ended_ = false;
  bool stopped_ = false;
  std::exception_ptr error_;
};

std::vector<uint8_t> read_frames(const ClipFile& clip, const std::vector<int>& shape) {
  size_t size = 1;
  for (const int extent : shape) {
    size *= extent;
  }
  std::vector<uint8_t> frames(size);
  std::FILE* file = std::fopen(clip.path.c_str(), "rb");
  if (file == nullptr) {
    throw std::runtime_error("the frames of " + clip.id + " cannot be opened");
  }
  const size_t got = std::fread(frames.data(), 1, size, file);
  std::fclose(file);
  if (got != size) {
    throw std::runtime_error("the frames of " + clip.id + " are cut off");
  }
  return frames;
}

// One session in progress.
class Session {
 public:
  Session(const Job& job, const Arm& arm)
      : job_(job), arm_(arm),
        threads_(arm.schedule == "parallel" ? job.threads_beside : job.threads_alone),
        encoder_("encoder", job.encoder_bytes, arm.residency, timeline_,
                 [this] {
                   return std::make_unique<Program>(
                       job_.encoder, std::vector<std::string>{"forward"}, job_.threads_alone);
                 }),
        decoder_("decoder", job.decoder_bytes, arm.residency,
                 timeline_, [this] {
                   return std::make_unique<Decoder>(
                       job_.shape, job_.decoder, job_.tables, job_.embedding, job_.rotary,
                       job_.threads_alone);
                 }) {}

  Trace run() {
    MemorySampler sampler([this] { return timeline_.now(); });
    Trace trace;
    if (arm_.schedule == "parallel") {
      run_parallel(trace);
    } else {
      for (const ClipFile& clip : job_.clips) {
        caption(clip, encode(clip, "main"), trace);
      }
    }
    sampler.sample();  // a short session may end between two of them
    encoder_.release("", "main");
    decoder_.release("", "main");
    trace.memory = sampler.stop();
    trace.spans = timeline_.spans();
    return trace;
  }

 private:
  void run_parallel(Trace& trace) {
    Handover handover(job_.queue);
    std::thread encoding([&] {
      std::exception_ptr error;
      try {
        for (const ClipFile& clip : job_.clips) {
          if (!handover.put(encode(clip, "encoder"))) {
            break;
          }
        }
      } catch (...) {
        error = std::current_exception();
      }
      handover.end(error);
    });
    try {
      for (const ClipFile& clip : job_.clips) {
        const auto visual = handover.take();
        if (!visual) {
          break;
        }
        caption(clip, *visual, trace);
      }
    } catch (...) {
      handover.stop();
      encoding.join();
      throw;
    }
    encoding.join();
  }

  VisualTokens encode(const ClipFile& clip, const std::string& lane) {
    std::vector<uint8_t> frames;
    timeline_.span("decode_video", "reader", clip.id, lane,
                   [&](Span&) { frames = read_frames(clip, job_.frame_shape); });
    VisualTokens visual;
    encoder_.run("encode", clip.id, lane, [&](Program& encoder, Span&) {
      std::vector<int> shape = job_.frame_shape;
      shape.insert(shape.begin(), 1);
      const auto results =
          encoder.call("forward", {{frames.data(), shape, View::Type::kByte}}, threads_);
      const Result& tokens = results.at(0);
      visual.values.assign(tokens.data, tokens.data + tokens.size());
      visual.count = tokens.shape.at(1);
    });
    return visual;
  }

  void caption(const ClipFile& clip, const VisualTokens& visual, Trace& trace) {
    decoder_.run("caption", clip.id, "main", [&](Decoder& decoder, Span& span) {
      Generated generated =
          decoder.generate(job_.prompt, visual, job_.end_id, job_.generation, threads_);
      span.tokens = static_cast<long long>(generated.tokens.size());
      trace.captions.push_back({clip.id, std::move(generated)});
    });
  }

  const Job& job_;
  const Arm& arm_;
  int threads_;
  Timeline timeline_;
  Slot<Program> encoder_;
  Slot<Decoder> decoder_;
};

}  // namespace

Trace run_session(const Job& job, const Arm& arm) { return Session(job, arm).run(); }

}  // namespace atom
