// The control channel: every field and descriptor arrives, long texts too; malformed messages are
// refused and leak no descriptor.
#include "shared/control.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <random>

#include "shared/doorbell.h"
#include "tests/support/seed.h"

namespace sluice {
namespace {

constexpr std::size_t kHeadBytes = 104;

struct Channels {
  ControlChannel a, b;
  Channels() {
    auto ends = *ControlChannel::make_pair();
    a = ControlChannel(std::move(ends.first));
    b = ControlChannel(std::move(ends.second));
  }
};

int num_open_fds() {
  DIR* const dir = ::opendir("/proc/self/fd");
  int count = 0;
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

ino_t inode(const UniqueFd& fd) {
  struct stat facts {};
  EXPECT_EQ(::fstat(fd.get(), &facts), 0);
  return facts.st_ino;
}

TEST(Control, EveryFieldAndDescriptorArrives) {
  Channels channels;
  ControlMessage sent;
  sent.kind = ControlKind::worker_up;
  sent.worker = WorkerId(5);
  sent.epoch = Epoch(6);
  sent.gateway_epoch = Epoch(7);
  sent.value = 8;
  sent.reason = DownReason::stalled;
  sent.facts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  sent.text = "model: canned\n";
  for (std::size_t i = 0; i < kControlFdsMax; ++i)
    sent.fds.emplace_back(::memfd_create("control-test", MFD_CLOEXEC));
  ASSERT_TRUE(channels.a.send(sent));
  ControlMessage got;
  ASSERT_TRUE(*channels.b.try_receive(got));
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(got.worker, sent.worker);
  EXPECT_EQ(got.epoch, sent.epoch);
  EXPECT_EQ(got.gateway_epoch, sent.gateway_epoch);
  EXPECT_EQ(got.value, 8u);
  EXPECT_EQ(got.reason, sent.reason);
  EXPECT_EQ(std::memcmp(&got.facts, &sent.facts, sizeof got.facts), 0);
  EXPECT_EQ(got.text, sent.text);
  ASSERT_EQ(got.fds.size(), kControlFdsMax);
  for (std::size_t i = 0; i < kControlFdsMax; ++i) {
    EXPECT_EQ(inode(got.fds[i]), inode(sent.fds[i]));
    EXPECT_NE(::fcntl(got.fds[i].get(), F_GETFD) & FD_CLOEXEC, 0);
  }
  EXPECT_FALSE(*channels.b.try_receive(got)) << "no second message";
}

TEST(Control, TextsOfEveryLengthArriveAndTooLongOnesAreRefused) {
  Channels channels;
  for (const std::size_t size : {std::size_t{0}, std::size_t{1}, kControlTextInlineMax,
                                 kControlTextInlineMax + 1, kControlTextMax}) {
    ControlMessage sent;
    sent.kind = ControlKind::reload;
    sent.text.assign(size, 'x');
    sent.fds.push_back(*shm::make_doorbell());
    ASSERT_TRUE(channels.a.send(sent)) << size;
    ControlMessage got;
    ASSERT_TRUE(*channels.b.try_receive(got));
    EXPECT_EQ(got.text, sent.text);
    EXPECT_EQ(got.fds.size(), 1u);
  }
  ControlMessage sent;
  sent.kind = ControlKind::reload;
  sent.text.assign(kControlTextMax + 1, 'x');
  EXPECT_EQ(channels.a.send(sent).error().code, Errc::over_capacity);
}

TEST(Control, AClosedPeerAndAFullChannelAreTold) {
  Channels channels;
  ControlMessage message;
  message.kind = ControlKind::drain;
  Result<void> sent = channels.a.send(message);
  for (int i = 0; i < 100'000 && sent; ++i) sent = channels.a.send(message);
  EXPECT_EQ(sent.error().code, Errc::over_capacity);
  channels.b = ControlChannel();
  EXPECT_EQ(channels.a.send(message).error().code, Errc::client_gone);
  EXPECT_EQ(channels.a.try_receive(message).error().code, Errc::client_gone);
}

// Sends raw bytes and descriptors past the encoder.
void send_raw(int socket, std::span<const char> bytes, std::size_t num_fds) {
  iovec part{const_cast<char*>(bytes.data()), bytes.size()};
  std::array<int, 16> fds{};
  fds.fill(socket);
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof fds)> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (num_fds > 0) {
    header.msg_control = control.data();
    header.msg_controllen = CMSG_SPACE(num_fds * sizeof(int));
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(num_fds * sizeof(int));
    std::memcpy(CMSG_DATA(rights), fds.data(), num_fds * sizeof(int));
  }
  ASSERT_GE(::sendmsg(socket, &header, MSG_NOSIGNAL), 0);
}

void put_u32(std::vector<char>& bytes, std::size_t offset, std::uint32_t value) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

std::vector<char> drain_message() {
  std::vector<char> bytes(kHeadBytes, 0);
  put_u32(bytes, 0, static_cast<std::uint32_t>(ControlKind::drain));
  return bytes;
}

TEST(Control, MalformedMessagesAreRefusedAndLeakNoDescriptor) {
  Channels channels;
  ControlMessage got;
  const auto refused = [&](const std::vector<char>& bytes, std::size_t num_fds) {
    const int before = num_open_fds();
    send_raw(channels.a.fd(), bytes, num_fds);
    const auto received = channels.b.try_receive(got);
    EXPECT_FALSE(received);
    EXPECT_TRUE(received.has_error() && received.error().code == Errc::corrupt_record);
    EXPECT_EQ(num_open_fds(), before);
  };
  const auto with = [](std::size_t offset, std::uint32_t value) {
    auto bytes = drain_message();
    put_u32(bytes, offset, value);
    return bytes;
  };
  send_raw(channels.a.fd(), drain_message(), 0);
  ASSERT_TRUE(*channels.b.try_receive(got));
  refused({'x'}, 0);
  refused(std::vector<char>(kHeadBytes - 1, 0), 2);
  refused(with(0, 0), 0);
  refused(with(0, 4), 1);
  refused(with(4, 1u << 20), 0);     // worker
  refused(with(28, 6), 0);           // reason
  refused(with(96, 1), 0);           // text announced, not sent
  refused(with(96, 0xffffffff), 0);  // text too long
  refused(with(96, 100'000), 1);     // text in a descriptor that is a socket
  refused(with(100, 1), 0);          // descriptor announced, not sent
  refused(with(100, 0), 1);          // sent, not announced
  refused(with(100, 16), 16);        // more than fit
  refused(std::vector<char>(200'000, 0), 0);
}

TEST(Control, RandomMessagesNeverHarmTheReceiver) {
  const std::uint64_t seed = test::test_seed(17);
  SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  Channels channels;
  ControlMessage got;
  const int before = num_open_fds();
  for (int round = 0; round < 5000; ++round) {
    auto bytes = drain_message();
    for (std::uint64_t n = test::uniform(rng, 0, 6); n > 0; --n)
      bytes[test::uniform(rng, 0, bytes.size() - 1)] = static_cast<char>(rng());
    bytes.resize(test::uniform(rng, 1, 200));
    send_raw(channels.a.fd(), bytes, test::uniform(rng, 0, 6));
    [[maybe_unused]] const auto received = channels.b.try_receive(got);
    got.fds.clear();
  }
  EXPECT_EQ(num_open_fds(), before);
}

}  // namespace
}  // namespace sluice
