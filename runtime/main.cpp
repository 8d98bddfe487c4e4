#include "pup/runtime/client.hpp"
#include "pup/runtime/daemon.hpp"
#include "pup/runtime/guarded.hpp"
#include "pup/runtime/last_words.hpp"
#include "pup/runtime/local.hpp"
#include "pup/runtime/logs.hpp"
#include "pup/runtime/output.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>

namespace {

// See run_client().
[[noreturn]] void leave(pup::exit_code code) {
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(code));
}

pup::exit_code carry_out(const pup::command& what) {
  if (pup::is_local(what.kind))
    return pup::run_locally(what);
  switch (what.kind) {
    case pup::command_kind::run:
      return pup::run_supervisor(what);
    case pup::command_kind::logs:
    case pup::command_kind::monitor:
      return pup::show_logs(what);
    default:
      leave(pup::after_output(pup::run_client(what)));
  }
}

}  // namespace

int main(int argc, char** argv) {
  pup::prepare_last_words();
  try {
    const auto is_file = [](const std::string& path) {
      // A folder may well have the name of a process.
      std::error_code ignored;
      const auto kind = std::filesystem::status(path, ignored);
      return std::filesystem::exists(kind)
             && !std::filesystem::is_directory(kind);
    };
    const auto parsed =
        pup::parse({argv + (argc > 0 ? 1 : 0), argv + argc}, is_file);
    if (const auto* error = std::get_if<pup::usage_error>(&parsed)) {
      return static_cast<int>(
          pup::complain(error->text, pup::exit_code::usage));
    }
    const auto& what = std::get<pup::command>(parsed);
    pup::prepare_output(what.kind != pup::command_kind::run);
    if (what.kind == pup::command_kind::run)
      if (const auto why = pup::enter_guardian(argv); !why.empty())
        pup::complain(
            "pup: without a guardian, so its processes end when it is killed: "
            + why);
    return static_cast<int>(pup::after_output(carry_out(what)));
  } catch (const std::exception& error) {
    const auto* remedy = pup::remedy_of(pup::error_of(error));
    return static_cast<int>(
        pup::complain(std::string{"pup: "} + error.what() + remedy));
  }
}
