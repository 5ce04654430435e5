#include "session.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>
#include <type_traits>

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

// A module that a residency loads and releases. Used by one lane at a time.
class AnySlot {
 public:
  virtual ~AnySlot() = default;
  virtual void release(const std::string& item, const std::string& lane) = 0;
};

// The modules that are loaded, in the order of their loads.
class Loaded {
 public:
  void add(AnySlot* slot) {
    const std::lock_guard<std::mutex> lock(mutex_);
    slots_.push_back(slot);
  }

  void remove(AnySlot* slot) {
    const std::lock_guard<std::mutex> lock(mutex_);
    slots_.erase(std::remove(slots_.begin(), slots_.end(), slot), slots_.end());
  }

  void release_all() {
    for (AnySlot* slot : std::vector<AnySlot*>(slots_)) {
      slot->release("", "main");
    }
  }

 private:
  std::mutex mutex_;
  std::vector<AnySlot*> slots_;
};

template <typename Module>
class Slot : public AnySlot {
 public:
  // `name` is that of the loaded copy, `module` that of what it is a copy of.
  Slot(std::string name, std::string module, long long bytes, const std::string& residency,
       Timeline& timeline, Loaded& loaded, std::function<std::unique_ptr<Module>()> load)
      : name_(std::move(name)), label_(std::move(module)), bytes_(bytes), residency_(residency),
        timeline_(timeline), loaded_(loaded), load_(std::move(load)) {}

  // Runs work with the module, loaded if it has to be, as a span.
  void run(const std::string& stage, const std::string& item, const std::string& lane,
           const std::function<void(Module&, Span&)>& work) {
    if (!module_) {
      timeline_.span("load", name_, item, lane, [&](Span& span) {
        span.bytes_read = bytes_;
        module_ = load_();
      });
      loaded_.add(this);
    }
    timeline_.span(stage, label_, item, lane, [&](Span& span) { work(*module_, span); });
    if (residency_ == "reload_input") {
      release(item, lane);
    }
  }

  void release(const std::string& item, const std::string& lane) override {
    timeline_.span("release", name_, item, lane, [&](Span&) { module_.reset(); });
    loaded_.remove(this);
  }

 private:
  std::string name_;
  std::string label_;
  long long bytes_;
  std::string residency_;
  Timeline& timeline_;
  Loaded& loaded_;
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

// Words of a text with one space between them, as Python's " ".join(text.split()).
std::string one_line(const std::string& text, const Unicode& unicode) {
  Text line;
  bool between = false;
  for (const char32_t c : decoded(text)) {
    if (unicode.is(c, Unicode::kSpace) || (c >= 0x1C && c <= 0x1F)) {
      between = !line.empty();
    } else {
      if (between) {
        line += U' ';
        between = false;
      }
      line += c;
    }
  }
  return encoded(line);
}

// Captions with a vector each.
struct Index {
  std::vector<Caption> captions;
  std::vector<const ClipFile*> clips;
  std::vector<std::vector<float>> vectors;
};

// Whether two windows of one video share half of the shorter one.
bool overlap(const ClipFile& a, const ClipFile& b) {
  if (a.video != b.video || !a.end_s || !b.end_s) {
    return a.video == b.video;
  }
  const double shared = std::min(*a.end_s, *b.end_s) - std::max(a.start_s, b.start_s);
  return shared >= 0.5 * std::min(*a.end_s - a.start_s, *b.end_s - b.start_s);
}

// Places of the clips that fit a query, best first; of equal ones the first.
std::vector<size_t> ranked(
    const Index& index, const std::vector<float>& query, const Pipeline& pipeline) {
  std::vector<float> similarity;
  std::vector<size_t> order;
  for (size_t i = 0; i < index.vectors.size(); ++i) {
    similarity.push_back(cosine(index.vectors[i], query));
    order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return similarity[a] > similarity[b]; });
  std::vector<size_t> hits;
  for (const size_t i : order) {
    if (hits.size() == pipeline.most_hits || similarity[i] < pipeline.least_similarity) {
      break;
    }
    const bool known =
        pipeline.same_similarity < 1.0 && std::any_of(hits.begin(), hits.end(), [&](size_t j) {
          return cosine(index.vectors[i], index.vectors[j]) > pipeline.same_similarity ||
                 overlap(*index.clips[i], *index.clips[j]);
        });
    if (!known) {
      hits.push_back(i);
    }
  }
  return hits;
}

