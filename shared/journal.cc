// The journal's two sides: the parent's file creation and the gateway's stores.
//
// A process that is killed has executed a prefix of its stores, and the kernel keeps them. So each
// order of stores here is an order of release stores (the compiler may not swap them), and every
// prefix of it must be a state that open() understands; journal_kill_test.cc tries each one.
#include "shared/journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <limits>
#include <new>
#include <string>
#include <thread>

#include "shared/check.h"
#include "shared/limits.h"

namespace sluice {
namespace {

constexpr std::uint32_t kSlotsMax = 1u << 21;
constexpr int kLockTries = 500;  // 5 s

std::size_t file_bytes(std::uint32_t num_slots) {
  return kJournalHeaderBytes + std::size_t{num_slots} * sizeof(JournalSlot);
}

Error file_error(const std::string& path, const std::string& why) {
  return make_error(Errc::bad_file, "journal " + path + ": " + why);
}

// Plain words that another process reads after a kill: stored in program order.
template <class T>
void store_release(T& word, T value) {
  std::atomic_ref<T>(word).store(value, std::memory_order_release);
}

void store_totals(JournalTotals& target, const JournalTotals& totals) {
  store_release(target.requests, totals.requests);
  store_release(target.prompt, totals.prompt);
  store_release(target.accepted, totals.accepted);
}

JournalTotals plus_slot(JournalTotals totals, const JournalSlot& slot) {
  totals.requests += slot.choice == 0 ? 1 : 0;
  totals.prompt += slot.prompt_tokens;
  totals.accepted += slot.accepted.load(std::memory_order_relaxed);
  return totals;
}

bool is_live(const JournalSlot& slot) {
  return slot.state.load(std::memory_order_acquire) == static_cast<std::uint32_t>(SlotState::live);
}

// The kernel's random id of this boot; zeros where /proc is absent, which compares as no power
// loss.
std::array<std::uint8_t, 16> read_boot_id() {
  std::array<std::uint8_t, 16> id{};
  const UniqueFd fd(::open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC));
  char text[37] = {};
  if (!fd || ::read(fd.get(), text, 36) != 36) return id;
  std::size_t digits = 0;
  for (const char c : text) {
    if (c == '-' || c == '\0' || digits == 2 * id.size()) continue;
    const auto digit = static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10);
    id[digits / 2] = static_cast<std::uint8_t>((unsigned{id[digits / 2]} << 4) | (digit & 0xf));
    ++digits;
  }
  return id;
}

// What a file says at its start. Version 0: never finished, or empty.
struct FileFacts {
  std::uint64_t magic = 0;
  std::uint32_t version = 0;
  std::uint32_t num_slots = 0;
};

FileFacts read_facts(int fd) {
  FileFacts facts;
  JournalHeader header{};
  if (::pread(fd, static_cast<void*>(&header), sizeof header, 0) != sizeof header) return facts;
  facts.magic = header.magic;
  facts.version = header.version;
  facts.num_slots = header.num_slots;
  return facts;
}

bool write_at(int fd, const void* data, std::size_t bytes, std::size_t offset) {
  return ::pwrite(fd, data, bytes, static_cast<off_t>(offset)) == static_cast<ssize_t>(bytes);
}

// A POSIX lock: of the process, so that it ends with the last thread of a gateway that is being
// killed. Nothing else in a gateway opens and closes this file, which would drop it.
Result<void> lock_file(int fd) {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  for (int tries = 0; ::fcntl(fd, F_SETLK, &lock) != 0; ++tries) {
    if (errno != EACCES && errno != EAGAIN) return system_error("locking the journal");
    if (tries == kLockTries)
      return make_error(Errc::already_running, "another gateway still has the journal open");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return {};
}

}  // namespace

