// What `pup import` makes of the files in tests/import, beside what their own
// managers do with them: tests/import/record has written that down. Each
// difference must be named by a note of the import.
#include "pup/config/expand.hpp"
#include "pup/config/import.hpp"
#include "pup/config/json_text.hpp"
#include "pup/config/load.hpp"

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace pup;
namespace fs = std::filesystem;

namespace {

const std::string corpus = PUP_IMPORT_CORPUS;
const std::string site = "/srv/site";

using texts = std::vector<std::string>;
using variables = std::map<std::string, std::string>;

/// The environment of the manager while it was recorded.
const variables outer{{"SITE_HOME", site},
                      {"APP_ENV", "production"},
                      {"WORKERS", "2"},
                      {"LANG", "C"},
                      {"HOME", site + "/home"}};

/// One life of a process.
struct life {
  texts argv;
  std::string cwd;
  std::string umask = "0022";
  std::string user = "root";
  variables env;

  bool operator<(const life& other) const {
    return std::tie(argv, env) < std::tie(other.argv, other.env);
  }
};

/// Of whom the files name: pup sets them, and the import says so.
const std::string home_of_user = "/home of the user";
const std::string shell_of_user = "/shell of the user";

struct behaviour {
  std::vector<life> lives;  // one for each instance, sorted
  bool after_crash = false;
  bool after_exit = false;
  /// Lives of an instance that always ends at once; none: it is tried for ever,
  /// or longer than anybody has waited.
  std::optional<std::int64_t> tries;
  bool has_tried = true;  ///< it is known how often
};

struct outcome {
  std::map<std::string, behaviour> processes;
  bool refused = false;
  std::uint32_t processors = 1;  ///< of the machine
};

struct difference {
  std::string process;
  std::string field;
  std::string theirs;
  std::string ours;
};

std::string content_of(const fs::path& file) {
  std::ifstream in{file, std::ios::binary};
  std::ostringstream text;
  text << in.rdbuf();
  REQUIRE(in);
  return text.str();
}

// -- the record ---------------------------------------------------------------

std::optional<json_value> member(const json_value& x, std::string_view key) {
  if (x.kind() == json_kind::object)
    for (const auto& y : x.members())
      if (y.key.string() == key)
        return y.value;
  return std::nullopt;
}

std::string text_at(const json_value& x, std::string_view key) {
  return std::string{member(x, key).value().string()};
}

life life_of(const json_value& x) {
  life result;
  for (const auto& word : member(x, "argv").value().elements())
    result.argv.emplace_back(word.string());
  result.cwd = text_at(x, "cwd");
  result.umask = text_at(x, "umask");
  result.user = text_at(x, "user");
  for (const auto& y : member(x, "env").value().members())
    result.env.emplace(y.key.string(), y.value.string());
  return result;
}

outcome recorded(const json_value& x) {
  outcome result;
  if (const auto refused = member(x, "refused"))
    result.refused = refused->truth();
  if (const auto count = member(x, "processors"))
    result.processors =
        static_cast<std::uint32_t>(std::stoul(std::string{count->raw()}));
  const auto processes = member(x, "processes").value().members();
  for (const auto& y : processes) {
    const auto name = y.key.string();
    auto& into = result.processes[std::string{name}];
    for (const auto& z : y.value.elements())
      into.lives.push_back(life_of(z));
    std::sort(into.lives.begin(), into.lives.end());
    into.after_crash =
        member(member(x, "restartsAfterCrash").value(), name).value().truth();
    into.after_exit =
        member(member(x, "restartsAfterExit").value(), name).value().truth();
    const auto tries = member(x, "livesOfQuickEnds");
    const auto count = tries ? member(*tries, name) : std::nullopt;
    into.has_tried = count.has_value();
    if (count && count->kind() == json_kind::number)
      into.tries = std::stoll(std::string{count->raw()});
  }
  return result;
}

// -- what pup would do --------------------------------------------------------

import_surroundings surroundings() {
  using kind = import_surroundings::script;
  import_surroundings result;
  result.folder = site;
  result.script_at = [](const std::string& path) {
    return path.find("libexec/") != std::string::npos ? kind::program
           : path.find('/') != std::string::npos      ? kind::text
                                                      : kind::unknown;
  };
  return result;
}

load_result load_made(const std::string& text, std::uint32_t processors) {
  world machine;
  machine.variable = [](const std::string& name) -> std::optional<std::string> {
    const auto found = outer.find(name);
    return found == outer.end() ? '/' + name : found->second;
  };
  machine.folder_problem = [](auto&) { return std::string{}; };
  machine.program_problem = [](auto&...) { return std::string{}; };
  machine.self = [] { return identity{0, 0, {0}, "root"}; };
  machine.user = [](const std::string& name) {
    const std::uint32_t id = name == "root" ? 0 : 1;
    return std::optional{
        user_entry{name, id, id, {id}, home_of_user, shell_of_user}};
  };
  machine.group = [](const std::string&) { return std::optional{1u}; };
  machine.env_file = [](const std::string&, std::uint32_t) {
    env_file_text result;
    result.missing = true;
    return result;
  };
  machine.processors = processors;
  return load(text, "pup.json", site, machine);
}

pup_spec loaded(const std::string& text, std::uint32_t processors) {
  auto result = load_made(text, processors);
  if (auto* faults = std::get_if<std::vector<diagnostic>>(&result))
    FAIL(to_string(faults->front()));
  return std::get<pup_spec>(result);
}

std::string octal(std::uint32_t mask) {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%04o", mask);
  return text.data();
}

std::string tidy(const std::string& path) {
  auto result = fs::path{path}.lexically_normal().string();
  while (result.size() > 1 && result.back() == '/')
    result.pop_back();
  return result;
}

life life_of(const process_spec& x, std::uint32_t index) {
  const auto id = x.cluster ? x.id + '-' + std::to_string(index + 1) : x.id;
  const auto port =
      x.cluster && x.cluster->start_port != 0
          ? static_cast<std::uint16_t>(x.cluster->start_port + index)
          : std::uint16_t{0};
  life result;
  for (const auto& word : x.argv)
    result.argv.push_back(x.shell ? word : expand(word, port, index, id));
  result.cwd = x.cwd.empty() ? site : tidy(expand(x.cwd, port, index, id));
  result.umask = octal(x.attributes.umask.value_or(022));
  if (x.attributes.run_as)
    result.user = x.attributes.run_as->name;
  for (const auto& [name, value] : x.env) {
    const auto text = expand(value, port, index, id);
    const auto known = outer.find(name);
    const auto is_users =
        text == home_of_user || text == shell_of_user
        || (text == result.user && (name == "USER" || name == "LOGNAME"));
    if (!is_users && (known == outer.end() || known->second != text))
      result.env[name] = text;
  }
  if (port != 0)
    result.env.emplace("PORT", std::to_string(port));
  return result;
}

bool restarts(const process_spec& x, int code) {
  const auto has = [code](const std::vector<int>& codes) {
    return std::find(codes.begin(), codes.end(), code) != codes.end();
  };
  // Six fields: it is due again before anybody looks.
  if (std::count(x.cron.begin(), x.cron.end(), ' ') == 5)
    return true;
  return !has(x.no_restart_exit_codes)
         && (x.restart == restart_policy::always
             || (x.restart == restart_policy::on_error
                 && !has(x.success_exit_codes)));
}

behaviour behaviour_of(const process_spec& x) {
  behaviour result;
  const auto count = x.cluster ? x.cluster->instances : 1;
  for (std::uint32_t i = 0; i < count; ++i)
    result.lives.push_back(life_of(x, i));
  std::sort(result.lives.begin(), result.lives.end());
  result.after_crash = restarts(x, 1);
  result.after_exit = restarts(x, 0);
  if (!result.after_crash)
    result.tries = 1;
  else if (x.start_limit && x.ready == ready_condition::exec)
    result.tries = std::int64_t{*x.start_limit} + 1;
  return result;
}

/// Names as the file has them: a note tells of each other one.
std::string former_name(const std::string& id, const imported& from) {
  for (const auto& x : from.notes) {
    const auto words = "` became `" + id + '`';
    const auto at = x.text.find(words);
    if (at != std::string::npos && x.text.front() == '`')
      return x.text.substr(1, at - 1);
  }
  return id;
}

outcome planned(const imported& from, std::uint32_t processors) {
  outcome result;
  for (const auto& x : loaded(from.text, processors).processes) {
    if (!x.autostart)
      continue;
    auto made = behaviour_of(x);
    auto& into = result.processes[former_name(x.id, from)];
    made.lives.insert(made.lives.end(), into.lives.begin(), into.lives.end());
    std::sort(made.lives.begin(), made.lives.end());
    into = std::move(made);
  }
  return result;
}

// -- commands of a shell ------------------------------------------------------

/// Runs a command as pup does, with stand-ins that write down how they are
/// called.
class shell {
public:
  shell() {
    std::string pattern = (fs::temp_directory_path() / "pup-import-XXXXXX");
    REQUIRE(::mkdtemp(pattern.data()));
    root_ = fs::canonical(pattern);
    for (const auto* name : {"bin", "app", "worker"})
      fs::create_directories(root_ / name);
  }

