// Keys about what a process is given: who it is, limits, files of variables.
#include "pup/config/attributes.hpp"

#include "pup/config/env_file.hpp"
#include "pup/config/load.hpp"

#include "catch.hpp"

#include <random>

using namespace pup;

namespace {

using strings = std::vector<std::string>;
using variables = std::map<std::string, std::string>;

// A machine with a few users, on which pup runs as root.
struct machine {
  identity self{0, 0, {0}, {}};
  std::map<std::string, user_entry> users{
      {"www", {"www", 33, 33, {33, 90}, "/var/100%{www}", "/bin/sh"}},
      {"me", {"me", 1000, 1000, {1000, 4}, "/home/me", "/bin/zsh"}}};
  std::map<std::string, std::uint32_t> groups{
      {"www", 33}, {"adm", 4}, {"video", 44}};
  std::vector<attribute_problem> problems;
  std::map<std::string, env_file_text> files;
  std::vector<std::pair<std::string, std::uint32_t>> files_asked;

  world get() {
    world result;
    result.variable = [](const std::string& name) {
      return name == "STAGE" ? std::optional<std::string>{"live"}
                             : std::nullopt;
    };
    result.folder_problem = [](auto&) { return std::string{}; };
    result.program_problem = [](auto&...) { return std::string{}; };
    result.user = [this](const std::string& name) {
      for (auto& [key, entry] : users)
        if (key == name || std::to_string(entry.uid) == name)
          return std::optional{entry};
      return std::optional<user_entry>{};
    };
    result.group = [this](const std::string& name) {
      const auto i = groups.find(name);
      return i == groups.end() ? std::nullopt : std::optional{i->second};
    };
    result.self = [this] { return self; };
    result.attribute_problems = [this](auto&) { return problems; };
    result.env_file = [this](const std::string& path, std::uint32_t uid) {
      files_asked.emplace_back(path, uid);
      const auto i = files.find(path);
      return i == files.end() ? env_file_text{{}, "no such file", true}
                              : i->second;
    };
    return result;
  }
};

load_result load_members(std::string_view members, machine& m) {
  return load(R"({"processes": [{"id": "a", "cmd": ["x"], )"
                  + std::string{members} + "}]}",
              "pup.json", "/srv", m.get());
}

strings faults_of(std::string_view members, machine& m) {
  strings result;
  auto loaded = load_members(members, m);
  if (auto* faults = std::get_if<std::vector<diagnostic>>(&loaded))
    for (auto& x : *faults)
      result.push_back(to_string(x));
  return result;
}

strings faults_of(std::string_view members) {
  machine m;
  return faults_of(members, m);
}

process_spec loaded(std::string_view members, machine& m) {
  INFO(members);
  REQUIRE(faults_of(members, m) == strings{});
  auto spec = std::get<pup_spec>(load_members(members, m));
  CHECK(check(spec) == strings{});
  return spec.processes.at(0);
}

process_spec loaded(std::string_view members) {
  machine m;
  return loaded(members, m);
}

std::string written(std::string_view text) {
  auto result = read_env_file(text);
  if (auto* fault = std::get_if<env_file_fault>(&result))
    return std::to_string(fault->line) + ": " + fault->problem + "; "
           + fault->remedy;
  std::string all;
  for (auto& [name, value] : std::get<variables>(result))
    all += name + "=<" + value + ">";
  return all;
}

}  // namespace

// -- who ----------------------------------------------------------------------

TEST_CASE("a user has its groups, and variables that env may set otherwise") {
  auto x = loaded(R"("user": "www", "env": {"SHELL": "/bin/false"})");
  CHECK(x.attributes.run_as == identity{33, 33, {33, 90}, "www"});
  CHECK(x.env
        == variables{{"HOME", "/var/100%%{www}"},
                     {"LOGNAME", "www"},
                     {"SHELL", "/bin/false"},
                     {"USER", "www"}});
}

