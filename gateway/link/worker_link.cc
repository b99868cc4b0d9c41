// WorkerLink: copy, validate, use.
#include "gateway/link/worker_link.h"

#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "shared/check.h"

namespace sluice::gw {

namespace {

bool are_sane(const WorkerFacts& facts) {
  return facts.vocab_size > 0 && facts.vocab_size <= kVocabularyMax && facts.context_tokens > 0 &&
         facts.context_tokens <= kContextTokensMax && facts.block_tokens > 0 &&
         facts.block_tokens <= 4096 && facts.num_blocks > 0 && facts.num_blocks <= (1u << 28) &&
         facts.sequences_max > 0 && facts.sequences_max <= kBatchSequencesMax &&
         facts.step_tokens_max > 0 && facts.step_tokens_max <= kContextTokensMax &&
         facts.embedding_size <= kEmbeddingSizeMax && facts.continuity <= Continuity::tokens;
}

// The former gateway's epoch stands in its region's header; attach() then checks all of it.
Result<Epoch> former_epoch(const UniqueFd& fd) {
  std::uint64_t value = 0;
  const auto offset = static_cast<off_t>(offsetof(shm::RegionHeader, gateway_epoch));
  if (::pread(fd.get(), &value, sizeof value, offset) != static_cast<ssize_t>(sizeof value)) {
    return make_error(Errc::corrupt_region, "the former submit region has no header");
  }
  return Epoch{value};
}

}  // namespace

struct WorkerLink::Ends {
  shm::Region submit, step;
  UniqueFd worker_bell, gateway_bell;
  std::uint64_t read_from = 0;
  EpochOrigin origin = EpochOrigin::fresh;
};

Result<std::unique_ptr<WorkerLink>> WorkerLink::open(ControlMessage& up, Epoch gateway_epoch,
                                                     std::size_t ring_bytes) {
  if (up.fds.size() != 3 && up.fds.size() != 4) {
    return make_error(Errc::corrupt_record, "worker_up carries three or four descriptors");
  }
  if (!are_sane(up.facts)) {
    return make_error(Errc::corrupt_record, "the worker's facts are out of range");
  }
  Ends ends;
  auto step = shm::Region::attach(std::move(up.fds[0]),
                                  {shm::RegionKind::step, up.worker, up.epoch, Epoch{0}});
  if (!step) return step.error();
  ends.step = std::move(*step);
  ends.worker_bell = std::move(up.fds[1]);
  ends.gateway_bell = std::move(up.fds[2]);
  if (up.fds.size() == 4) {
    const auto epoch = former_epoch(up.fds[3]);
    if (!epoch) return epoch.error();
    const auto former = shm::Region::attach(std::move(up.fds[3]),
                                            {shm::RegionKind::submit, up.worker, up.epoch, *epoch});
    if (!former) return former.error();
    ends.read_from = former->header().read_position.load(std::memory_order_acquire);
    ends.origin = EpochOrigin::former_gateway;
  }
  auto submit = shm::Region::create({shm::RegionKind::submit, up.worker, up.epoch, gateway_epoch},
                                    ring_bytes);
  if (!submit) return submit.error();
  ends.submit = std::move(*submit);
  return std::unique_ptr<WorkerLink>(new WorkerLink(up, std::move(ends)));
}

WorkerLink::WorkerLink(const ControlMessage& up, Ends ends)
    : worker_(up.worker),
      epoch_(up.epoch),
      origin_(ends.origin),
      facts_(up.facts),
      worker_bell_(std::move(ends.worker_bell)),
      gateway_bell_(std::move(ends.gateway_bell)),
      submit_(std::move(ends.submit)),
      step_region_(std::move(ends.step)),
      reader_(submit_, step_region_, ends.read_from),
      writer_(submit_, step_region_),
      ringer_(worker_bell_.get(), submit_, step_region_) {}

LinkRead WorkerLink::corrupt(std::string reason) {
  is_corrupt_ = true;
  fault_ = std::move(reason);
  return LinkRead::corrupt;
}

LinkRead WorkerLink::read() {
  if (is_corrupt_) return LinkRead::empty;
  const shm::ReadOutcome outcome = reader_.read();
  if (outcome.status == shm::ReadStatus::empty) return LinkRead::empty;
  if (outcome.status == shm::ReadStatus::corrupt) return corrupt("the step ring is corrupt");
  if (outcome.type == RecordType::step) {
    auto step = parse_step(outcome.payload);
    if (!step) return corrupt(std::move(step.error().detail));
    step_ = *step;
    if (step_.head.num_sequences > 0) {
      const std::uint64_t ns = std::min(step_.head.duration_ns, kStepNsMax);
      last_step_ = std::chrono::nanoseconds(static_cast<std::int64_t>(ns));
    }
    return LinkRead::step;
  }
  if (outcome.type == RecordType::reject) {
    auto reject = parse_reject(outcome.payload);
    if (!reject) return corrupt(std::move(reject.error().detail));
    reject_ = *reject;
    return LinkRead::reject;
  }
  return corrupt("a record of this type does not belong on a step ring");
}

WorkerLink::Written WorkerLink::write_submit(const Submission& submission,
                                             std::span<const std::uint64_t, 2> salt) {
  SubmitRecord head = submission.head;
  head.salt[0] = salt[0];
  head.salt[1] = salt[1];
  const std::size_t bytes = submit_bytes(head);
  if (bytes > writer_.payload_bytes_max()) return Written::too_large;
  // A cancel that waits was decided earlier; it is about another sequence, but order stays simple.
  if (!flush()) return Written::no_room;
  const std::span<std::byte> space = writer_.try_claim(RecordType::submit, bytes);
  if (space.data() == nullptr) return Written::no_room;
  sluice::write_submit(space, head, submission.prompt, submission.output, submission.stop_ids,
                       submission.bias);
  writer_.commit(bytes);
  done_ = done_ | shm::WakeFor::records;
  return Written::yes;
}

bool WorkerLink::try_write_cancel(SequenceId sequence) {
  const CancelRecord record{sequence.value};
  if (!writer_.try_write(RecordType::cancel, std::as_bytes(std::span(&record, 1)))) return false;
  done_ = done_ | shm::WakeFor::records;
  return true;
}

void WorkerLink::write_cancel(SequenceId sequence) {
  if (!flush() || !try_write_cancel(sequence)) cancels_.push_back(sequence);
}

bool WorkerLink::flush() {
  std::size_t written = 0;
  while (written < cancels_.size() && try_write_cancel(cancels_[written])) ++written;
  cancels_.erase(cancels_.begin(), cancels_.begin() + static_cast<std::ptrdiff_t>(written));
  if (writer_.is_corrupt() && !is_corrupt_) corrupt("the worker's read position is impossible");
  return cancels_.empty();
}

std::vector<SequenceId> WorkerLink::suspects() const {
  std::vector<SequenceId> ids;
  const std::optional<shm::Progress> page = shm::read_progress(step_region_);
  if (!page || page->phase != static_cast<std::uint32_t>(shm::WorkerPhase::forward)) return ids;
  const std::size_t count = std::min<std::size_t>(page->num_suspects, kBatchSequencesMax);
  for (std::size_t i = 0; i < count; ++i) ids.emplace_back(page->suspects[i]);
  return ids;
}

}  // namespace sluice::gw
