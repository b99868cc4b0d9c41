// Control messages on a SOCK_SEQPACKET pair: one fixed head, a text, descriptors beside it.
#include "shared/control.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

#include "shared/check.h"
#include "shared/limits.h"

namespace sluice {
namespace {

// The head on the wire; PROTOCOL.md has the offsets. Both ends are built together.
struct WireHead {
  std::uint32_t kind;
  std::uint32_t worker;
  std::uint64_t epoch;
  std::uint64_t gateway_epoch;
  std::uint32_t value;
  std::uint32_t reason;
  WorkerFacts facts;
  std::uint32_t text_bytes;
  std::uint32_t num_fds;  // of the message; one more follows when the text is in a memfd
};
static_assert(std::is_trivially_copyable_v<WireHead> && sizeof(WireHead) == 104);

constexpr std::size_t kFdsOnWireMax = kControlFdsMax + 1;
constexpr int kTextSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

Error corrupt(const char* why) {
  return make_error(Errc::corrupt_record, std::string("control message: ") + why);
}

bool known_kind(std::uint32_t kind) {
  switch (static_cast<ControlKind>(kind)) {
    case ControlKind::worker_start:
    case ControlKind::attach:
    case ControlKind::drain:
    case ControlKind::worker_hello:
    case ControlKind::failed:
    case ControlKind::gateway_start:
    case ControlKind::worker_up:
    case ControlKind::worker_down:
    case ControlKind::reload:
    case ControlKind::ready:
    case ControlKind::attach_request:
    case ControlKind::worker_corrupt:
    case ControlKind::drained:
    case ControlKind::worker_recycle:
      return true;
  }
  return false;
}

bool write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

Result<UniqueFd> text_to_memfd(const std::string& text) {
  UniqueFd fd(::memfd_create("sluice-control-text", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return system_error("memfd_create");
  if (!write_all(fd.get(), text)) return system_error("writing a control text");
  if (::fcntl(fd.get(), F_ADD_SEALS, kTextSeals) != 0)
    return system_error("sealing a control text");
  return fd;
}

Result<std::string> text_from_memfd(const UniqueFd& fd, std::size_t bytes) {
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return system_error("fstat of a control text");
  if (!S_ISREG(facts.st_mode) || static_cast<std::size_t>(facts.st_size) != bytes)
    return corrupt("text size");
  std::string text(bytes, '\0');
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got =
        ::pread(fd.get(), text.data() + done, bytes - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return corrupt("text unreadable");
    done += static_cast<std::size_t>(got);
  }
  return text;
}

WireHead make_head(const ControlMessage& message) {
  WireHead head{};
  head.kind = static_cast<std::uint32_t>(message.kind);
  head.worker = message.worker.value;
  head.epoch = message.epoch.value;
  head.gateway_epoch = message.gateway_epoch.value;
  head.value = message.value;
  head.reason = static_cast<std::uint32_t>(message.reason);
  head.facts = message.facts;
  head.text_bytes = static_cast<std::uint32_t>(message.text.size());
  head.num_fds = static_cast<std::uint32_t>(message.fds.size());
  return head;
}

// Descriptors are owned from the first moment, whatever else is wrong with the message.
void take_fds(const msghdr& header, std::vector<UniqueFd>& fds) {
  for (const cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr;
       c = CMSG_NXTHDR(const_cast<msghdr*>(&header), const_cast<cmsghdr*>(c))) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
}

Result<void> decode(std::span<const char> bytes, std::vector<UniqueFd> fds,
                    ControlMessage& message) {
  if (bytes.size() < sizeof(WireHead)) return corrupt("shorter than its head");
  WireHead head;
  std::memcpy(&head, bytes.data(), sizeof head);
  bytes = bytes.subspan(sizeof head);
  if (!known_kind(head.kind)) return corrupt("unknown kind");
  if (head.worker >= kWorkersMax) return corrupt("worker out of range");
  if (head.reason > static_cast<std::uint32_t>(DownReason::recycled))
    return corrupt("unknown reason");
  if (head.text_bytes > kControlTextMax) return corrupt("text too long");
  const bool text_in_fd = head.text_bytes > kControlTextInlineMax;
  if (head.num_fds > kControlFdsMax || fds.size() != head.num_fds + (text_in_fd ? 1u : 0u))
    return corrupt("number of descriptors");
  if (bytes.size() != (text_in_fd ? 0 : head.text_bytes)) return corrupt("text size");
  std::string text(bytes.begin(), bytes.end());
  if (text_in_fd) {
    auto read = text_from_memfd(fds.back(), head.text_bytes);
    if (!read) return read.error();
    text = std::move(*read);
    fds.pop_back();
  }
  message.kind = static_cast<ControlKind>(head.kind);
  message.worker = WorkerId(head.worker);
  message.epoch = Epoch(head.epoch);
  message.gateway_epoch = Epoch(head.gateway_epoch);
  message.value = head.value;
  message.reason = static_cast<DownReason>(head.reason);
  message.facts = head.facts;
  message.text = std::move(text);
  message.fds = std::move(fds);
  return {};
}

}  // namespace

Result<std::pair<UniqueFd, UniqueFd>> ControlChannel::make_pair() {
  int ends[2] = {-1, -1};
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0)
    return system_error("socketpair");
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<void> ControlChannel::send(const ControlMessage& message) {
  CHECK(message.fds.size() <= kControlFdsMax);
  if (message.text.size() > kControlTextMax)
    return make_error(Errc::over_capacity,
                      "control text is longer than " + std::to_string(kControlTextMax) + " bytes");
  WireHead head = make_head(message);
  std::array<int, kFdsOnWireMax> fds{};
  std::size_t num_fds = 0;
  for (const UniqueFd& fd : message.fds) fds[num_fds++] = fd.get();
  UniqueFd text_fd;
  std::string_view text = message.text;
  if (text.size() > kControlTextInlineMax) {
    auto made = text_to_memfd(message.text);
    if (!made) return made.error();
    text_fd = std::move(*made);
    fds[num_fds++] = text_fd.get();
    text = {};
  }
  iovec parts[2] = {{&head, sizeof head}, {const_cast<char*>(text.data()), text.size()}};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kFdsOnWireMax * sizeof(int))> control{};
  msghdr header{};
  header.msg_iov = parts;
  header.msg_iovlen = 2;
  if (num_fds > 0) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(num_fds * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(num_fds * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), num_fds * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = ::sendmsg(fd_.get(), &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return {};
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS)
    return make_error(Errc::over_capacity, "control channel is full: the peer does not read");
  if (errno == EPIPE || errno == ECONNRESET)
    return make_error(Errc::client_gone, "control channel: the peer closed its end");
  return system_error("sendmsg on a control channel");
}

Result<bool> ControlChannel::try_receive(ControlMessage& message) {
  std::array<char, sizeof(WireHead) + kControlTextInlineMax> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kFdsOnWireMax * sizeof(int))> control;
  iovec part{bytes.data(), bytes.size()};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  ssize_t got;
  do {
    got = ::recvmsg(fd_.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return false;
    if (errno == ECONNRESET)
      return make_error(Errc::client_gone, "control channel: the peer closed its end");
    return system_error("recvmsg on a control channel");
  }
  std::vector<UniqueFd> fds;
  take_fds(header, fds);
  if (got == 0) return make_error(Errc::client_gone, "control channel: the peer closed its end");
  if ((header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) return corrupt("too long");
  if (const auto decoded =
          decode({bytes.data(), static_cast<std::size_t>(got)}, std::move(fds), message);
      !decoded)
    return decoded.error();
  return true;
}

}  // namespace sluice