// One session in progress.
class Session {
 public:
  Session(const Job& job, const Arm& arm, const Unicode& unicode)
      : job_(job), arm_(arm), unicode_(unicode),
        threads_(arm.schedule == "parallel" ? job.threads_beside : job.threads_alone),
        beside_(threads_ < job.threads_alone ? Threads::kOne : Threads::kAll),
        encoder_("encoder", "encoder", job.encoder_bytes, arm.residency, timeline_, loaded_,
                 [this] {
                   return std::make_unique<Program>(
                       job_.encoder, std::vector<std::string>{"forward"}, beside_);
                 }),
        decoder_("decoder", "decoder", job.decoder_bytes, arm.residency, timeline_, loaded_,
                 [this] { return load_decoder(job_.decoder); }),
        script_decoder_("script_decoder", "decoder", job.decoder_bytes, arm.residency, timeline_, loaded_,
                        [this] { return load_decoder(job_.script_decoder); }),
        embedder_("embedder", "embedder", job.embedder_bytes, arm.residency, timeline_, loaded_, [this] {
          embedder_tokenizer_ = Tokenizer::read(job_.embedder_tokenizer, unicode_);
          return std::make_unique<Embedder>(
              job_.embedder, *embedder_tokenizer_, job_.embedder_ids);
        }) {}

  Trace run() {
    MemorySampler sampler([this] { return timeline_.now(); });
    Trace trace;
    if (job_.pipeline) {
      answer_prompts(*job_.pipeline, trace);
    } else {
      trace.captions = with_peak("captions", [&] { return caption_all(); });
    }
    sampler.sample();  // a short session may end between two of them
    trace.proportional = proportional_set();
    loaded_.release_all();
    trace.memory = sampler.stop();
    trace.spans = timeline_.spans();
    trace.peaks = peaks_;
    return trace;
  }

 private:
  // Runs a stage and keeps the peak of its memory, loads included.
  template <typename Work>
  std::invoke_result_t<Work> with_peak(const std::string& stage, const Work& work) {
    const bool counted = reset_peak();
    const long long faults = major_faults();
    const double start_s = timeline_.now();
    auto result = work();
    peaks_.push_back({stage, start_s, timeline_.now(), counted ? peak_resident() : -1,
                      major_faults() - faults});
    return result;
  }

  std::unique_ptr<Decoder> load_decoder(const ProgramFile& program) const {
    return std::make_unique<Decoder>(job_.shape, program, job_.tables, job_.embedding,
                                     job_.rotary, Tokenizer::read(job_.tokenizer, unicode_),
                                     beside_ == Threads::kOne ? Threads::kBoth : Threads::kAll);
  }

  // Ends a stage of a prompt.
  void end_stage() {
    if (arm_.residency == "reload_stage") {
      loaded_.release_all();
    }
  }

  void answer_prompts(const Pipeline& pipeline, Trace& trace) {
    std::optional<Index> index;
    for (size_t number = 0; number < pipeline.prompts.size(); ++number) {
      Answer answer;
      answer.start_s = timeline_.now();
      if (!index || !pipeline.indexed) {
        index = caption_and_embed("index " + std::to_string(number));
      }
      respond(pipeline, pipeline.prompts[number], *index, "prompt " + std::to_string(number),
              answer);
      end_stage();
      answer.end_s = timeline_.now();
      answer.captions = index->captions;
      trace.answers.push_back(std::move(answer));
    }
  }

  Index caption_and_embed(const std::string& item) {
    Index index;
    const std::vector<Caption> captions = with_peak("captions", [&] { return caption_all(); });
    for (size_t i = 0; i < captions.size(); ++i) {
      if (!one_line(captions[i].text, unicode_).empty()) {
        index.captions.push_back(captions[i]);
        index.clips.push_back(&job_.clips[i]);
      }
    }
    std::vector<std::string> texts;
    for (const Caption& caption : index.captions) {
      texts.push_back(caption.text);
    }
    index.vectors = with_peak("embed", [&] { return embed(texts, item); });
    return index;
  }

