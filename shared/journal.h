// The journal: what every live sequence has been billed, in a file mapped shared by the gateway and
// owned by the parent, so that it survives kill -9 without a system call (P5). A slot is stored
// before the bytes it pays for reach a socket: received <= billed <= received + one unsent write.
//
//   0      JournalHeader (4096 bytes): magic, version, boot id, totals, the absorb intent
//   4096   JournalSlot[num_slots] (128 bytes each), one per live sequence; a request with n choices
//          holds n slots, the first of which carries the prompt
//
// Totals move only through the absorb intent: the new totals are written beside the slot's number,
// `intent_state` is set (release), the totals and the slot are changed, the state is cleared. A
// gateway that starts repeats a set intent, which is idempotent because it holds absolute values.
// Slots left live by a dead gateway are absorbed as they stand. One process at a time has it open:
// a gateway that starts waits for the end of one whose parent was killed.
// Thread rule: decision thread only. PROTOCOL.md has the offsets.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "shared/ids.h"
#include "shared/messages.h"
#include "shared/result.h"
#include "shared/unique_fd.h"

namespace sluice {

inline constexpr std::uint64_t kJournalMagic = 0x314c4e524a4c53ull;  // "SLJRNL1" little-endian
inline constexpr std::uint32_t kJournalVersion = 3;

struct JournalTotals {         // of the state directory's life; tokens unless named otherwise
  std::uint64_t requests = 0;  // absorbed requests
  std::uint64_t prompt = 0;
  std::uint64_t accepted = 0;
};

struct JournalHeader {
  std::uint64_t magic;
  std::uint32_t version;  // stored last
  std::uint32_t num_slots;
  std::uint8_t boot_id[16];     // of the kernel that last opened it: a new one means power loss
  std::uint64_t gateway_epoch;  // of the last opener
  std::uint64_t next_id;        // request and sequence ids at or above were never given out
  JournalTotals totals;
  std::uint32_t intent_slot;
  std::atomic<std::uint32_t> intent_state;  // 0 none, 1 absorb `intent_slot`
  JournalTotals intent_totals;              // absolute values after the absorption
};
static_assert(sizeof(JournalHeader) <= 512);  // one disk sector: power loss does not tear it
inline constexpr std::size_t kJournalHeaderBytes = 4096;

inline constexpr std::uint64_t kJournalIdsBlock = 4096;
inline constexpr std::uint64_t kJournalIdsSkipped = 1ull << 32;

enum class SlotState : std::uint32_t { free = 0, live = 1 };

struct JournalSlot {
  std::atomic<std::uint32_t> state;  // SlotState; live is stored last (release)
  std::uint32_t tenant;
  std::uint64_t request;
  std::uint64_t sequence;
  std::uint32_t choice;
  std::uint32_t prompt_tokens;          // billed once per request: on choice 0, else 0
  std::atomic<std::uint32_t> accepted;  // output tokens billed; release before the socket write
  std::uint32_t reserved_tokens;        // the bound that admission reserved
  std::uint64_t admitted_unix_ms;
  std::uint8_t tenant_key[32];  // digest naming tenant and key across restarts
  std::uint64_t model_key;      // of the model's name
  std::uint64_t price_input, price_cached, price_output;  // per token, at admission
  std::atomic<std::uint32_t> cached;                      // prompt tokens found in the prefix cache
  std::atomic<std::uint32_t> device_ms;                   // its share of step times
  std::atomic<std::uint64_t> kv_token_ms;                 // KV tokens held x milliseconds
};
static_assert(sizeof(JournalSlot) == 128);

struct JournalEntry {  // what a new slot says
  RequestId request;
  SequenceId sequence;
  TenantId tenant;
  std::uint32_t choice;
  std::uint32_t prompt_tokens;
  std::uint32_t reserved_tokens;
  std::uint64_t admitted_unix_ms;
  std::array<std::uint8_t, 32> tenant_key{};
  std::uint64_t model_key = 0;
  std::uint64_t price_input = 0, price_cached = 0, price_output = 0;
};

struct JournalUse {  // for reports, not for bills
  std::uint64_t kv_token_ms = 0;
  std::uint32_t device_ms = 0;
};

class Journal {
 public:
  // Parent: creates or grows the file and allocates every block now, so that a full disk refuses
  // the start instead of killing a write later. Errors: io_error (disk full says so), bad_file.
  static Result<UniqueFd> create_file(const char* path, std::uint32_t num_slots);

  // Gateway: maps, validates, finishes a set intent, absorbs slots that a dead gateway left live
  // (reported through `recovered`), raises the gateway epoch. Errors: bad_file, io_error.
  struct Recovered {
    JournalEntry entry;
    std::uint32_t accepted;
    std::uint32_t cached;
    JournalUse use;
    std::uint32_t slot;
  };
  static Result<Journal> open(UniqueFd fd, std::vector<Recovered>& recovered);
  // The same, but what a dead gateway left stays live until the caller has stored it elsewhere,
  // absorbs it and says confirm_boot(): a kill in between loses nothing, a power loss included.
  static Result<Journal> open_keeping(UniqueFd fd, std::vector<Recovered>& recovered);
  void confirm_boot();  // this kernel's boot is the journal's from now on

  Journal(Journal&&) noexcept;
  Journal& operator=(Journal&&) noexcept;
  ~Journal();

  // Ids for requests and sequences: never reused in this state directory, also after a crash
  // (next_id is raised in blocks before any of the block is given out; after a power loss, which
  // may have lost the raise, by kJournalIdsSkipped).
  std::uint64_t take_id();

  std::optional<std::uint32_t> try_open_slot(const JournalEntry& entry);  // nothing: all in use
  void accept(std::uint32_t slot, std::uint32_t accepted_total);  // REQUIRES: not less than before
  std::uint32_t accepted(std::uint32_t slot) const;
  void set_cached(std::uint32_t slot, std::uint32_t cached);  // of the prompt; at most once
  void set_use(std::uint32_t slot, const JournalUse& use);
  Recovered read(std::uint32_t slot) const;  // REQUIRES: live
  void absorb(std::uint32_t slot);           // live -> totals -> free

  JournalTotals totals() const;  // absorbed only
  JournalTotals totals_with_live() const;
  std::uint32_t num_live() const;
  std::uint32_t num_slots() const;
  Epoch gateway_epoch() const;  // 1: nobody opened this file before
  // The kernel was another one when the file was last opened: stores before may be lost.
  bool is_power_lost() const { return is_power_lost_; }
  void check_invariants() const;  // O(slots)

 private:
  Journal() = default;
  JournalHeader& header() const;
  JournalSlot& slot(std::uint32_t index) const;
  void finish_intent();
  Result<void> check_file() const;
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
  std::uint32_t num_slots_ = 0;  // validated copy
  UniqueFd fd_;
  std::vector<std::uint32_t> free_;  // stack of free slots, rebuilt on open
  std::uint64_t ids_end_ = 0;        // ids below are ours to give out
  std::uint64_t next_id_ = 0;
  bool is_power_lost_ = false;
};

}  // namespace sluice
