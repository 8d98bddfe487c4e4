// The door for readers, with real sockets and, as root, other users.
#include "pup/runtime/status_door.hpp"

#include "catch.hpp"
#include "child_process.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <optional>
#include <thread>

#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

using namespace pup;
using namespace std::chrono_literals;
using namespace pup::test;

namespace {

/// A door that answers with what it was asked.
struct house {
  explicit house(gid_t readers = ::getegid()) {
    REQUIRE(::chmod(folder.path().c_str(), 0711) == 0);
    door.emplace(loop, path, readers,
                 [this](const status_question& question, auto answer) {
                   if (question.id == "nobody")
                     return answer({false, "no 'nobody'"});
                   // As an actor would: later, from another thread.
                   actors.emplace_back([=] {
                     answer({true, (question.json ? "json of " : "table of ")
                                       + question.id});
                   });
                 });
    thread = std::thread{[this] { loop.run(); }};
  }
  house(const house&) = delete;
  house& operator=(const house&) = delete;
  ~house() {
    // On its own thread, as everything else of it.
    boost::asio::post(loop, [this] {
      door.reset();
      work.reset();
    });
    thread.join();
    for (auto& x : actors)
      x.join();
  }

  temporary_folder folder;
  std::string path = folder.path() + "/status.sock";
  boost::asio::io_context loop{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{
      loop.get_executor()};
  std::vector<std::thread> actors;
  std::optional<status_door> door;
  std::thread thread;
};

/// "ok text", "fault text" or the name of an error.
std::string asked(const std::string& path, const status_question& question) {
  const auto result = ask_status(path, question, 30s);
  if (const auto* fault = std::get_if<os_fault>(&result))
    return fault->call + ' ' + std::to_string(fault->code);
  const auto& answer = std::get<status_answer>(result);
  return (answer.ok ? "ok " : "fault ") + answer.text;
}

unique_fd dial(const std::string& path) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  path.copy(static_cast<char*>(to.sun_path), sizeof to.sun_path - 1);
  unique_fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  REQUIRE(::connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof to)
          == 0);
  return fd;
}

std::string all_of(const unique_fd& fd) {
  std::string result;
  char buffer[256];
  for (;;) {
    pollfd event{fd.get(), POLLIN, 0};
    REQUIRE(::poll(&event, 1, 30'000) == 1);
    const auto n = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (n <= 0)
      return result;
    result.append(buffer, static_cast<std::size_t>(n));
  }
}

void say(const unique_fd& fd, std::string_view text) {
  static_cast<void>(::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL));
}

}  // namespace

TEST_CASE("child: ask", "[.child]") {
  die_with_parent();
  const auto user = static_cast<uid_t>(std::stoul(variable("TEST_USER")));
  const auto more = static_cast<gid_t>(std::stoul(variable("TEST_GROUP")));
  REQUIRE(::setgroups(1, &more) == 0);
  REQUIRE(::setresgid(user, user, user) == 0);
  REQUIRE(::setresuid(user, user, user) == 0);
  report(asked(variable("TEST_PATH"), {true, "web"}));
}

TEST_CASE("status door: one question, one answer") {
  house here;
  CHECK(asked(here.path, {true, "web"}) == "ok json of web");
  CHECK(asked(here.path, {false, "web-*"}) == "ok table of web-*");
  CHECK(asked(here.path, {false, ""}) == "ok table of ");
  CHECK(asked(here.path, {false, "nobody"}) == "fault no 'nobody'");
  struct stat info {};
  REQUIRE(::stat(here.path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0660);
  CHECK(info.st_gid == ::getegid());
}

TEST_CASE("status door: it is gone with its owner") {
  std::string path;
  {
    house here;
    path = here.path;
  }
  CHECK(asked(path, {}) == "connect " + std::to_string(ENOENT));
}

TEST_CASE("status door: nonsense gets no answer, or a fault") {
  house here;
  const auto answer_to = [&](std::string_view text) {
    const auto fd = dial(here.path);
    say(fd, text);
    ::shutdown(fd.get(), SHUT_WR);
    return all_of(fd);
  };
  CHECK(answer_to("") == "");
  CHECK(answer_to("json") == "");
  CHECK(answer_to(std::string(100'000, 'x')) == "");
  CHECK(answer_to("terminate\n").starts_with("fault\n"));
  CHECK(answer_to("\n").starts_with("fault\n"));
  CHECK(answer_to("jsonx\n").starts_with("fault\n"));
  CHECK(answer_to("json web\nrest") == "ok\njson of web");
  CHECK(asked(here.path, {true, "web"}) == "ok json of web");
}

TEST_CASE("status door: the silent give way, the patient are heard") {
  house here;
  std::vector<unique_fd> silent;
  for (std::size_t i = 0; i < 3 * bounds::status_visitors; ++i)
    silent.push_back(dial(here.path));
  CHECK(asked(here.path, {true, "web"}) == "ok json of web");
  CHECK(all_of(silent.front()).empty());  // closed
  say(silent.back(), "table late\n");
  CHECK(all_of(silent.back()) == "ok\ntable of late");
}

TEST_CASE("status door: for members of the group, and for nobody else") {
  if (::geteuid() != 0) {
    WARN("skipped: needs root to become another user");
    return;
  }
  constexpr gid_t readers = 61'234;
  house here{readers};
  const auto as = [&](const std::string& user, const std::string& group) {
    child_process child{
        "child: ask",
        {"TEST_PATH=" + here.path, "TEST_USER=" + user, "TEST_GROUP=" + group}};
    return child.line();
  };
  CHECK(as("65534", "61234") == "ok json of web");
  CHECK(as("61234", "65534") == "ok json of web");
  CHECK(as("65534", "65534") == "connect " + std::to_string(EACCES));
  // Whom the file lets in by mistake the door does not.
  REQUIRE(::chmod(here.path.c_str(), 0666) == 0);
  // It hangs up, which shows in the question or in the answer.
  const auto refused = as("65534", "65534");
  CHECK((refused.starts_with("receive ") || refused.starts_with("send ")));
  CHECK(asked(here.path, {true, "web"}) == "ok json of web");
}

TEST_CASE("groups by name and by number") {
  CHECK(group_named("root") == gid_t{0});
  CHECK(group_named("61234") == gid_t{61'234});
  CHECK_FALSE(group_named("no such group here"));
  CHECK_FALSE(group_named(""));
  CHECK_FALSE(group_named("-1"));
}