  void respond(const Pipeline& pipeline, const Prompt& prompt, const Index& index,
               const std::string& item, Answer& answer) {
    std::vector<size_t> hits;
    if (!index.captions.empty()) {
      const auto query = with_peak("embed", [&] { return embed({prompt.text}, item); }).at(0);
      timeline_.span("rank", "host", item, "main",
                     [&](Span&) { hits = ranked(index, query, pipeline); });
    }
    if (pipeline.writes_script) {
      end_stage();
    }
    std::string captions;
    for (size_t i = 0; i < hits.size(); ++i) {
      answer.ranking.push_back(index.captions[hits[i]].clip);
      captions += "\n " + std::to_string(i + 1) + ". " +
                  one_line(index.captions[hits[i]].text, unicode_);
    }
    if (pipeline.writes_script && !hits.empty()) {
      answer.texts.push_back(with_peak("script", [&] {
        return write("captions:" + captions + "\n" + prompt.instruction, pipeline, item);
      }));
    }
  }

  std::string write(const std::string& text, const Pipeline& pipeline, const std::string& item) {
    std::string script;
    auto& slot = arm_.residency == "co_resident" ? script_decoder_ : decoder_;
    slot.run("script", item, "main", [&](Decoder& decoder, Span& span) {
      std::vector<int> ids = pipeline.ids_before;
      const std::vector<int> of_text = decoder.tokenizer().encode(text);
      ids.insert(ids.end(), of_text.begin(), of_text.end());
      ids.insert(ids.end(), pipeline.ids_after.begin(), pipeline.ids_after.end());
      const Generated generated =
          decoder.generate(ids, {}, job_.end_id, pipeline.script, job_.threads_alone);
      span.tokens = static_cast<long long>(generated.tokens.size());
      script = decoder.tokenizer().decode(generated.tokens);
    });
    return script;
  }

  std::vector<std::vector<float>> embed(
      const std::vector<std::string>& texts, const std::string& item) {
    std::vector<std::vector<float>> vectors;
    embedder_.run("embed", item, "main", [&](Embedder& embedder, Span&) {
      for (const std::string& text : texts) {
        vectors.push_back(embedder.embed(text, job_.threads_alone));
      }
    });
    return vectors;
  }

  std::vector<Caption> caption_all() {
    std::vector<Caption> captions;
    if (arm_.schedule == "parallel") {
      caption_beside(captions);
    } else {
      for (const ClipFile& clip : job_.clips) {
        captions.push_back(caption(clip, encode(clip, "main")));
      }
    }
    end_stage();
    return captions;
  }

  void caption_beside(std::vector<Caption>& captions) {
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
        captions.push_back(caption(clip, *visual));
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

  Caption caption(const ClipFile& clip, const VisualTokens& visual) {
    Caption caption{clip.id, "", {}};
    decoder_.run("caption", clip.id, "main", [&](Decoder& decoder, Span& span) {
      caption.generated =
          decoder.generate(job_.prompt, visual, job_.end_id, job_.generation, threads_);
      caption.text = decoder.tokenizer().decode(caption.generated.tokens);
      span.tokens = static_cast<long long>(caption.generated.tokens.size());
    });
    return caption;
  }

  const Job& job_;
  const Arm& arm_;
  const Unicode& unicode_;
  int threads_;      // of stages that run beside each other; what runs alone has all
  Threads beside_;   // the same
  Timeline timeline_;
  std::vector<Peak> peaks_;
  Loaded loaded_;
  Slot<Program> encoder_;
  Slot<Decoder> decoder_;
  Slot<Decoder> script_decoder_;
  std::unique_ptr<Tokenizer> embedder_tokenizer_;
  Slot<Embedder> embedder_;
};

}  // namespace

Trace run_session(const Job& job, const Arm& arm, const Unicode& unicode) {
  return Session(job, arm, unicode).run();
}

}  // namespace atom