TEST_CASE("a user is a name or a number, a group too") {
  for (auto members : {R"("user": 33)", R"("user": "33")"})
    CHECK(loaded(members).attributes.run_as->groups
          == std::vector<std::uint32_t>{33, 90});
  CHECK(loaded(R"("user": "www", "group": "video")").attributes.run_as
        == identity{33, 44, {33, 90}, "www"});
  CHECK(loaded(R"("user": "www", "supplementaryGroups": ["video", 90, 7])")
            .attributes.run_as
        == identity{33, 33, {33, 90, 44, 7}, "www"});
  // One without an entry belongs to no group but those that are named.
  CHECK(loaded(R"("user": 4000, "group": 4001)").attributes.run_as
        == identity{4000, 4001, {}, "4000"});
  // Only another group: whoever pup is.
  CHECK(loaded(R"("group": "video")").attributes.run_as
        == identity{0, 44, {0}, ""});
  CHECK_FALSE(loaded(R"("nice": 1)").attributes.run_as);
}

TEST_CASE("who runs as another user inherits little, unless told otherwise") {
  const inherited_names little{{"PATH", "LANG", "LC_*", "TZ", "TERM"}};
  CHECK(loaded(R"("nice": 1)").inherit_env == std::nullopt);
  CHECK(loaded(R"("user": "www")").inherit_env == little);
  machine m;
  m.users["root"] = {"root", 0, 0, {0}, "/root", "/bin/sh"};
  CHECK(loaded(R"("user": "root")", m).inherit_env == std::nullopt);
  CHECK(loaded(R"("group": "www")").inherit_env == std::nullopt);
  CHECK(loaded(R"("user": "www", "inheritEnv": true)").inherit_env
        == std::nullopt);
  for (auto user : {"", R"("user": "www", )"}) {
    const auto with = [&](std::string_view value) {
      return loaded(user + ("\"inheritEnv\": " + std::string{value}))
          .inherit_env;
    };
    CHECK(with("false") == inherited_names{strings{}});
    CHECK(with("[]") == inherited_names{strings{}});
    CHECK(with(R"(["HOME", "APP_*"])") == inherited_names{{"HOME", "APP_*"}});
  }
}

TEST_CASE("what is to be inherited is true, false or names") {
  const std::string at = "pup.json:1:56: processes[0].inheritEnv";
  CHECK(faults_of(R"("inheritEnv": "PATH")")
        == strings{at
                   + ": \"PATH\" is not an array; write true, false or a "
                     "list such as [\"LANG\", \"LC_*\"]"});
  for (auto bad : {"", "*", "A=1", "A*B"})
    CHECK(faults_of("\"inheritEnv\": [\"" + std::string{bad} + "\"]").size()
          == 1);
}

TEST_CASE("who is not root may name itself") {
  machine m;
  m.self = {1000, 1000, {1000, 4}, {}};
  // Root could have changed something; this one has nothing to change.
  CHECK_FALSE(loaded(R"("user": "me")", m).attributes.run_as);
  CHECK(loaded(R"("user": "me")", m).env.at("HOME") == "/home/me");
  CHECK_FALSE(loaded(R"("user": "me", "supplementaryGroups": ["adm"])", m)
                  .attributes.run_as);
  CHECK(loaded(R"("user": "me", "supplementaryGroups": ["video"])", m)
            .attributes.run_as);
  CHECK(loaded(R"("group": "video")", m).attributes.run_as);
}

TEST_CASE("users and groups that do not exist are refused") {
  CHECK(faults_of(R"("user": "wwww")")
        == strings{"pup.json:1:50: processes[0].user: `wwww` is no user of "
                   "this machine; create it or name another"});
  CHECK(faults_of(R"("user": "www", "group": "wheel")")
        == strings{"pup.json:1:66: processes[0].group: `wheel` is no group of "
                   "this machine; create it or name another"});
  CHECK(faults_of(R"("supplementaryGroups": ["adm", "wheel"])")
        == strings{
            "pup.json:1:73: processes[0].supplementaryGroups[1]: `wheel` is no "
            "group of this machine; create it or name another"});
  CHECK(faults_of(R"("user": 4000)")
        == strings{"pup.json:1:50: processes[0].user: user 4000 has no entry "
                   "on this machine; add `group`, which tells the group it "
                   "runs as"});
}