Result<UniqueFd> Journal::create_file(const char* path, std::uint32_t num_slots) {
  CHECK(num_slots > 0 && num_slots <= kSlotsMax);
  UniqueFd fd(::open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return system_error(std::string("opening journal ") + path);
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return system_error("fstat of the journal");
  if (!S_ISREG(facts.st_mode)) return file_error(path, "is not a regular file");
  const FileFacts found = read_facts(fd.get());
  if (found.magic != 0 && found.magic != kJournalMagic) return file_error(path, "is another file");
  // Version 1 had zeros where slots now name model, prices and cached tokens, version 2 where they
  // say what was held and worked: all else is as it was.
  const bool is_former = found.version == 1 || found.version == 2;
  if (found.version != 0 && !is_former && found.version != kJournalVersion)
    return file_error(path, "has version " + std::to_string(found.version) + ", this build reads " +
                                std::to_string(kJournalVersion));
  const bool fresh = found.version == 0;
  if (!fresh && (found.num_slots == 0 || found.num_slots > kSlotsMax))
    return file_error(path, "its number of slots is out of range");
  if (fresh && facts.st_size > 0 && ::ftruncate(fd.get(), 0) != 0)
    return system_error(std::string("emptying journal ") + path);
  // A journal never shrinks: slots above the new number may be live.
  const std::uint32_t slots = fresh ? num_slots : std::max(found.num_slots, num_slots);
  const int failed = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(file_bytes(slots)));
  if (failed != 0)
    return system_error(std::string("allocating ") + std::to_string(file_bytes(slots)) +
                            " bytes for journal " + path,
                        failed);
  bool written = true;
  if (fresh) {
    JournalHeader header{};
    header.magic = kJournalMagic;
    header.num_slots = slots;
    header.next_id = 1;
    written = write_at(fd.get(), static_cast<const void*>(&header), sizeof header, 0) &&
              write_at(fd.get(), &kJournalVersion, sizeof kJournalVersion,
                       offsetof(JournalHeader, version));
  } else if (slots != found.num_slots) {
    written = write_at(fd.get(), &slots, sizeof slots, offsetof(JournalHeader, num_slots));
  }
  if (written && is_former)
    written = write_at(fd.get(), &kJournalVersion, sizeof kJournalVersion,
                       offsetof(JournalHeader, version));
  if (!written) return system_error(std::string("writing journal ") + path);
  return fd;
}

JournalHeader& Journal::header() const {
  return *std::launder(reinterpret_cast<JournalHeader*>(base_));
}

JournalSlot& Journal::slot(std::uint32_t index) const {
  DCHECK(index < num_slots_);
  return *std::launder(reinterpret_cast<JournalSlot*>(base_ + kJournalHeaderBytes +
                                                      std::size_t{index} * sizeof(JournalSlot)));
}

// Repeats a set intent. Idempotent: the totals are absolute and a slot is not reused before the
// intent is cleared.
void Journal::finish_intent() {
  JournalHeader& head = header();
  if (head.intent_state.load(std::memory_order_acquire) == 0) return;
  store_totals(head.totals, head.intent_totals);
  slot(head.intent_slot)
      .state.store(static_cast<std::uint32_t>(SlotState::free), std::memory_order_release);
  head.intent_state.store(0, std::memory_order_release);
}

Result<void> Journal::check_file() const {
  const JournalHeader& head = header();
  const auto bad = [](const std::string& why) {
    return make_error(Errc::bad_file, "journal: " + why);
  };
  if (head.magic != kJournalMagic || head.version != kJournalVersion)
    return bad("magic or version does not match");
  if (head.num_slots == 0 || head.num_slots > kSlotsMax || file_bytes(head.num_slots) > bytes_)
    return bad("its number of slots does not fit the file");
  if (head.intent_state.load(std::memory_order_relaxed) > 1) return bad("unknown intent");
  if (head.intent_state.load(std::memory_order_relaxed) == 1 && head.intent_slot >= head.num_slots)
    return bad("intent names a slot out of range");
  if (head.next_id == 0 || head.next_id > std::numeric_limits<std::uint64_t>::max() / 2)
    return bad("next id is out of range");
  for (std::uint32_t i = 0; i < head.num_slots; ++i) {
    const JournalSlot& s = slot(i);
    if (s.state.load(std::memory_order_relaxed) > static_cast<std::uint32_t>(SlotState::live))
      return bad("slot " + std::to_string(i) + " has an unknown state");
    if (is_live(s) && (s.prompt_tokens > kContextTokensMax ||
                       s.accepted.load(std::memory_order_relaxed) > kContextTokensMax ||
                       s.cached.load(std::memory_order_relaxed) > kContextTokensMax))
      return bad("slot " + std::to_string(i) + " counts more tokens than a context holds");
  }
  return {};
}