  shell(const shell&) = delete;
  shell& operator=(const shell&) = delete;

  ~shell() {
    std::error_code none;
    fs::remove_all(root_, none);
  }

  void offer(const std::string& program) {
    const auto path = program.find('/') == std::string::npos
                          ? root_ / "bin" / program
                          : root_ / program;
    std::ofstream{path} << "#!/bin/sh\n"
                           "[ ! -e \"$SEEN.argv\" ] || exit 0\n"
                           "printf '%s\\0' \"$0\" \"$@\" > \"$SEEN.argv\"\n"
                           "printf '%s\\0' \"$PWD\" > \"$SEEN.cwd\"\n"
                           "/usr/bin/env -0 > \"$SEEN.env\"\n";
    fs::permissions(path, fs::perms::owner_all | fs::perms::group_all
                              | fs::perms::others_exec);
  }

  life run(const life& what, const std::set<std::string>& names) {
    auto env = what.env;
    env["PATH"] = (root_ / "bin").string() + ":/usr/bin:/bin";
    env["SEEN"] = (root_ / "seen").string();
    for (const auto* part : {".argv", ".cwd", ".env"})
      fs::remove(root_ / (std::string{"seen"} + part));
    execute(what.argv, env);
    auto result = what;
    result.argv = seen(".argv");
    // An interpreter gets the whole path of a script.
    const auto bin = (root_ / "bin").string() + '/';
    if (!result.argv.empty() && result.argv[0].starts_with(bin))
      result.argv[0].erase(0, bin.size());
    const auto cwd = seen(".cwd");
    result.cwd = cwd.empty() ? "" : site + cwd[0].substr(root_.string().size());
    result.env.clear();
    for (const auto& entry : seen(".env")) {
      const auto equals = std::min(entry.find('='), entry.size());
      if (names.count(entry.substr(0, equals)) > 0)
        result.env[entry.substr(0, equals)] = entry.substr(equals + 1);
    }
    return result;
  }

private:
  texts seen(const std::string& part) const {
    std::ifstream in{root_ / ("seen" + part), std::ios::binary};
    texts result;
    for (std::string word; std::getline(in, word, '\0');)
      result.push_back(word);
    return result;
  }