TEST_CASE("what the machine does not give is told where it is asked for") {
  machine m;
  m.problems = {{"limits.nofile", "too much", "use less"},
                {"user", "is not permitted", "remove it"}};
  CHECK(
      faults_of(
          R"("limits": {"core": 0, "nofile": 9}, "supplementaryGroups": [])", m)
      == strings{
          "pup.json:1:74: processes[0].limits.nofile: too much; use less",
          "pup.json:1:101: processes[0].supplementaryGroups: is not "
          "permitted; remove it"});
}

// -- how much -----------------------------------------------------------------

TEST_CASE("limits are numbers, amounts or unlimited, one or a pair") {
  constexpr auto none = resource_limit::unlimited;
  CHECK(loaded(R"("limits": {"nofile": 1024, "core": "unlimited",
                  "as": {"soft": "64M", "hard": "1G"}, "rttime": 0})")
            .attributes.limits
        == std::vector<resource_limit>{{7, 1024, 1024},
                                       {4, none, none},
                                       {9, 64u << 20, 1u << 30},
                                       {15, 0, 0}});
  CHECK(faults_of(R"("limits": {"nofiles": 1})")
        == strings{"pup.json:1:53: processes[0].limits.nofiles: `nofiles` is "
                   "not a key of `limits`; did you mean `nofile`?"});
  CHECK(faults_of(R"("limits": {"nproc": "64M"})")
        == strings{"pup.json:1:62: processes[0].limits.nproc: \"64M\" is not a "
                   "limit; use 0 to 9007199254740992 or \"unlimited\""});
  CHECK(faults_of(R"("limits": {"as": "much"})")
        == strings{"pup.json:1:59: processes[0].limits.as: \"much\" is not a "
                   "limit; use 0 to 9007199254740992, one such as \"64M\" or "
                   "\"unlimited\""});
  CHECK(faults_of(R"("limits": {"nofile": {"soft": 2}})")
        == strings{"pup.json:1:63: processes[0].limits.nofile.hard: is "
                   "missing; add a number"});
  CHECK(faults_of(R"("limits": {"nofile": {"soft": 2, "hard": 1}})")
        == strings{"pup.json:1:63: processes[0].limits.nofile: the soft limit "
                   "is above the hard one; raise `hard` or lower `soft`"});
}

TEST_CASE("priorities have ranges and words") {
  auto x = loaded(R"("nice": -5, "oomScoreAdjust": 500, "umask": "027",
                     "ioClass": "realtime", "noNewPrivileges": true)")
               .attributes;
  CHECK(x.nice == -5);
  CHECK(x.oom_score_adjust == 500);
  CHECK(x.umask == 027u);
  CHECK(x.io == io_priority{io_class::realtime, 4});
  CHECK(x.no_new_privileges);
  CHECK(loaded(R"("ioPriority": 0)").attributes.io
        == io_priority{io_class::best_effort, 0});
  CHECK(loaded(R"("ioClass": "idle")").attributes.io->kind == io_class::idle);
  CHECK(faults_of(R"("ioClass": "idle", "ioPriority": 1)")
        == strings{"pup.json:1:61: processes[0].ioPriority: has no effect with "
                   "ioClass \"idle\"; remove it"});
  CHECK(faults_of(R"("ioPriority": 8)")
        == strings{"pup.json:1:56: processes[0].ioPriority: 8 is not an I/O "
                   "priority; use 0 to 7"});
  CHECK(faults_of(R"("umask": "1000")")
        == strings{"pup.json:1:51: processes[0].umask: \"1000\" is not a "
                   "umask; use octal digits, such as \"022\""});
}

