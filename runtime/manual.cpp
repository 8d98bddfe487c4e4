#include "pup/runtime/manual.hpp"

#include "pup/config/words.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace pup {

namespace {

constexpr std::string_view entry_options =
    "--id --cmd --cwd --env --watch --cron --terminate --instances "
    "--start-port --common-port --strategy";

constexpr std::string_view entry_details = R"(
  --id ID              how it is called
  --cmd 'COMMAND'      a shell command; or behind --: program and arguments
  --cwd FOLDER         where it runs
  --env NAME=VALUE     any number of times
  --watch PATH         restart it when a file there changes; any number of times
  --cron 'EXPRESSION'  start it by the clock;  --terminate: stop it by the clock
  --instances N, --start-port N, --common-port N, --strategy WORD: a cluster
)";

constexpr std::string_view init_details = R"(
Writes pup.json, or the file of --config, with comments that explain the rest.
A file that exists is left alone.
)";

constexpr std::string_view append_details = R"(
Appends a process to pup.json, pup.jsonc or config.json here, or to the file of
--config. Comments and layout stay; a file that would be wrong is not written.
)";

constexpr std::string_view log_details = R"(
  -n LINES             the last lines (monitor: before it goes on live)
  --severity LIST      of info, warn and error
  --start TIME, --end TIME
  --json               an object for each line
)";

constexpr std::array<command_help, 27> table{{
    {"start", "start CONFIG | ID|all",
     "start a supervisor in the background, or what it has", R"(
With a configuration: starts a supervisor in the background, waits until all is
ready and prints the table. With an id: starts what is stopped, finished,
failed or exhausted.

  pup start config.json
  pup start 'web-*'
)",
     "", 'b'},
    {"run", "run [CONFIG | -- CMD ARGS]", "the same in the foreground", R"(
For systemd, containers and terminals. Without a configuration it looks for
pup.json, pup.jsonc and config.json here; or it runs one command without any:

  pup run -- node server.js
  pup run --cmd 'npm start' --watch .
  pup run --instances 4 --start-port 8000 --common-port 3000 -- ./server
)",
     "--id --cmd --cwd --env --watch --cron --terminate --instances "
     "--start-port --common-port --strategy",
     'f'},
    {"status", "status [ID] [--json]", "what runs (also: pup ls)", "", "--json",
     'i'},
    {"ls", "ls [ID] [--json]", "the same as status", "", "--json", 'i'},
    {"why", "why ID [--json]", "why it is as it is, and what comes next", R"(
Who asked for what and why, how each life ended, which rule has acted, the last
lines of its output, and what comes next and when.

  pup why web-2
)",
     "--json", 'i'},
    {"scale", "scale ID N|+N|-N", "change the number of instances", R"(
Waits until new instances are ready and old ones have finished their
connections. The same: pup --id ID --instances N

  pup scale my-app 6
  pup scale my-app +2
)",
     "", 'i'},
    {"stop", "stop ID|all", "withdraw, drain, stop signal, SIGKILL", "", "",
     'i'},
    {"restart", "restart ID|all", "stop, then start", "", "", 'i'},
    {"reload", "reload ID|all", "replace what runs without a failed request",
     R"(
Instance by instance: a spare is started first, and each old one finishes its
connections before its successor starts (maxSurge and maxUnavailable of the
configuration say otherwise). A new one that does not become ready stops the
reload: the others go on as before, exit code 1.

  pup reload web
  pup reload web-3
)",
     "", 'i'},
    {"block", "block ID|all", "nothing starts it again until it is unblocked",
     R"(
What runs goes on. Neither restarts, schedules nor commands start it again.
)",
     "", 'i'},
    {"unblock", "unblock ID|all", "undo block; what should run is started", "",
     "", 'i'},
    {"signal", "signal ID SIGNAL", "send a signal to what runs", R"(
To the process group of each, by name or number:

  pup signal web HUP
)",
     "", 'i'},
    {"apply", "apply CONFIG", "make what runs match the file", R"(
Stops, starts, scales and reloads only what has changed, without a failed
request. --dry-run only shows the plan. Faults of the file change nothing; what
does not come up as it is in the file goes on as it was.

  pup apply config.json --dry-run
)",
     "--dry-run", 'f'},
    {"validate", "validate CONFIG", "check a configuration, all faults at once",
     "", "", 'f'},
    {"logs", "logs [ID]", "stored output, also of what has ended", log_details,
     "--id --severity -n --start --end --json", 'i'},
    {"monitor", "monitor [ID]", "output as it comes", log_details,
     "--id --severity -n --start --end --json", 'i'},
    {"terminate", "terminate", "stop everything in reverse order and end", "",
     "", ' '},
    {"upgrade", "upgrade", "go on with the program that is on the disk now", R"(
The supervisor makes room for one from the program that is now on the disk by
the path it was started from. Processes, ports, open connections, counts and
logs go on: nothing is restarted. If the new program does not come up, the
former one goes on. The signal SIGUSR2 to the supervisor does the same.

  pup upgrade
)",
     "", ' '},
    {"init", "init [-- CMD ARGS]", "write a first configuration", init_details,
     entry_options, ' '},
    {"append", "append --id ID [-- CMD ARGS]", "add a process to the file",
     append_details, entry_options, ' '},
    {"remove", "remove ID", "take a process out of the file", R"(
From pup.json, pup.jsonc or config.json here, or the file of --config. What runs
is not touched. Comments and layout stay.
)",
     "--id", ' '},
    {"import", "import FILE [-o FILE]", "read another manager's file", R"(
Reads a PM2 ecosystem file (JSON) or ~/.pm2/dump.pm2, a supervisord .conf with
what it includes, a Procfile or a pup.json of Hexagon Pup, and writes a
configuration to standard output or -o FILE. It means what the file means there,
defaults of the other manager included; what cannot be kept is listed on
standard error.

  pup import ecosystem.json -o pup.json
)",
     "--output", 'f'},
    {"enable-service", "enable-service [CONFIG]", "start at boot, by systemd",
     R"(
Writes a unit that runs the configuration, enables and starts it: a unit of
yours, or with --system one of the machine (as root; --user NAME runs it as
somebody else). --name NAME names it, --dry-run only shows it.

With --socket systemd listens on the common ports (mode proxy): also below 1024
for a --user, and clients wait while pup is restarted. It starts pup for them.
)",
     "--system --user --socket --dry-run", 'f'},
    {"disable-service", "disable-service", "undo enable-service", "",
     "--system --dry-run", ' '},
    {"completion", "completion bash|zsh|fish", "a script for your shell", R"--(
  bash: eval "$(pup completion bash)"             in ~/.bashrc
  zsh:  eval "$(pup completion zsh)"              in ~/.zshrc, after compinit
  fish: pup completion fish | source              in ~/.config/fish/config.fish
)--",
     "", 's'},
    {"help", "help [COMMAND]", "this, or more about a command", "", "", 'c'},
    {"version", "version", "which pup this is", "", "", ' '},
}};

