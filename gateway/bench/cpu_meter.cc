// Process clocks and the process tree of /proc; see cpu_meter.h.
#include "gateway/bench/cpu_meter.h"

#include <dirent.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <fstream>
#include <map>
#include <memory>
#include <string>

namespace sluice::bench {
namespace {

// The parent's pid from /proc/PID/stat; 0 when the process is gone. The name in parentheses may
// hold anything, so fields are counted from its last ')'.
pid_t parent_of(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  const std::size_t close = text.rfind(')');
  if (close == std::string::npos || close + 4 >= text.size()) return 0;
  pid_t parent = 0;  // ") S 123 ..."
  std::from_chars(text.data() + close + 4, text.data() + text.size(), parent);
  return parent;
}

}  // namespace

Result<Duration> process_cpu_time(pid_t pid) {
  clockid_t clock{};
  timespec t{};
  const int error = ::clock_getcpuclockid(pid, &clock);
  if (error != 0 || ::clock_gettime(clock, &t) != 0)
    return make_error(Errc::io_error, "process " + std::to_string(pid) + ": " +
                                          std::strerror(error != 0 ? error : errno));
  return Duration(std::chrono::seconds(t.tv_sec)) + Duration(t.tv_nsec);
}

std::vector<pid_t> process_tree(pid_t root) {
  std::multimap<pid_t, pid_t> children;
  const std::unique_ptr<DIR, int (*)(DIR*)> folder(::opendir("/proc"), ::closedir);
  while (folder) {
    const dirent* entry = ::readdir(folder.get());
    if (entry == nullptr) break;
    pid_t pid = 0;
    const char* end = entry->d_name + std::strlen(entry->d_name);
    const auto [stop, error] = std::from_chars(entry->d_name, end, pid);
    if (error == std::errc() && stop == end) children.emplace(parent_of(pid), pid);
  }
  std::vector<pid_t> tree{root};
  for (std::size_t i = 0; i < tree.size(); ++i) {
    const auto [first, last] = children.equal_range(tree[i]);
    for (auto it = first; it != last; ++it) tree.push_back(it->second);
  }
  return tree;
}

CpuMeter::CpuMeter(std::vector<pid_t> pids) : pids_(std::move(pids)) {}

void CpuMeter::start() {
  at_start_.clear();
  for (const pid_t pid : pids_) {
    const Result<Duration> used = process_cpu_time(pid);
    at_start_.push_back(used ? *used : Duration(-1));
  }
}

void CpuMeter::stop() {
  readings_.clear();
  num_lost_ = 0;
  for (std::size_t i = 0; i < at_start_.size(); ++i) {
    const Result<Duration> used = process_cpu_time(pids_[i]);
    if (used && at_start_[i] >= Duration(0))
      readings_.push_back({pids_[i], *used - at_start_[i]});
    else
      ++num_lost_;
  }
}

Duration CpuMeter::total() const {
  Duration sum{};
  for (const Reading& reading : readings_) sum += reading.used;
  return sum;
}

}  // namespace sluice::bench
