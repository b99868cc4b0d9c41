// A hostile or broken peer: its ring bytes and positions are the input. The reader may say corrupt,
// but reads nothing outside the ring, ends, and what parses obeys the records' bounds.
//
// Input: one byte of mode, then
//   even  raw: u16 write position / 16, u16 start / 16, then the ring's first bytes
//   odd   a list of records (type, size, payload) written properly, so that the parsers behind the
//         checksum are reached; the last byte may damage one byte of the ring
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "shared/byte_ring.h"
#include "shared/check.h"
#include "tests/support/region_pair.h"

namespace sluice::shm {
namespace {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : left_(data, size) {}
  bool empty() const { return left_.empty(); }
  std::uint8_t byte() {
    if (left_.empty()) return 0;
    const std::uint8_t value = left_.front();
    left_ = left_.subspan(1);
    return value;
  }
  std::uint64_t u16() {
    const std::uint64_t low = byte();
    return low | (std::uint64_t{byte()} << 8);
  }
  std::span<const std::uint8_t> take(std::size_t count) {
    const auto part = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(part.size());
    return part;
  }

 private:
  std::span<const std::uint8_t> left_;
};

void parse(RecordType type, std::span<const std::byte> payload) {
  switch (type) {
    case RecordType::submit: {
      const auto view = parse_submit(payload);
      if (!view) return;
      CHECK(!view->prompt.empty() &&
            view->prompt.size() + view->output.size() <= kContextTokensMax);
      CHECK(view->head.output_ids_max > view->output.size() || view->output.empty());
      CHECK(view->head.prompt_logprobs_from < view->prompt.size());
      CHECK(view->head.sampling.num_top_logprobs <= kTopLogprobsMax);
      CHECK(view->stop_ids.size() <= kStopIdsMax && view->bias.size() <= kLogitBiasMax);
      // A parsed submission is written back as the same bytes.
      std::vector<std::byte> again(submit_bytes(view->head));
      write_submit(again, view->head, view->prompt, view->output, view->stop_ids, view->bias);
      CHECK(again.size() == payload.size() &&
            std::memcmp(again.data(), payload.data(), again.size()) == 0);
      return;
    }
    case RecordType::step: {
      const auto view = parse_step(payload);
      if (!view) return;
      std::size_t num_top = 0;
      std::size_t num_values = 0;
      for (const StepEntry& entry : view->entries) {
        CHECK(entry.sequence != 0 && entry.token < kVocabularyMax);
        num_top += entry.num_top;
        num_values += entry.num_values;
      }
      CHECK(num_top == view->top.size() && num_values == view->values.size());
      std::vector<std::byte> again(step_bytes(view->head));
      write_step(again, *view);
      CHECK(again.size() == payload.size() &&
            std::memcmp(again.data(), payload.data(), again.size()) == 0);
      return;
    }
    case RecordType::cancel: {
      const auto record = parse_cancel(payload);
      CHECK(!record || record->sequence != 0);
      return;
    }
    case RecordType::reject: {
      const auto record = parse_reject(payload);
      CHECK(!record || record->errc < kErrcCount);
      return;
    }
    case RecordType::padding:
    case RecordType::drain:
      return;
  }
}

// Every record takes at least 16 bytes, so the reader ends within ring / 16 of them.
void read_all(test::RegionPair& pair, std::uint64_t start) {
  RingReader reader(pair.submit, pair.step_peer, start);
  for (std::size_t i = 0; i <= kRingBytesMin / kRecordAlignment; ++i) {
    const ReadOutcome outcome = reader.read();
    if (outcome.status != ReadStatus::record) {
      CHECK(outcome.status == reader.read().status);
      return;
    }
    parse(outcome.type, outcome.payload);
    reader.release();
  }
  CHECK(false);
}

void fuzz_raw(test::RegionPair& pair, Input& input) {
  const std::uint64_t write_position = input.u16() * 16;
  const std::uint64_t start = input.u16() * 16;
  const auto bytes = input.take(kRingBytesMin);
  if (!bytes.empty()) std::memcpy(pair.step.own_ring().data(), bytes.data(), bytes.size());
  pair.step.own_header().write_position.store(write_position);
  read_all(pair, start);
}

void fuzz_records(test::RegionPair& pair, Input& input) {
  const std::uint64_t start = input.u16() * 16;
  pair.step.own_header().write_position.store(start);
  {
    RingReader reader(pair.submit, pair.step_peer, start);  // says where the reader stands
    RingWriter writer(pair.step, pair.submit_peer);
    while (!input.empty()) {
      const auto type = static_cast<RecordType>(1 + input.byte() % 20);
      const auto payload = input.take(input.u16() % 2048);
      if (!writer.try_write(type, std::as_bytes(payload))) break;
    }
  }
  if (const std::uint8_t damage = input.byte(); damage != 0)
    pair.step.own_ring()[damage] ^= std::byte{1};
  read_all(pair, start);
}

}  // namespace
}  // namespace sluice::shm

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace sluice;
  static test::RegionPair pair(kRingBytesMin);
  shm::Input input(data, size);
  if (input.byte() % 2 == 0)
    shm::fuzz_raw(pair, input);
  else
    shm::fuzz_records(pair, input);
  // Payloads of any alignment of counts, past the ring: straight into the parsers.
  const std::vector<std::byte> copy(reinterpret_cast<const std::byte*>(data),
                                    reinterpret_cast<const std::byte*>(data) + size);
  for (const RecordType type :
       {RecordType::submit, RecordType::step, RecordType::cancel, RecordType::reject})
    shm::parse(type, copy);
  return 0;
}
