// Golden files: a text compared with a file under tests/golden. SLUICE_UPDATE_GOLDEN=1 in the
// environment rewrites the files; the difference is then reviewed like code.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace sluice::test {

inline void expect_golden(const std::string& name, std::string_view actual) {
  const std::string path = std::string(SLUICE_GOLDEN_DIR) + "/" + name;
  if (const char* update = std::getenv("SLUICE_UPDATE_GOLDEN");
      update && std::string_view(update) == "1") {
    std::ofstream(path, std::ios::binary) << actual;
    return;
  }
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << "no golden file " << path;
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(expected, actual) << "differs from " << path;
}

}  // namespace sluice::test
