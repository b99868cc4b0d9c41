// A library to preload into `sluice serve`: its children start under the command in
// SLUICE_EXEC_UNDER (scripts/memcheck: valgrind). The parent itself runs as it is, since valgrind
// knows no pidfd.
#include <dlfcn.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

using Execv = int (*)(const char*, char* const*);

extern "C" int execv(const char* path, char* const argv[]) noexcept {
  const auto real = reinterpret_cast<Execv>(::dlsym(RTLD_NEXT, "execv"));
  const char* const under = std::getenv("SLUICE_EXEC_UNDER");
  if (under == nullptr) return real(path, argv);
  std::vector<std::string> words;
  std::istringstream command(under);
  for (std::string word; command >> word;) words.push_back(word);
  words.emplace_back(path);
  for (int i = 1; argv[i] != nullptr; ++i) words.emplace_back(argv[i]);
  std::vector<char*> wrapped;
  for (std::string& word : words) wrapped.push_back(word.data());
  wrapped.push_back(nullptr);
  ::unsetenv("LD_PRELOAD");  // not for the children
  return real(wrapped.front(), wrapped.data());
}
