// CHECK and DCHECK: a broken invariant of our own stops the process; the parent restarts it.
// Never for input: bytes from network, files and shared memory are validated into a Result.
#pragma once

namespace sluice {

// Writes one line to standard error with a single write(2) and aborts. Safe in any thread.
[[noreturn]] void check_failed(const char* condition, const char* detail, const char* file,
                               int line);

}  // namespace sluice

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) [[unlikely]]                                \
      ::sluice::check_failed(#condition, "", __FILE__, __LINE__); \
  } while (false)

#ifdef NDEBUG
#define DCHECK(condition) \
  do {                    \
  } while (false)
#else
#define DCHECK(condition) CHECK(condition)
#endif
