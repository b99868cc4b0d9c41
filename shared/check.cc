// The last words of a process whose invariant broke.
#include "shared/check.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace sluice {

void check_failed(const char* condition, const char* detail, const char* file, int line) {
  char text[512];
  const int length = std::snprintf(text, sizeof text, "CHECK failed: %s %s (%s:%d)\n", condition,
                                   detail, file, line);
  if (length > 0) {
    const auto bytes = static_cast<std::size_t>(length);
    [[maybe_unused]] const auto written =
        ::write(STDERR_FILENO, text, bytes < sizeof text ? bytes : sizeof text - 1);
  }
  std::abort();
}

}  // namespace sluice
