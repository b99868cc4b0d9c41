// DueQueue: which request has to be looked at next, and when. A binary heap that knows where each
// entry lies, so that a request has at most one entry and gives it up when it ends: memory is
// bounded by the live requests, not by their history. Ties by index. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "shared/check.h"
#include "shared/clock.h"

namespace sluice::gw {

class DueQueue {
 public:
  // Sets or moves the entry of `index`; nothing removes it.
  void set(std::uint32_t index, std::optional<Tick> due) {
    if (index >= where_.size()) where_.resize(index + 1, kNone);
    const std::uint32_t at = where_[index];
    if (!due) {
      if (at != kNone) remove(at);
      return;
    }
    if (at == kNone) {
      heap_.push_back(Entry{*due, index});
      where_[index] = static_cast<std::uint32_t>(heap_.size() - 1);
      rise(heap_.size() - 1);
      return;
    }
    heap_[at].due = *due;
    sink(rise(at));
  }

  std::optional<Tick> next_due() const {
    return heap_.empty() ? std::nullopt : std::optional<Tick>(heap_[0].due);
  }
  // Removes and returns an entry that is due.
  std::optional<std::uint32_t> pop_due(Tick now) {
    if (heap_.empty() || heap_[0].due > now) return std::nullopt;
    const std::uint32_t index = heap_[0].index;
    remove(0);
    return index;
  }
  std::size_t size() const { return heap_.size(); }

 private:
  static constexpr std::uint32_t kNone = 0xffffffffu;
  struct Entry {
    Tick due;
    std::uint32_t index;
    bool operator<(const Entry& other) const {
      return due != other.due ? due < other.due : index < other.index;
    }
  };

  void place(std::size_t at, Entry entry) {
    heap_[at] = entry;
    where_[entry.index] = static_cast<std::uint32_t>(at);
  }
  std::size_t rise(std::size_t at) {
    const Entry entry = heap_[at];
    while (at > 0 && entry < heap_[(at - 1) / 2]) {
      place(at, heap_[(at - 1) / 2]);
      at = (at - 1) / 2;
    }
    place(at, entry);
    return at;
  }
  void sink(std::size_t at) {
    const Entry entry = heap_[at];
    for (std::size_t child = 2 * at + 1; child < heap_.size(); child = 2 * at + 1) {
      if (child + 1 < heap_.size() && heap_[child + 1] < heap_[child]) ++child;
      if (!(heap_[child] < entry)) break;
      place(at, heap_[child]);
      at = child;
    }
    place(at, entry);
  }
  void remove(std::size_t at) {
    where_[heap_[at].index] = kNone;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (at == heap_.size()) return;
    place(at, last);
    sink(rise(at));
  }

  std::vector<Entry> heap_;
  std::vector<std::uint32_t> where_;  // [index] -> place in the heap
};

}  // namespace sluice::gw
