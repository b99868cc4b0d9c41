// The control channel: one AF_UNIX SOCK_SEQPACKET pair between the parent and each child (gateway
// role or worker). Rare messages: start, attach, up, down, drain. Descriptors travel as SCM_RIGHTS.
// A child finds its end as descriptor 3. Either side's bytes are input; a malformed message from a
// child costs that child its life, from the parent it ends the child.
// A long text (a configuration with a thousand tenants) travels in a memfd beside the message.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "shared/ids.h"
#include "shared/result.h"
#include "shared/unique_fd.h"
#include "shared/worker_facts.h"

namespace sluice {

inline constexpr int kControlFd = 3;
inline constexpr std::size_t kControlTextMax = 4u << 20;
inline constexpr std::size_t kControlTextInlineMax = 32u << 10;  // longer: in a memfd
inline constexpr std::size_t kControlFdsMax = 4;

enum class ControlKind : std::uint32_t {
  // parent -> worker
  worker_start = 1,  // text: configuration (YAML); value: index of the model; fds: doorbell of the
                     // worker, of the gateway
  attach = 2,        // fds: submit region. A gateway (again): drop all sequences of the one before
  drain = 3,         // worker: finish what runs; gateway: take no new requests, finish, say drained
  // worker -> parent
  worker_hello = 16,  // facts; text: what computes, for the log; fds: step region
  failed = 17,        // text: why the start failed; the child exits
  // parent -> gateway
  gateway_start =
      32,  // text: configuration (YAML); value: port to bind (0: as configured); fds: journal
  worker_up = 33,  // facts; value: index of the model; fds: step region, doorbell of the worker, of
                   // the gateway, then the last submit region when a former gateway served it
  worker_down =
      34,       // killed and reaped: its committed records may be drained, then its sequences move
  reload = 35,  // text: configuration
  // gateway -> parent
  ready = 48,           // value: bound port
  attach_request = 49,  // fds: submit region for (worker, epoch)
  worker_corrupt = 50,  // text: reason. Kill this epoch
  drained = 51,         // also worker -> parent: all that ran is finished, the exit follows
  worker_recycle = 52,  // planned: replace this epoch's process
};

struct ControlMessage {
  ControlKind kind{};
  WorkerId worker{};
  Epoch epoch{};          // of the worker, where the message is about one
  Epoch gateway_epoch{};  // attach and attach_request
  std::uint32_t value = 0;
  DownReason reason = DownReason::none;
  WorkerFacts facts;
  std::string text;           // <= kControlTextMax
  std::vector<UniqueFd> fds;  // <= kControlFdsMax
};

class ControlChannel {
 public:
  ControlChannel() = default;
  explicit ControlChannel(UniqueFd fd) : fd_(std::move(fd)) {}
  static Result<std::pair<UniqueFd, UniqueFd>> make_pair();  // close-on-exec, non-blocking
  int fd() const { return fd_.get(); }
  // The descriptors of `message` are duplicated for the peer, not consumed. Errors: over_capacity
  // (the peer does not read), client_gone (it closed its end), io_error.
  Result<void> send(const ControlMessage& message);
  // False: no message now. Errors: client_gone (peer closed), corrupt_record.
  Result<bool> try_receive(ControlMessage& message);

 private:
  UniqueFd fd_;
};

}  // namespace sluice