Result<Journal> Journal::open_keeping(UniqueFd fd, std::vector<Recovered>& recovered) {
  struct stat facts {};
  if (::fstat(fd.get(), &facts) != 0) return system_error("fstat of the journal");
  if (facts.st_size < static_cast<off_t>(file_bytes(1)))
    return make_error(Errc::bad_file, "journal: the file is too short");
  Journal journal;
  journal.fd_ = std::move(fd);
  journal.bytes_ = static_cast<std::size_t>(facts.st_size);
  if (const auto locked = lock_file(journal.fd_.get()); !locked) return locked.error();
  void* const base =
      ::mmap(nullptr, journal.bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, journal.fd_.get(), 0);
  if (base == MAP_FAILED) return system_error("mmap of the journal");
  journal.base_ = static_cast<std::byte*>(base);
  JournalHeader& head = journal.header();
  journal.num_slots_ = head.num_slots;
  if (const auto checked = journal.check_file(); !checked) return checked.error();

  const auto boot_id = read_boot_id();
  journal.is_power_lost_ = std::memcmp(boot_id.data(), head.boot_id, sizeof head.boot_id) != 0;
  store_release(head.next_id, head.next_id + (journal.is_power_lost_ ? kJournalIdsSkipped : 0));
  store_release(head.gateway_epoch, head.gateway_epoch + 1);
  journal.next_id_ = head.next_id;
  journal.ids_end_ = head.next_id;

  journal.finish_intent();
  for (std::uint32_t i = journal.num_slots_; i-- > 0;) {
    const JournalSlot& s = journal.slot(i);
    if (!is_live(s)) {
      journal.free_.push_back(i);
      continue;
    }
    recovered.push_back(journal.read(i));
  }
  return journal;
}

void Journal::confirm_boot() {
  const auto boot_id = read_boot_id();
  std::memcpy(header().boot_id, boot_id.data(), boot_id.size());
}

Result<Journal> Journal::open(UniqueFd fd, std::vector<Recovered>& recovered) {
  const std::size_t before = recovered.size();
  Result<Journal> journal = open_keeping(std::move(fd), recovered);
  if (!journal) return journal;
  for (std::size_t i = before; i < recovered.size(); ++i) journal->absorb(recovered[i].slot);
  journal->confirm_boot();
  return journal;
}