TEST_CASE("memory is an amount, a share of processors a number or percent") {
  auto x = loaded(R"("maxMemory": "300M", "memoryMax": "1G", "cpuMax": 1.5,
                     "pidsMax": 100)");
  CHECK(x.max_memory == 300u << 20);
  CHECK(x.attributes.cgroup == cgroup_limits{1u << 30, 150, 100});
  CHECK(loaded(R"("cpuMax": "20%")").attributes.cgroup.cpu_percent == 20);
  for (auto bad : {"\"20\"", "0", "\"0%\"", "\"-5%\"", "true", "\"%\"",
                   "\"nan%\"", "2000", "\"1e9%\""}) {
    INFO(bad);
    auto faults = faults_of(std::string{"\"cpuMax\": "} + bad);
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().find("is not a share of processors")
          != std::string::npos);
  }
  for (auto bad : {"0", "1023K", "5", "-1M", "1.5G", "99999999999T", ""}) {
    INFO(bad);
    auto faults = faults_of("\"maxMemory\": \"" + std::string{bad} + '"');
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().find("is not an amount of memory")
          != std::string::npos);
  }
  CHECK(loaded(R"("maxMemory": "1024K")").max_memory == 1u << 20);
}

TEST_CASE("a spec filled by hand meets the rules of its attributes") {
  pup_spec spec;
  auto& x = spec.processes.emplace_back();
  x.id = "a";
  x.argv = {"/x"};
  CHECK(check(spec) == strings{});
  x.attributes.nice = 20;
  x.attributes.oom_score_adjust = -1001;
  x.attributes.umask = 01000;
  x.attributes.io = io_priority{io_class::best_effort, 8};
  x.attributes.limits = {{7, 1, 1}, {7, 1, 1}, {99, 1, 1}};
  x.max_memory = 5;
  x.pid_file = "relative";
  CHECK(check(spec)
        == strings{
            "processes[0].nice: 20 is out of range; use -20 to 19",
            "processes[0].oomScoreAdjust: -1001 is out of range; use -1000 to "
            "1000",
            "processes[0].umask: 512 is out of range; use 0 to 511",
            "processes[0].ioPriority: 8 is out of range; use 0 to 7",
            "processes[0].limits.nofile: is given twice; keep one of them",
            "processes[0].limits: 99 is no resource; use one of "
            "resource_names",
            "processes[0].maxMemory: 5 is not an amount of memory; use 1048576 "
            "or more",
            "processes[0].pidFile: `relative` is not absolute; start it with "
            "/"});
}

// -- pidFile ------------------------------------------------------------------

TEST_CASE("a pid file starts at the folder, and each instance has its own") {
  CHECK(loaded(R"("pidFile": "run/%{id}.pid")").pid_file
        == "/srv/run/%{id}.pid");
  CHECK(loaded(R"("cluster": {"instances": 2}, "pidFile": "/run/%{index}")")
            .pid_file
        == "/run/%{index}");
  CHECK(faults_of(R"("cluster": {"instances": 1}, "pidFile": "/run/x.pid")")
        == strings{"pup.json:1:82: processes[0].pidFile: all instances would "
                   "write the same file; put %{id} or %{index} into its name"});
  CHECK(faults_of(R"("pidFile": "")")
        == strings{"pup.json:1:53: processes[0].pidFile: is empty; name a file "
                   "or remove it"});
  CHECK(faults_of(R"("pidFile": "%{port}.pid")")
        == strings{"pup.json:1:53: processes[0].pidFile: %{port} needs a port, "
                   "and there is none; add a cluster with startPort"});
  CHECK(faults_of(R"("pidFile": "a.pid"}, {"id": "b", "cmd": ["x"],
"pidFile": "./a.pid")")
        == strings{"pup.json:2:12: processes[1].pidFile: is already the "
                   "pidFile of processes[0]; name another file"});
}

