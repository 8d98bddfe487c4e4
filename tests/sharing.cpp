// A preforking program: sharing SHARED OWN CHILDREN
//
// Holds SHARED MiB, forks CHILDREN, which hold those with it and OWN MiB each,
// and says "shared" when all of them do. They end with it.
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

namespace {

// Every page differs, so that nothing merges them.
void hold(std::size_t mib) {
  const auto bytes = mib << 20;
  if (bytes == 0)
    return;
  auto* memory =
      static_cast<char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (memory == MAP_FAILED)
    std::exit(1);
  for (std::size_t i = 0; i < bytes; i += 4096)
    std::memcpy(memory + i, &i, sizeof(i));
}

[[noreturn]] void wait_for_the_end() {
  for (;;)
    ::pause();
}

void be_child(std::size_t own, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  hold(own);
  static_cast<void>(!::write(ready, "", 1));
  wait_for_the_end();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4)
    return 2;
  const auto number = [&](int i) {
    return static_cast<std::size_t>(std::strtoul(argv[i], nullptr, 10));
  };
  hold(number(1));
  std::array<int, 2> ready{};
  if (::pipe(ready.data()) != 0)
    return 1;
  for (std::size_t i = 0; i < number(3); ++i)
    if (::fork() == 0)
      be_child(number(2), ready[1]);
  char byte = 0;
  for (std::size_t i = 0; i < number(3); ++i)
    if (::read(ready[0], &byte, 1) != 1)
      return 1;
  std::puts("shared");
  std::fflush(stdout);
  wait_for_the_end();
}