Journal::Journal(Journal&& other) noexcept
    : base_(std::exchange(other.base_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      num_slots_(std::exchange(other.num_slots_, 0)),
      fd_(std::move(other.fd_)),
      free_(std::move(other.free_)),
      ids_end_(other.ids_end_),
      next_id_(other.next_id_),
      is_power_lost_(other.is_power_lost_) {}

Journal& Journal::operator=(Journal&& other) noexcept {
  if (this == &other) return *this;
  if (base_ != nullptr) ::munmap(base_, bytes_);
  base_ = std::exchange(other.base_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  num_slots_ = std::exchange(other.num_slots_, 0);
  fd_ = std::move(other.fd_);
  free_ = std::move(other.free_);
  ids_end_ = other.ids_end_;
  next_id_ = other.next_id_;
  is_power_lost_ = other.is_power_lost_;
  return *this;
}

Journal::~Journal() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

std::uint64_t Journal::take_id() {
  if (next_id_ == ids_end_) {
    ids_end_ += kJournalIdsBlock;
    store_release(header().next_id, ids_end_);
  }
  return next_id_++;
}

std::optional<std::uint32_t> Journal::try_open_slot(const JournalEntry& entry) {
  if (free_.empty()) return std::nullopt;
  const std::uint32_t index = free_.back();
  free_.pop_back();
  JournalSlot& s = slot(index);
  CHECK(!is_live(s));
  s.tenant = entry.tenant.value;
  s.request = entry.request.value;
  s.sequence = entry.sequence.value;
  s.choice = entry.choice;
  s.prompt_tokens = entry.prompt_tokens;
  s.accepted.store(0, std::memory_order_relaxed);
  s.reserved_tokens = entry.reserved_tokens;
  s.admitted_unix_ms = entry.admitted_unix_ms;
  std::memcpy(s.tenant_key, entry.tenant_key.data(), sizeof s.tenant_key);
  s.model_key = entry.model_key;
  s.price_input = entry.price_input;
  s.price_cached = entry.price_cached;
  s.price_output = entry.price_output;
  s.cached.store(0, std::memory_order_relaxed);
  s.device_ms.store(0, std::memory_order_relaxed);
  s.kv_token_ms.store(0, std::memory_order_relaxed);
  s.state.store(static_cast<std::uint32_t>(SlotState::live), std::memory_order_release);
  return index;
}

void Journal::accept(std::uint32_t index, std::uint32_t accepted_total) {
  JournalSlot& s = slot(index);
  CHECK(is_live(s) && accepted_total >= s.accepted.load(std::memory_order_relaxed));
  s.accepted.store(accepted_total, std::memory_order_release);
}

std::uint32_t Journal::accepted(std::uint32_t index) const {
  const JournalSlot& s = slot(index);
  CHECK(is_live(s));
  return s.accepted.load(std::memory_order_relaxed);
}

void Journal::set_cached(std::uint32_t index, std::uint32_t cached) {
  JournalSlot& s = slot(index);
  CHECK(is_live(s) && cached <= s.prompt_tokens);
  s.cached.store(cached, std::memory_order_release);
}

void Journal::set_use(std::uint32_t index, const JournalUse& use) {
  JournalSlot& s = slot(index);
  CHECK(is_live(s));
  s.device_ms.store(use.device_ms, std::memory_order_relaxed);
  s.kv_token_ms.store(use.kv_token_ms, std::memory_order_relaxed);
}

Journal::Recovered Journal::read(std::uint32_t index) const {
  const JournalSlot& s = slot(index);
  CHECK(is_live(s));
  Recovered found{};
  found.slot = index;
  found.accepted = s.accepted.load(std::memory_order_relaxed);
  found.cached = s.cached.load(std::memory_order_relaxed);
  found.use = {s.kv_token_ms.load(std::memory_order_relaxed),
               s.device_ms.load(std::memory_order_relaxed)};
  JournalEntry& entry = found.entry;
  entry.request = RequestId(s.request);
  entry.sequence = SequenceId(s.sequence);
  entry.tenant = TenantId(s.tenant);
  entry.choice = s.choice;
  entry.prompt_tokens = s.prompt_tokens;
  entry.reserved_tokens = s.reserved_tokens;
  entry.admitted_unix_ms = s.admitted_unix_ms;
  std::memcpy(entry.tenant_key.data(), s.tenant_key, sizeof s.tenant_key);
  entry.model_key = s.model_key;
  entry.price_input = s.price_input;
  entry.price_cached = s.price_cached;
  entry.price_output = s.price_output;
  return found;
}

void Journal::absorb(std::uint32_t index) {
  JournalHeader& head = header();
  const JournalSlot& s = slot(index);
  CHECK(is_live(s) && head.intent_state.load(std::memory_order_relaxed) == 0);
  store_totals(head.intent_totals, plus_slot(head.totals, s));
  store_release(head.intent_slot, index);
  head.intent_state.store(1, std::memory_order_release);
  finish_intent();
  free_.push_back(index);
}

JournalTotals Journal::totals() const {
  return header().totals;
}

JournalTotals Journal::totals_with_live() const {
  JournalTotals sum = totals();
  for (std::uint32_t i = 0; i < num_slots_; ++i)
    if (is_live(slot(i))) sum = plus_slot(sum, slot(i));
  return sum;
}

std::uint32_t Journal::num_live() const {
  return num_slots_ - static_cast<std::uint32_t>(free_.size());
}

std::uint32_t Journal::num_slots() const {
  return num_slots_;
}

Epoch Journal::gateway_epoch() const {
  return Epoch(header().gateway_epoch);
}

void Journal::check_invariants() const {
  CHECK(header().intent_state.load(std::memory_order_relaxed) == 0);
  CHECK(header().next_id == ids_end_ && next_id_ <= ids_end_);
  std::vector<bool> seen(num_slots_, false);
  for (const std::uint32_t index : free_) {
    CHECK(index < num_slots_ && !seen[index] && !is_live(slot(index)));
    seen[index] = true;
  }
  for (std::uint32_t i = 0; i < num_slots_; ++i) CHECK(seen[i] != is_live(slot(i)));
}

}  // namespace sluice