// -- files of variables -------------------------------------------------------

TEST_CASE("a file of variables is read as shells and dotenv read it") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"", ""},
      {"\xEF\xBB\xBF"
       "A=1",
       "A=<1>"},
      {"A=1\nB=2\n", "A=<1>B=<2>"},
      {"A=1\r\nB='2'\r\n\r\n", "A=<1>B=<2>"},
      {"# A=1\n; B=2\n\n   \n\t# C\nD=4", "D=<4>"},
      {"export A=1\nexport\tB=2\nexported=3", "A=<1>B=<2>exported=<3>"},
      {"A=\nB=  \nC=''\nD=\"\"", "A=<>B=<>C=<>D=<>"},
      {"  A =1",
       "1: what stands before the `=` is no name of a variable; use "
       "letters, digits and _, without blanks before the `=`"},
      {"A=  a b  # c", "A=<a b>"},
      {"A=a#b\nB=#c", "A=<a#b>B=<>"},
      {"A=a\\nb\\", "A=<a\\nb\\>"},
      {"A=it's\nB=say \"x\"", "A=<it's>B=<say \"x\">"},
      {"A='a # \\n $B %{id} \"' # c", "A=<a # \\n $B %{id} \">"},
      {"A='1\n2'\nB=3", "A=<1\n2>B=<3>"},
      {R"(A="\n\r\t\\\"\$\`\x'")", "A=<\n\r\t\\\"$`\\x'>"},
      {"A=\"1\n2\\\n3\"  \nB=4", "A=<1\n23>B=<4>"},
      {"A=1\nA=2", "A=<2>"},
      {"A=b=c", "A=<b=c>"},
      {"_A1=x", "_A1=<x>"},
  };
  for (auto& [text, expected] : cases) {
    INFO(text);
    CHECK(written(text) == expected);
  }
}

TEST_CASE("a bad line is named and never shown") {
  const std::vector<std::pair<std::string, std::string>> cases{
      {"A=1\nsecret\nB=2", "2: no `=` on the line; write NAME=VALUE"},
      {"secret", "1: no `=` on the line; write NAME=VALUE"},
      {"\n\nse cret=1",
       "3: what stands before the `=` is no name of a variable; use letters, "
       "digits and _, without blanks before the `=`"},
      {"1A=secret",
       "1: what stands before the `=` is no name of a variable; use letters, "
       "digits and _, without blanks before the `=`"},
      {"=secret",
       "1: what stands before the `=` is no name of a variable; use letters, "
       "digits and _, without blanks before the `=`"},
      {"A='1\n2'\nB='secret\n\n",
       "3: a ' without a second one; close the "
       "quotes"},
      {"A=\"secret\\\"", "1: a \" without a second one; close the quotes"},
      {"A='1' secret",
       "1: text behind the closing quote; put the whole value "
       "into one pair of quotes"},
      {std::string{"A=1\nB=sec\0ret", 13},
       "2: the value of `B` holds a NUL character; remove it: no variable "
       "can"},
  };
  for (auto& [text, expected] : cases) {
    INFO(text);
    CHECK(written(text) == expected);
    CHECK(expected.find("secret") == std::string::npos);
  }
}

TEST_CASE("any text is a file of variables or has a fault with a line") {
  // The pieces that mean something, in any order.
  const strings pieces{"A", "=", "'", "\"",      "\\", "\n",  "\r\n",
                       "#", ";", " ", "export ", "%{", "\0x", "\xFF"};
  std::minstd_rand random{20'240'607};
  for (int i = 0; i < 20'000; ++i) {
    std::string text;
    for (auto count = random() % 24; count > 0; --count)
      text += pieces[random() % pieces.size()];
    auto result = read_env_file(text);
    if (auto* fault = std::get_if<env_file_fault>(&result)) {
      INFO(text);
      REQUIRE_FALSE((fault->problem.empty() || fault->remedy.empty()));
      auto lines = 1 + std::count(text.begin(), text.end(), '\n');
      REQUIRE(fault->line >= 1);
      REQUIRE(fault->line <= static_cast<std::size_t>(lines));
    } else {
      for (auto& [name, value] : std::get<variables>(result)) {
        REQUIRE_FALSE(name.empty());
        REQUIRE(value.find('\0') == std::string::npos);
      }
    }
  }
}