constexpr std::string_view shared_options =
    "--name --config --timeout --no-wait --help --version";

const command_help* find(std::string_view name) {
  const auto i = std::find_if(table.begin(), table.end(),
                              [&](const auto& x) { return x.name == name; });
  return i == table.end() ? nullptr : &*i;
}

}  // namespace

std::span<const command_help> all_commands() {
  return table;
}

std::string_view common_options() {
  return shared_options;
}

std::string help_text() {
  return R"(pup runs, scales and balances processes.

  start CONFIG       start a supervisor in the background, wait for ready
  run [CONFIG]       the same in the foreground; or one command: run -- CMD ARGS
  status [ID]        what runs (also: pup ls); why ID: why so; --json for both
  scale ID N|+N|-N   change a cluster       (also: pup --id ID --instances N)
  start|stop|restart|reload|block|unblock ID|all, signal ID SIGNAL
                     ID: a process, a cluster, an instance or a glob 'web-*'
  apply CONFIG       make what runs match the file; --dry-run: only the plan
  validate CONFIG    check a configuration; import FILE: from PM2 and others
  logs|monitor [ID]  stored output; output as it comes
  terminate, upgrade stop everything and end; go on with a new version of pup
  init, append, remove               edit the configuration here
  enable-service, disable-service    start at boot, by systemd
  completion SHELL   for bash, zsh, fish; help COMMAND: more about one

Which supervisor: --name NAME or --config FILE; else the one started from this
folder (none, where that does not run); else the only one, or that with the id.
--no-wait: do not wait until it is done. --timeout S: wait no longer. --version.
Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 not running.

  pup start config.json
  pup scale my-app 6
)";
}

std::string help_text(std::string_view name) {
  const auto* x = find(name);
  if (x == nullptr)
    return {};
  auto result =
      "pup " + std::string{x->usage} + "\n  " + std::string{x->summary} + '\n';
  result += x->details;
  if (x->options == entry_options)
    result += entry_details;
  else if (!x->options.empty())
    result.append("\nOptions: ").append(x->options).append("\n");
  return result;
}

std::string unknown_command(std::string_view word) {
  std::vector<std::string_view> words;
  for (const auto& x : table)
    words.push_back(x.name);
  const auto near = nearest(word, words);
  return quote(word, '\'') + " is no command; "
         + (near ? "did you mean " + quote(*near, '\'') + '?'
                 : "pup --help lists them");
}

}  // namespace pup
