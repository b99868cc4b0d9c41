// A gateway or worker that does what a test tells it: it speaks the control protocol on descriptor
// 3, connects to the test's socket, reports each message it gets and obeys one command per packet.
//
//   scripted_child gateway|worker SOCKET
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <map>
#include <sstream>
#include <string>

#include "shared/byte_ring.h"
#include "shared/check.h"
#include "shared/control.h"
#include "shared/progress_page.h"

namespace sluice {
namespace {

using namespace shm;

int connect_to_test(const char* path) {
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  CHECK(::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

UniqueFd duplicate(const UniqueFd& fd) {
  return UniqueFd(::dup(fd.get()));
}

class Child {
 public:
  Child(const std::string& role, const char* path)
      : channel_(UniqueFd(kControlFd)), test_(connect_to_test(path)) {
    report(role + " " + std::to_string(::getpid()));
  }

  void run() {
    for (;;) {
      pollfd waited[2] = {{kControlFd, POLLIN, 0}, {test_, POLLIN, 0}};
      if (channel_.fd() < 0) waited[0].fd = -1;
      if (::poll(waited, 2, -1) < 0) continue;
      if (waited[0].revents != 0) receive();
      if (waited[1].revents != 0) obey();
    }
  }

 private:
  void report(const std::string& text) {
    CHECK(::send(test_, text.data(), text.size(), MSG_NOSIGNAL) >= 0);
  }

  void receive() {
    ControlMessage message;
    const auto got = channel_.try_receive(message);
    if (!got) {
      channel_ = ControlChannel();
      return report("closed");
    }
    if (!*got) return;
    if (message.kind == ControlKind::worker_start) {
      worker_ = message.worker;
      epoch_ = message.epoch;
    }
    if (message.kind == ControlKind::worker_up)
      step_fds_[message.worker.value] = std::move(message.fds[0]);
    std::ostringstream text;
    text << "message kind=" << static_cast<unsigned>(message.kind)
         << " worker=" << message.worker.value << " epoch=" << message.epoch.value
         << " value=" << message.value << " reason=" << static_cast<unsigned>(message.reason)
         << " fds=" << message.fds.size()
         << " config=" << (message.text.find("models:") != std::string::npos ? 1 : 0)
         << " secrets=" << (message.text.find("sha256") != std::string::npos ? 1 : 0);
    report(text.str());
  }

  ControlMessage message(ControlKind kind) const {
    ControlMessage made;
    made.kind = kind;
    made.worker = worker_;
    made.epoch = epoch_;
    return made;
  }
  void send(const ControlMessage& message) { CHECK(channel_.send(message)); }

  void obey() {
    char bytes[256];
    const ssize_t got = ::recv(test_, bytes, sizeof bytes, 0);
    if (got <= 0) ::_exit(0);  // the test is over
    std::istringstream command(std::string(bytes, static_cast<std::size_t>(got)));
    std::string verb;
    command >> verb;
    std::uint64_t number = 0;
    if (verb == "hello") {
      hello(epoch_);
    } else if (verb == "hello_with_wrong_epoch") {
      hello(Epoch(epoch_.value + 1));
    } else if (verb == "failed") {
      ControlMessage failed = message(ControlKind::failed);
      std::getline(command >> std::ws, failed.text);
      send(failed);
    } else if (verb == "exit") {
      command >> number;
      ::_exit(static_cast<int>(number));
    } else if (verb == "signal") {
      command >> number;
      ::raise(static_cast<int>(number));
    } else if (verb == "forward") {
      command >> number;
      writer_->begin_forward(number, 1, 0, {});
    } else if (verb == "phase") {
      command >> number;
      writer_->turn(static_cast<WorkerPhase>(number), 1, {});
    } else if (verb == "garbage") {
      CHECK(::send(channel_.fd(), "garbage", 7, MSG_NOSIGNAL) == 7);
    } else if (verb == "close") {
      channel_ = ControlChannel();
      ::close(kControlFd);
    } else if (verb == "ready") {
      ControlMessage ready = message(ControlKind::ready);
      command >> ready.value;
      send(ready);
    } else if (verb == "drained") {
      send(message(ControlKind::drained));
    } else if (verb == "corrupt") {
      command >> worker_.value >> epoch_.value;
      send(message(ControlKind::worker_corrupt));
    } else if (verb == "attach") {
      command >> worker_.value >> epoch_.value >> number;
      attach(Epoch(number));
    } else if (verb == "submit") {
      RingWriter ring(*submit_, *step_);
      const std::uint64_t sequence = 1;
      CHECK(ring.try_write(RecordType::cancel, std::as_bytes(std::span(&sequence, 1))));
    }
    report("done");
  }

  void hello(Epoch claimed) {
    step_ = *Region::create({RegionKind::step, worker_, claimed, Epoch(0)}, kRingBytesMin);
    writer_.emplace(*step_);
    writer_->turn(WorkerPhase::idle, 1, {});
    ControlMessage hello = message(ControlKind::worker_hello);
    hello.fds.push_back(duplicate(step_->fd()));
    send(hello);
  }

  void attach(Epoch gateway_epoch) {
    step_ = *Region::attach(duplicate(step_fds_.at(worker_.value)),
                            {RegionKind::step, worker_, epoch_, Epoch(0)});
    submit_ = *Region::create({RegionKind::submit, worker_, epoch_, gateway_epoch}, kRingBytesMin);
    ControlMessage request = message(ControlKind::attach_request);
    request.gateway_epoch = gateway_epoch;
    request.fds.push_back(duplicate(submit_->fd()));
    send(request);
  }

  ControlChannel channel_;
  int test_;
  WorkerId worker_{};
  Epoch epoch_{};
  std::optional<Region> step_, submit_;
  std::optional<ProgressWriter> writer_;
  std::map<std::uint32_t, UniqueFd> step_fds_;
};

}  // namespace
}  // namespace sluice

int main(int argc, char** argv) {
  CHECK(argc == 3);
  sluice::Child(argv[1], argv[2]).run();
}
