// IdIndex: sequence id -> table index, by open addressing with linear probing and backward-shift
// deletion. Ids come from a counter, so the low bits alone spread them; a look-up is one cache line
// in almost every case. Memory is fixed at construction: nothing allocates afterwards.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>
#include <vector>

#include "shared/check.h"
#include "shared/ids.h"

namespace sluice::gw {

class IdIndex {
 public:
  explicit IdIndex(std::size_t entries_max)
      : slots_(std::bit_ceil(entries_max * 2 + 2)), mask_(slots_.size() - 1) {}

  // REQUIRES: id is not 0 and not present; fewer than entries_max are.
  void insert(SequenceId id, std::uint32_t index) {
    CHECK(id.value != 0 && size_ + 1 < slots_.size());
    std::size_t at = id.value & mask_;
    while (slots_[at].id != 0) {
      CHECK(slots_[at].id != id.value);
      at = (at + 1) & mask_;
    }
    slots_[at] = Slot{id.value, index};
    ++size_;
  }

  std::optional<std::uint32_t> find(SequenceId id) const {
    if (id.value == 0) return std::nullopt;
    for (std::size_t at = id.value & mask_; slots_[at].id != 0; at = (at + 1) & mask_) {
      if (slots_[at].id == id.value) return slots_[at].index;
    }
    return std::nullopt;
  }

  void erase(SequenceId id) {  // REQUIRES: present
    std::size_t hole = id.value & mask_;
    while (slots_[hole].id != id.value) {
      CHECK(slots_[hole].id != 0);
      hole = (hole + 1) & mask_;
    }
    // Close the hole, so that no probe sequence is cut: move back every entry whose home does not
    // lie between the hole and itself.
    for (std::size_t at = (hole + 1) & mask_; slots_[at].id != 0; at = (at + 1) & mask_) {
      const std::size_t home = slots_[at].id & mask_;
      if (((at - home) & mask_) >= ((at - hole) & mask_)) {
        slots_[hole] = slots_[at];
        hole = at;
      }
    }
    slots_[hole] = Slot{};
    --size_;
  }

  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::uint64_t id = 0;  // 0: empty
    std::uint32_t index = 0;
  };
  std::vector<Slot> slots_;
  std::size_t mask_;
  std::size_t size_ = 0;
};

}  // namespace sluice::gw
