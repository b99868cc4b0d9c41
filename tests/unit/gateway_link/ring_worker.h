// RingWorker: the worker's end of two real rings, extending sequences by a hash of all ids so far
// (next_token of the core's harness). Stands where a process would.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <vector>

#include "shared/byte_ring.h"
#include "shared/control.h"
#include "shared/doorbell.h"
#include "shared/progress_page.h"
#include "tests/support/region_pair.h"
#include "tests/unit/gateway_core/core_harness.h"

namespace sluice::gw {

class RingWorker {
 public:
  RingWorker(WorkerId worker, Epoch at, std::size_t ring_bytes)
      : id(worker), epoch(at), bell(*shm::make_doorbell()), gateway_bell(*shm::make_doorbell()) {
    step = *shm::Region::create({shm::RegionKind::step, id, epoch, Epoch{0}}, ring_bytes);
  }

  ControlMessage up() const {
    ControlMessage message;
    message.kind = ControlKind::worker_up;
    message.worker = id;
    message.epoch = epoch;
    message.facts = test_facts();
    message.fds.push_back(test::duplicate(step.fd()));
    message.fds.push_back(test::duplicate(bell));
    message.fds.push_back(test::duplicate(gateway_bell));
    if (submit) message.fds.push_back(test::duplicate(submit->fd()));
    return message;
  }

  void attach(ControlMessage& request) {
    sequences.clear();
    reader.reset();
    writer.reset();
    submit = *shm::Region::attach(std::move(request.fds.at(0)),
                                  {shm::RegionKind::submit, id, epoch, request.gateway_epoch});
    reader.emplace(step, *submit, 0);
    writer.emplace(step, *submit);
    ringer.emplace(gateway_bell.get(), step, *submit);
  }

  // Reads what was submitted, computes one token for each sequence, publishes. True: it did
  // something.
  bool turn() {
    if (!reader) return false;
    bool has_read = false;
    for (;;) {
      const shm::ReadOutcome record = reader->read();
      if (record.status != shm::ReadStatus::record) {
        EXPECT_EQ(record.status, shm::ReadStatus::empty);
        break;
      }
      has_read = true;
      if (record.type == RecordType::submit) {
        const auto view = parse_submit(record.payload);
        EXPECT_TRUE(view);
        sequences.push_back({view->head,
                             {view->prompt.begin(), view->prompt.end()},
                             {view->output.begin(), view->output.end()},
                             false});
        salts.push_back(view->head.salt[0]);
      } else {
        const auto cancel = parse_cancel(record.payload);
        EXPECT_TRUE(cancel);
        for (Running& sequence : sequences) {
          if (sequence.head.sequence == cancel->sequence) sequence.is_cancelled = true;
        }
      }
    }
    if (has_read) reader->release();
    if (sequences.empty() && !has_read) return false;
    publish();
    return true;
  }

  void publish() {
    std::vector<StepEntry> entries;
    for (auto it = sequences.begin(); it != sequences.end();) {
      StepEntry entry{};
      entry.sequence = it->head.sequence;
      entry.kind = EntryKind::token;
      if (it->is_cancelled) {
        entry.kind = EntryKind::finished;
        entry.finish = FinishReason::cancelled;
      } else {
        entry.position = static_cast<std::uint32_t>(it->output.size());
        entry.token = next_token(it->prompt, it->output, it->head.sampling.seed, it->head.choice);
        it->output.push_back(entry.token);
        ++generated;
        if (it->output.size() == it->head.output_ids_max) entry.finish = FinishReason::length;
      }
      entries.push_back(entry);
      it = entry.finish == FinishReason::none ? it + 1 : sequences.erase(it);
    }
    StepRecord head{};
    head.step = ++steps;
    head.duration_ns = 1000;
    head.generated_total = generated;
    head.submit_position = reader->position();
    head.credit_tokens = 100'000;
    head.credit_blocks = 1024;
    head.credit_sequences = 64;
    head.num_running = static_cast<std::uint32_t>(sequences.size());
    head.num_blocks_free = 1000;
    head.num_decode_tokens = static_cast<std::uint32_t>(entries.size());
    head.num_entries = static_cast<std::uint32_t>(entries.size());
    const std::size_t bytes = sizeof head + entries.size() * sizeof(StepEntry);
    const std::span<std::byte> space = writer->try_claim(RecordType::step, bytes);
    ASSERT_NE(space.data(), nullptr);
    std::memcpy(space.data(), &head, sizeof head);
    if (!entries.empty()) {
      std::memcpy(space.data() + sizeof head, entries.data(), entries.size() * sizeof(StepEntry));
    }
    writer->commit(bytes);
    ringer->ring_if_sleeping(shm::WakeFor::records);
  }

  struct Running {
    SubmitRecord head;
    std::vector<TokenId> prompt, output;
    bool is_cancelled;
  };
  WorkerId id;
  Epoch epoch;
  UniqueFd bell, gateway_bell;
  shm::Region step;
  std::optional<shm::Region> submit;
  std::optional<shm::RingReader> reader;
  std::optional<shm::RingWriter> writer;
  std::optional<shm::DoorbellRinger> ringer;
  std::vector<Running> sequences;
  std::vector<std::uint64_t> salts;  // of every submission
  std::uint64_t steps = 0, generated = 0;
};

}  // namespace sluice::gw
