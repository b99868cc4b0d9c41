// The ring against a deque: random sizes, aborted and shortened claims, full and empty, wraps, the
// reader's releases in batches, and a change of gateways in the middle.
#include <gtest/gtest.h>

#include <cstring>
#include <deque>
#include <memory>
#include <random>
#include <vector>

#include "shared/byte_ring.h"
#include "tests/support/region_pair.h"
#include "tests/support/seed.h"

namespace sluice::shm {
namespace {

using test::RegionPair;
using test::uniform;

struct Expected {
  RecordType type;
  std::vector<std::byte> payload;
};

class RingModel {
 public:
  explicit RingModel(std::uint64_t seed)
      : rng_(seed),
        pair_(kRingBytesMin),
        reader_(std::make_unique<RingReader>(pair_.submit, pair_.step_peer, 0)),
        writer_(std::make_unique<RingWriter>(pair_.step, pair_.submit_peer)) {}

  void turn() {
    switch (uniform(rng_, 0, 9)) {
      case 0:
      case 1:
      case 2:
      case 3:
        write();
        break;
      case 4:
        abort_claim();
        break;
      case 5:
        reader_->release();
        break;
      case 6:
        if (uniform(rng_, 0, 20) == 0) change_gateway();
        break;
      default:
        read();
        break;
    }
    ASSERT_FALSE(writer_->is_corrupt());
  }
  std::uint64_t position() const { return writer_->position(); }
  std::size_t num_full() const { return num_full_; }

 private:
  std::size_t random_size() {
    switch (uniform(rng_, 0, 19)) {
      case 0:
        return writer_->payload_bytes_max();
      case 1:
        return uniform(rng_, 0, writer_->payload_bytes_max());
      case 2:
        return 0;
      default:
        return uniform(rng_, 0, 3000);
    }
  }

  void write() {
    const std::size_t claimed = random_size();
    const auto type = static_cast<RecordType>(uniform(rng_, 1, 40));
    const std::span<std::byte> space = writer_->try_claim(type, claimed);
    if (space.data() == nullptr) {
      ++num_full_;
      ASSERT_TRUE(!expected_.empty() || unreleased_) << "an empty ring took no record";
      return;
    }
    ASSERT_EQ(space.size(), claimed);
    for (std::byte& b : space) b = static_cast<std::byte>(rng_());
    const std::size_t kept = uniform(rng_, 0, 3) == 0 ? uniform(rng_, 0, claimed) : claimed;
    expected_.push_back({type, {space.begin(), space.begin() + static_cast<std::ptrdiff_t>(kept)}});
    writer_->commit(kept);
  }

  void abort_claim() {
    if (writer_->try_claim(RecordType::step, random_size()).data() != nullptr)
      writer_->abort_claim();
  }

  void read() {
    ASSERT_EQ(reader_->is_empty(), expected_.empty());
    const ReadOutcome outcome = reader_->read();
    if (expected_.empty()) {
      ASSERT_EQ(outcome.status, ReadStatus::empty);
      reader_->release();
      unreleased_ = false;
      return;
    }
    ASSERT_EQ(outcome.status, ReadStatus::record);
    ASSERT_EQ(outcome.type, expected_.front().type);
    const auto& payload = expected_.front().payload;
    ASSERT_EQ(outcome.payload.size(), payload.size());
    ASSERT_TRUE(std::equal(payload.begin(), payload.end(), outcome.payload.begin()));
    expected_.pop_front();
    unreleased_ = true;
  }

  // A new gateway: its region starts where the former one's reader stands, the worker's writer goes
  // on in the same ring.
  void change_gateway() {
    ++gateway_epoch_;
    pair_.submit_id.gateway_epoch = Epoch(gateway_epoch_);
    Region submit = *Region::create(pair_.submit_id, kRingBytesMin);
    const std::uint64_t start = reader_->position();
    reader_ = std::make_unique<RingReader>(submit, pair_.step_peer, start);
    pair_.submit_peer = *Region::attach(test::duplicate(submit.fd()), pair_.submit_id);
    pair_.submit = std::move(submit);
    reader_ = std::make_unique<RingReader>(pair_.submit, pair_.step_peer, start);
    writer_ = std::make_unique<RingWriter>(pair_.step, pair_.submit_peer);
    unreleased_ = false;
  }

  std::mt19937_64 rng_;
  RegionPair pair_;
  std::unique_ptr<RingReader> reader_;
  std::unique_ptr<RingWriter> writer_;
  std::deque<Expected> expected_;
  std::uint64_t gateway_epoch_ = 1;
  std::size_t num_full_ = 0;
  bool unreleased_ = false;
};

TEST(ByteRingProperty, BehavesAsADequeThroughWrapsAndGatewayChanges) {
  const std::uint64_t base = test::test_seed(1);
  for (std::uint64_t seed = base; seed < base + 20; ++seed) {
    SCOPED_TRACE("TEST_SEED=" + std::to_string(seed));
    RingModel model(seed);
    for (int i = 0; i < 3000; ++i) {
      model.turn();
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_GT(model.position(), 10 * kRingBytesMin) << "the test hardly wraps";
    EXPECT_GT(model.num_full(), 10u) << "the test hardly fills the ring";
  }
}

}  // namespace
}  // namespace sluice::shm
