// Exported files on ExecuTorch with XNNPACK: options, threads, calls of methods.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace atom {

// A tensor in memory: an argument of a method, not owned.
struct View {
  enum class Type { kFloat, kByte, kLong };
  const void* data;
  std::vector<int> shape;
  Type type = Type::kFloat;
};

// A result of a method, owned by the method until its next call.
struct Result {
  const float* data;
  std::vector<int> shape;
  size_t size() const;
};

// Sets the backend up before anything is loaded: methods share packed weights, modules have a
// workspace each (else XNNPACK runs one at a time), the pool has so many threads.
// `workspaces` is `per_model`, or `global` to see what that costs.
void start_runtime(int threads, const std::string& workspaces);

// An exported file.
struct ProgramFile {
  std::string path;
  std::string packed;  // where its packed weights are kept between loads; empty: nowhere
  // Weights of one name are packed once in a process; a copy of a module names a cache of its own.
  std::string cache = "";
};

// With how many threads a program is called: with all of the pool, with the calling one, or both.
enum class Threads { kAll, kOne, kBoth };

// The methods of one file.
class Program {
 public:
  // Maps the file and packs the weights of its methods, or maps what was packed before. XNNPACK
  // takes the threads of a method when it is loaded, so each is loaded for those that call it.
  // Throws std::bad_alloc without memory, std::runtime_error for a file that does not load.
  Program(ProgramFile file, const std::vector<std::string>& methods, Threads threads);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Runs a method with one thread or with all of the pool. Not to be called from two threads.
  std::vector<Result> call(
      const std::string& method, const std::vector<View>& arguments, int threads);

 private:
  struct Loaded;
  std::unique_ptr<Loaded> load(const std::vector<std::string>& methods) const;

  ProgramFile file_;
  std::unique_ptr<Loaded> all_threads_;
  std::unique_ptr<Loaded> one_thread_;
};

}  // namespace atom
