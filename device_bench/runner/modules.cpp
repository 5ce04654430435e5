#include "modules.h"

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/extension/threadpool/threadpool_guard.h>
#include <executorch/runtime/backend/backend_options_map.h>
#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/backend/options.h>

#include <map>
#include <new>
#include <stdexcept>

// Of the wheel's thread pool library, whose header it does not have.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace atom {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::runtime::Error;
using executorch::runtime::EValue;

namespace {

constexpr char kBackend[] = "XnnpackBackend";

void check(Error error, const std::string& what) {
  if (error == Error::Ok) {
    return;
  }
  if (error == Error::MemoryAllocationFailed) {
    throw std::bad_alloc();
  }
  throw std::runtime_error(what + ": error " + std::to_string(static_cast<int>(error)));
}

}  // namespace

size_t Result::size() const {
  size_t size = 1;
  for (const int extent : shape) {
    size *= extent;
  }
  return size;
}

void start_runtime(int threads, const std::string& workspaces) {
  executorch::runtime::BackendOptions<2> options;
  check(options.set_option("weight_cache_enabled", true), "weight_cache_enabled");
  const int mode = workspaces == "per_model" ? 1 : 2;
  check(options.set_option("workspace_sharing_mode", mode), "workspace_sharing_mode");
  check(executorch::runtime::set_option(kBackend, options.view()), "XNNPACK's options");
  executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(threads);
}

struct Program::Loaded {
  std::unique_ptr<Module> module;
  std::map<std::string, std::vector<std::vector<uint8_t>>> outputs;  // where results are written
};

Program::Program(ProgramFile file, const std::vector<std::string>& methods, Threads threads)
    : file_(std::move(file)) {
  if (threads != Threads::kOne) {
    all_threads_ = load(methods);
  }
  if (threads != Threads::kAll) {
    const executorch::extension::threadpool::NoThreadPoolGuard one_thread;
    one_thread_ = load(methods);
  }
  if (!file_.packed.empty()) {
    // Writes the index of what was packed; what was mapped stays as it is.
    executorch::runtime::BackendOptions<1> options;
    check(options.set_option("save_weight_cache_on_disk", true), "save_weight_cache_on_disk");
    check(executorch::runtime::set_option(kBackend, options.view()), file_.packed);
  }
}

Program::~Program() = default;

std::unique_ptr<Program::Loaded> Program::load(const std::vector<std::string>& methods) const {
  auto loaded = std::make_unique<Loaded>();
  // Mapped rather than read: the raw weights are clean pages that the system can drop.
  loaded->module = std::make_unique<Module>(file_.path, Module::LoadMode::Mmap);
  executorch::runtime::BackendOptions<1> options;
  executorch::runtime::LoadBackendOptionsMap of_load;
  // Caches are told apart by their files; one whose file cannot be opened stays in memory.
  const std::string cache = !file_.packed.empty()  ? file_.packed
                            : !file_.cache.empty() ? "no such folder/" + file_.cache
                                                   : "";
  if (!cache.empty()) {
    check(options.set_option("packed_cache_path", cache.c_str()), "packed_cache_path");
    check(of_load.set_options(kBackend, options.view()), cache);
  }
  for (const std::string& method : methods) {
    check(loaded->module->load_method(method, nullptr, nullptr, &of_load),
          file_.path + " does not load " + method);
    // Outputs have no place of their own in the file; theirs is as large as they can become.
    const auto meta = loaded->module->method_meta(method);
    check(meta.error(), file_.path);
    auto& buffers = loaded->outputs[method];
    for (size_t i = 0; i < meta->num_outputs(); ++i) {
      const auto output = meta->output_tensor_meta(i);
      check(output.error(), file_.path);
      buffers.emplace_back();
      buffers.back().reserve(output->nbytes());  // pages that are never written are never there
      const auto sizes = output->sizes();
      const auto tensor = executorch::extension::from_blob(
          buffers.back().data(), {sizes.begin(), sizes.end()}, output->scalar_type());
      check(loaded->module->set_output(method, tensor, i), file_.path + ": an output of " + method);
    }
  }
  return loaded;
}

std::vector<Result> Program::call(
    const std::string& method, const std::vector<View>& arguments, int threads) {
  Loaded& loaded = one_thread_ && (threads == 1 || !all_threads_) ? *one_thread_ : *all_threads_;
  std::vector<executorch::extension::TensorPtr> tensors;
  std::vector<EValue> values;
  for (const View& view : arguments) {
    const auto type = view.type == View::Type::kFloat  ? ScalarType::Float
                      : view.type == View::Type::kByte ? ScalarType::Byte
                                                       : ScalarType::Long;
    tensors.push_back(executorch::extension::from_blob(
        const_cast<void*>(view.data), {view.shape.begin(), view.shape.end()}, type));
    values.emplace_back(*tensors.back());
  }
  const auto outputs = loaded.module->execute(method, values);
  check(outputs.error(), file_.path + " does not run " + method);
  std::vector<Result> results;
  for (const EValue& value : *outputs) {
    const auto tensor = value.toTensor();
    const auto sizes = tensor.sizes();
    results.push_back({tensor.const_data_ptr<float>(), {sizes.begin(), sizes.end()}});
  }
  return results;
}

}  // namespace atom
