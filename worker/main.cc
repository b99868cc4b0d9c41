// sluice-worker: one device, one engine. Started by the parent with the control channel as
// descriptor 3; it opens no socket and ends with the channel or its parent. `sluice-worker inspect
// DIR` only looks at a model directory, `perplexity` scores a text: what `sluice` runs for its
// commands of these names.
#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "config/load_config.h"
#include "shared/confinement.h"
#include "shared/control.h"
#include "shared/shm_region.h"
#include "worker/engine.h"
#include "worker/make_executor.h"
#include "worker/model/inspect.h"
#include "worker/perplexity.h"
#include "worker/worker_loop.h"

namespace sluice::eng {
namespace {

// What worker_start says.
struct Start {
  WorkerId worker;
  Epoch epoch;
  cfg::Model model;
  std::size_t ring_bytes = 0;
  bool is_confined = true;
  UniqueFd own_bell;
  UniqueFd gateway_bell;
};

Result<Start> parse_start(ControlMessage message) {
  if (message.kind != ControlKind::worker_start || message.fds.size() != 2)
    return make_error(Errc::corrupt_record, "expected worker_start with two doorbells");
  const auto config = cfg::parse_config(message.text, "worker_start");
  if (!config) return config.error();
  if (message.value >= config->models.size())
    return make_error(Errc::bad_config, "worker_start names a model that is not configured");
  return Start{message.worker,
               message.epoch,
               config->models[message.value],
               config->ring_bytes,
               config->confine_processes,
               std::move(message.fds[0]),
               std::move(message.fds[1])};
}

Result<Start> wait_for_start(ControlChannel& control) {
  ControlMessage message;
  while (true) {
    const Result<bool> received = control.try_receive(message);
    if (!received) return received.error();
    if (*received) return parse_start(std::move(message));
    pollfd waited{control.fd(), POLLIN, 0};
    ::poll(&waited, 1, -1);
  }
}

Result<HashKey> random_key() {
  HashKey key{};
  if (::getrandom(key.data(), sizeof key, 0) != static_cast<ssize_t>(sizeof key))
    return make_error(Errc::io_error, "getrandom gave no key");
  return key;
}

// Embeddings beside the largest step record that a ring takes: half of the ring.
std::uint32_t embeddings_that_fit(const WorkerFacts& facts, std::size_t ring_bytes) {
  const std::size_t room = ring_bytes / 2 - sizeof(shm::RecordHeader);
  const std::size_t used = step_bytes_max(facts.sequences_max);
  const std::size_t each = std::max<std::size_t>(facts.embedding_size, 1) * sizeof(float);
  if (room <= used) return 0;
  return static_cast<std::uint32_t>(
      std::min<std::size_t>((room - used) / each, kBatchSequencesMax));
}

Result<void> say_hello(ControlChannel& control, const Start& start, const Executor& executor,
                       const SchedulerLimits& limits, const shm::Region& step_region) {
  ControlMessage hello;
  hello.kind = ControlKind::worker_hello;
  hello.worker = start.worker;
  hello.epoch = start.epoch;
  hello.facts = executor.facts();
  hello.facts.num_blocks = limits.num_blocks;
  if (limits.embeddings_max == 0) hello.facts.embedding_size = 0;
  hello.text = executor.description();
  hello.fds.emplace_back(::fcntl(step_region.fd().get(), F_DUPFD_CLOEXEC, 0));
  if (!hello.fds.back()) return make_error(Errc::io_error, "no descriptor for the step region");
  return control.send(hello);
}

// Everything is loaded, and nothing of a client has been read yet.
Result<void> confine(const Start& start, const Executor& executor) {
  if (!start.is_confined) {
    std::fprintf(stderr, "event=worker_unconfined worker=%u why=\"confine_processes is false\"\n",
                 start.worker.value);
    return {};
  }
  const DeviceAccess access = executor.device_access();
  if (access != DeviceAccess::none)
    std::fprintf(stderr, "event=worker_keeps_files worker=%u why=\"its device needs them\"\n",
                 start.worker.value);
  return confine_worker(access, kControlFd);
}

// A line for each tenth of a large model.
class ProgressLines {
 public:
  explicit ProgressLines(WorkerId worker) : worker_(worker) {}
  void operator()(std::uint64_t bytes, std::uint64_t total) {
    constexpr std::uint64_t kLarge = 256u << 20;
    if (total < kLarge || bytes * 10 / total <= tenths_) return;
    tenths_ = bytes * 10 / total;
    std::fprintf(stderr, "event=weights_loading worker=%u percent=%u bytes=%llu\n", worker_.value,
                 static_cast<unsigned>(tenths_ * 10), static_cast<unsigned long long>(bytes));
  }