  void execute(texts argv, const variables& env) const {
    texts pairs;
    for (const auto& [name, value] : env)
      pairs.push_back(name + '=' + value);
    std::vector<char*> words;
    std::vector<char*> names;
    for (auto& x : argv)
      words.push_back(x.data());
    for (auto& x : pairs)
      names.push_back(x.data());
    words.push_back(nullptr);
    names.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, root_.c_str());
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    pid_t pid = 0;
    REQUIRE(posix_spawn(&pid, words[0], &actions, nullptr, words.data(),
                        names.data())
            == 0);
    posix_spawn_file_actions_destroy(&actions);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
  }

  fs::path root_;
};

/// What the shells of a Procfile's commands come to.
void run_shells(outcome& ours, const outcome& theirs) {
  shell runs;
  std::set<std::string> names;
  for (const auto& [id, x] : theirs.processes)
    for (const auto& y : x.lives) {
      runs.offer(y.argv.at(0));
      for (const auto& [name, value] : y.env)
        names.insert(name);
    }
  for (auto& [id, x] : ours.processes) {
    for (auto& y : x.lives)
      y = runs.run(y, names);
    std::sort(x.lives.begin(), x.lives.end());
  }
}

// -- the comparison -----------------------------------------------------------

std::string shown(const texts& words) {
  std::string result;
  for (const auto& x : words)
    result.append(result.empty() ? "" : " ").append('<' + x + '>');
  return result;
}

std::string shown(const variables& env) {
  std::string result;
  for (const auto& [name, value] : env)
    result.append(result.empty() ? "" : " ").append(name + '=' + value);
  return result;
}

std::string shown(const std::optional<std::int64_t>& tries) {
  return tries ? std::to_string(*tries) : "no end";
}

