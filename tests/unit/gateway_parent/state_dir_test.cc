// One instance to a state directory.
#include "gateway/parent/state_dir.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

namespace sluice::gw {
namespace {

class StateDirTest : public testing::Test {
 protected:
  StateDirTest() {
    std::string pattern = testing::TempDir() + "sluice-state-XXXXXX";
    root_ = ::mkdtemp(pattern.data());
  }
  ~StateDirTest() override { std::filesystem::remove_all(root_); }
  std::string root_;
};

TEST_F(StateDirTest, MakesTheDirectoryForItsOwnerOnly) {
  const std::string path = root_ + "/a/b";
  const auto dir = StateDir::open(path);
  ASSERT_TRUE(dir) << dir.error().detail;
  struct stat facts {};
  ASSERT_EQ(::stat(path.c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700u);
  EXPECT_EQ(dir->journal_path(), path + "/journal");
}

TEST_F(StateDirTest, ASecondHolderIsRefusedByNameUntilTheFirstIsGone) {
  {
    const auto first = StateDir::open(root_);
    ASSERT_TRUE(first);
    const auto second = StateDir::open(root_);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, Errc::already_running);
    EXPECT_NE(second.error().detail.find(root_), std::string::npos);
    EXPECT_NE(second.error().detail.find("pid " + std::to_string(::getpid())), std::string::npos);
  }
  EXPECT_TRUE(StateDir::open(root_));
}

TEST_F(StateDirTest, APlaceThatIsNoDirectoryIsTold) {
  const auto dir = StateDir::open("/dev/null/sluice");
  ASSERT_FALSE(dir);
  EXPECT_EQ(dir.error().code, Errc::io_error);
  EXPECT_NE(dir.error().detail.find("/dev/null/sluice"), std::string::npos);
}

}  // namespace
}  // namespace sluice::gw