 private:
  WorkerId worker_;
  std::uint64_t tenths_ = 0;
};

Result<void> run(ControlChannel& control) {
  const auto start = wait_for_start(control);
  if (!start) return start.error();
  const auto executor = make_executor(start->model, ProgressLines(start->worker));
  if (!executor) return executor.error();
  const auto key = random_key();
  if (!key) return key.error();
  auto step_region = shm::Region::create(
      {shm::RegionKind::step, start->worker, start->epoch, Epoch{}}, start->ring_bytes);
  if (!step_region) return step_region.error();
  SchedulerLimits limits = scheduler_limits((*executor)->facts(), *key);
  limits.embeddings_max =
      std::min(limits.embeddings_max, embeddings_that_fit((*executor)->facts(), start->ring_bytes));
  limits.prefix_cache = start->model.prefix_cache;
  limits.num_blocks -= golden_blocks(limits.block_tokens);
  GoldenDigest golden(**executor, BlockId(limits.num_blocks));
  const SystemClock clock;
  Engine engine(**executor, clock, limits);
  WorkerLoop loop({control, *step_region, start->worker, start->epoch, start->own_bell.get(),
                   start->gateway_bell.get(), &golden},
                  engine, clock);
  if (const auto confined = confine(*start, **executor); !confined) return confined.error();
  if (const auto said = say_hello(control, *start, **executor, limits, *step_region); !said)
    return said.error();
  return loop.run();
}

int worker_main() {
  // Dies with its parent; its memory (prompts, keys of the cache) is not for debuggers or dumps.
  give_up_privileges();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // Ctrl-C reaches the whole group of a terminal: the parent decides what ends, and when.
  std::signal(SIGINT, SIG_IGN);
  std::signal(SIGPIPE, SIG_IGN);
  int type = 0;
  socklen_t bytes = sizeof type;
  if (::getsockopt(kControlFd, SOL_SOCKET, SO_TYPE, &type, &bytes) != 0 || type != SOCK_SEQPACKET) {
    std::fputs("sluice-worker is started by `sluice serve`, not by hand\n", stderr);
    return 2;
  }
  ControlChannel control{UniqueFd(kControlFd)};
  const auto result = run(control);
  if (result || result.error().code == Errc::client_gone) return 0;
  std::fprintf(stderr, "worker_failed reason=\"%s\"\n", result.error().detail.c_str());
  ControlMessage failed;
  failed.kind = ControlKind::failed;
  failed.text = result.error().detail;
  // The exit status says the same; a parent that is gone needs neither.
  [[maybe_unused]] const auto sent = control.send(failed);
  return 1;
}

}  // namespace
}  // namespace sluice::eng

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--version") {
    std::puts("sluice-worker " SLUICE_VERSION);
    return 0;
  }
  if (argc == 3 && std::string_view(argv[1]) == "inspect")
    return sluice::eng::inspect_model(argv[2], std::cout, std::cerr);
  if (argc >= 2 && std::string_view(argv[1]) == "perplexity")
    return sluice::eng::run_perplexity(
        std::span<char* const>(argv, static_cast<std::size_t>(argc)).subspan(2), std::cout,
        std::cerr);
  if (argc != 1) {
    std::fputs("usage: sluice-worker [--version | inspect MODEL | perplexity OPTIONS]\n", stderr);
    return 2;
  }
  return sluice::eng::worker_main();
}