/// Scripts are named by paths that start at the folder, or by whole ones.
bool is_same(const std::string& a, const std::string& b,
             const std::string& cwd) {
  return a == b || (a.starts_with('/') && tidy(cwd + '/' + b) == a);
}

bool is_same(const life& theirs, const life& ours) {
  // Their first line names node as well.
  static const std::set<std::string> scripts{"npm", "npx", "pnpm", "yarn"};
  const auto skipped = theirs.argv.size() > 1 && theirs.argv[0] == "node"
                       && scripts.count(theirs.argv[1]) > 0;
  return std::equal(
      theirs.argv.begin() + (skipped ? 1 : 0), theirs.argv.end(),
      ours.argv.begin(), ours.argv.end(),
      [&](const auto& a, const auto& b) { return is_same(a, b, ours.cwd); });
}

/// Nobody has waited for so many.
constexpr std::int64_t many_tries = 5;

class comparison {
public:
  explicit comparison(std::vector<difference>& found) : found_(found) {}

  void operator()(const outcome& theirs, const outcome& ours) {
    for (const auto& [name, x] : theirs.processes) {
      const auto same = ours.processes.find(name);
      if (same == ours.processes.end())
        found_.push_back({name, "process", "runs", "does not"});
      else
        compare(name, x, same->second);
    }
    for (const auto& [name, x] : ours.processes)
      if (theirs.processes.count(name) == 0)
        found_.push_back({name, "process", "does not run", "runs"});
  }

private:
  void add(const std::string& name, const std::string& field,
           const std::string& theirs, const std::string& ours) {
    if (theirs != ours)
      found_.push_back({name, field, theirs, ours});
  }

  void compare(const std::string& name, const behaviour& theirs,
               const behaviour& ours) {
    add(name, "count", std::to_string(theirs.lives.size()),
        std::to_string(ours.lives.size()));
    const auto count = std::min(theirs.lives.size(), ours.lives.size());
    for (std::size_t i = 0; i < count; ++i)
      compare(name, theirs.lives[i], ours.lives[i]);
    add(name, "crash", theirs.after_crash ? "starts again" : "stays",
        ours.after_crash ? "starts again" : "stays");
    add(name, "exit", theirs.after_exit ? "starts again" : "stays",
        ours.after_exit ? "starts again" : "stays");
    if (theirs.tries
        || (theirs.has_tried && ours.tries && *ours.tries < many_tries))
      add(name, "tries", shown(theirs.tries), shown(ours.tries));
  }

  void compare(const std::string& name, const life& theirs, const life& ours) {
    if (!is_same(theirs, ours))
      add(name, "argv", shown(theirs.argv), shown(ours.argv));
    add(name, "cwd", tidy(theirs.cwd), ours.cwd);
    add(name, "umask", theirs.umask, ours.umask);
    add(name, "user", theirs.user, ours.user);
    add(name, "env", shown(theirs.env), shown(ours.env));
  }

  std::vector<difference>& found_;
};

struct naming {
  std::string_view field;
  std::string_view key;   ///< of the note's subject
  std::string_view text;  ///< of the note
};
// Which notes name which differences. All of them are needed.
constexpr std::array<naming, 10> namings{{
    {"process", "eventlistener", "no counterpart"},
    {"count", "numprocs", "write its value"},
    {"argv", "numprocs_start", "counts from 0"},
    {"env", "", "must listen on $PORT"},
    {"env", ".env", "variables of the shell"},
    {"crash", "Procfile", "foreman ends all"},
    {"exit", "Procfile", "foreman ends all"},
    {"tries", "autorestart", "within startsecs"},
    {"tries", "max_restarts", "gives up on what ends 16 times"},
    {"tries", "wait_ready", "no counterpart"},
}};

bool is_named(const difference& x, const imported& by,
              const std::string& origin) {
  return std::any_of(
      by.notes.begin(), by.notes.end(), [&](const import_note& note) {
        if (note.subject.find(origin) == std::string::npos)
          return false;
        return std::any_of(
            namings.begin(), namings.end(), [&](const naming& y) {
              return y.field == x.field
                     && note.subject.find(y.key) != std::string::npos
                     && note.text.find(y.text) != std::string::npos;
            });
      });
}