TEST_CASE("later files and env win, and values are kept to the letter") {
  machine m;
  m.files = {{"/srv/.env", {"A=1\nB=1\nC=%{id}%", {}, false}},
             {"/etc/live", {"B=2\nD=2", {}, false}}};
  auto x = loaded(
      R"("envFile": [".env", "/etc/%{env:STAGE}", "-no.env"],
         "env": {"D": "%{id}"})",
      m);
  CHECK(x.env
        == variables{
            {"A", "1"}, {"B", "2"}, {"C", "%%{id}%{%}"}, {"D", "%{id}"}});
  m.files_asked.clear();
  CHECK(loaded(R"("envFile": "./.env", "user": "me")", m).env.at("A") == "1");
  // Whose process it is, whose file it may be.
  CHECK(m.files_asked.front() == std::pair{std::string{"/srv/.env"}, 1000u});
}

TEST_CASE("an environment file that cannot be used is refused") {
  machine m;
  m.files = {{"/srv/bad", {"A=1\nsecret", {}, false}},
             {"/srv/theirs", {{}, "everybody may write to it", false}}};
  CHECK(
      faults_of(R"("envFile": ["none", "-", "bad", "-theirs", "%{id}", 5])", m)
      == strings{
          "pup.json:1:54: processes[0].envFile[0]: `/srv/none`: no such "
          "file; create it, or put a - in front: it may be missing",
          "pup.json:1:62: processes[0].envFile[1]: is empty; name a file or "
          "remove it",
          "pup.json:1:67: processes[0].envFile[2]: `/srv/bad` line 2: no `=` "
          "on the line; write NAME=VALUE",
          "pup.json:1:74: processes[0].envFile[3]: `/srv/theirs`: everybody "
          "may write to it; correct that or name another file",
          "pup.json:1:85: processes[0].envFile[4]: differs from instance to "
          "instance; use %{env:NAME} only: the file is read once",
          "pup.json:1:94: processes[0].envFile[5]: 5 is not a string; put it "
          "in double quotes"});
}

TEST_CASE("no diagnostic shows the value of a variable") {
  for (auto value : {R"("s3cret%{")", R"("s3cret%{s3cret}")", "123456",
                     "[\"s3cret\"]", R"("s3cret\u0000")", "true"}) {
    auto faults =
        faults_of(std::string{R"("env": {"PASSWORD": )"} + value + '}');
    INFO(value);
    REQUIRE(faults.size() == 1);
    CHECK(faults.front().find("s3cret") == std::string::npos);
    CHECK(faults.front().find("123456") == std::string::npos);
    CHECK(faults.front().find("env.PASSWORD") != std::string::npos);
  }
  // Nor where a forgotten quote makes the whole file unreadable.
  for (auto env :
       {R"({"PASSWORD": s3cret})", R"({"A": "x", "PASSWORD": s3cret)",
        R"( {"PASSWORD": 0123456})", R"({"PASSWORD" s3cret})",
        R"({PASSWORD: s3cret})", R"({"A": "x" s3cret})", R"({"A": "s3cret})",
        R"({"A": 's3cret'})", R"({"A": "B" "s3cret"})"}) {
    auto faults = faults_of(std::string{R"("env" : )"} + env);
    INFO(env);
    REQUIRE(faults.size() == 1);
    INFO(faults.front());
    CHECK(faults.front().find("s3cret") == std::string::npos);
    CHECK(faults.front().find("123456") == std::string::npos);
  }
}