/// What a note calls a process: the place of it in the file.
std::string origin_of(const std::string& kind, const std::string& name,
                      const imported& from) {
  if (kind == "supervisord")
    return ':' + name + ']';
  if (kind == "procfile")
    return {};
  const auto all = loaded(from.text, 1).processes;
  for (std::size_t i = 0; i < all.size(); ++i)
    if (former_name(all[i].id, from) == name)
      return '[' + std::to_string(i) + ']';
  return name;
}

void check(const std::string& name, const json_value& record) {
  INFO(name);
  const auto kind = name.substr(0, name.find('/'));
  const auto file =
      kind == "procfile" ? "Procfile" : name.substr(name.find('/') + 1);
  const auto result =
      import_config(content_of(corpus + '/' + name), file, surroundings());
  const auto* fault = std::get_if<import_fault>(&result);
  INFO((fault ? fault->problem : ""));
  REQUIRE_FALSE(fault);
  const auto& made = std::get<imported>(result);
  INFO(made.text);
  const auto theirs = recorded(record);
  // What its own manager does not take needs a note.
  if (theirs.refused) {
    CHECK_FALSE(made.notes.empty());
    return;
  }
  auto ours = planned(made, theirs.processors);
  if (kind == "procfile")
    run_shells(ours, theirs);
  std::vector<difference> found;
  comparison{found}(theirs, ours);
  std::string notes;
  for (const auto& x : made.notes)
    notes += x.subject + ": " + x.text + '\n';
  INFO(notes);
  for (const auto& x : found) {
    INFO(x.process << ": " << x.field << ": there " << x.theirs << ", here "
                   << x.ours);
    CHECK(is_named(x, made, origin_of(kind, x.process, made)));
  }
}

struct record_file {
  record_file() : text(content_of(corpus + "/record.json")) {
    auto parsed = parse_json(text);
    REQUIRE(std::holds_alternative<json_tree>(parsed));
    tree = std::get<json_tree>(std::move(parsed));
  }

  std::string text;
  json_tree tree;
};

void check_all(const std::string& kind) {
  const record_file record;
  std::set<std::string> names;
  for (const auto& x : json_value{record.tree, 0}.members()) {
    const std::string name{x.key.string()};
    if (!name.starts_with(kind + '/'))
      continue;
    names.insert(name);
    check(name, x.value);
  }
  std::set<std::string> files;
  for (const auto& x : fs::directory_iterator{corpus + '/' + kind})
    files.insert(kind + '/' + x.path().filename().string());
  // Each is recorded: run tests/import/record for a new one.
  CHECK(names == files);
  CHECK(files.size() >= 30);
}

}  // namespace

TEST_CASE("import: a PM2 file means what PM2 does with it, or says so") {
  check_all("pm2");
}

TEST_CASE(
    "import: a supervisord file means what supervisord does with it, or "
    "says so") {
  check_all("supervisord");
}

TEST_CASE("import: a Procfile means what foreman does with it, or says so") {
  check_all("procfile");
}

TEST_CASE("import: what it writes is a configuration, whatever it has read") {
  // The same each time; some lines twice, some gone, some bytes others.
  std::minstd_rand random{20'260};
  const auto below = [&](std::size_t end) {
    return static_cast<std::size_t>(random()) % std::max<std::size_t>(end, 1);
  };
  constexpr std::string_view odd = "\"'%{}()[]#;:=,\\/ \n\t0-9$~*@\x01";
  constexpr int rounds = 12;
  for (const std::string kind : {"pm2", "supervisord", "procfile"})
    for (const auto& x : fs::directory_iterator{corpus + '/' + kind}) {
      const auto whole = content_of(x.path());
      for (int i = 0; i < rounds; ++i) {
        auto text = whole;
        for (std::size_t n = 1 + below(4); n > 0 && !text.empty(); --n)
          switch (below(3)) {
            case 0:
              text[below(text.size())] = odd[below(odd.size())];
              break;
            case 1:
              text.erase(below(text.size()), 1 + below(12));
              break;
            default:
              text.insert(below(text.size()),
                          whole.substr(below(whole.size()), 1 + below(30)));
          }
        const auto name = kind == "procfile" ? std::string{"Procfile"}
                                             : x.path().filename().string();
        const auto result = import_config(text, name, surroundings());
        INFO(text);
        if (const auto* made = std::get_if<imported>(&result)) {
          INFO(made->text);
          const auto judged = load_made(made->text, 2);
          if (auto* faults = std::get_if<std::vector<diagnostic>>(&judged))
            FAIL_CHECK(to_string(faults->front()));
        }
      }
    }
}
