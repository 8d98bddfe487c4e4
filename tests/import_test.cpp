// Other managers' files -> configurations that pup accepts, and what is said
// about the rest.
#include "pup/config/import.hpp"

#include "pup/config/load.hpp"

#include "catch.hpp"

#include <algorithm>

using namespace pup;

namespace {

imported made_of(std::string_view text, const std::string& file) {
  auto result = import_config(text, file);
  if (auto fault = std::get_if<import_fault>(&result))
    FAIL(fault->line << ": " << fault->problem << "; " << fault->remedy);
  return std::get<imported>(result);
}

std::string fault_of(std::string_view text, const std::string& file) {
  auto result = import_config(text, file);
  auto fault = std::get_if<import_fault>(&result);
  return fault ? std::to_string(fault->line) + ": " + fault->problem + "; "
                     + fault->remedy
               : "accepted";
}

// The configuration, which must be valid on a machine that has everything.
pup_spec accepted(const imported& x) {
  world machine;
  machine.variable = [](const std::string& name) {
    return std::optional{"<" + name + ">"};
  };
  machine.folder_problem = [](auto&) { return std::string{}; };
  machine.program_problem = [](auto&...) { return std::string{}; };
  machine.processors = 4;
  INFO(x.text);
  auto result = load(x.text, "pup.json", "/srv", machine);
  if (auto faults = std::get_if<std::vector<diagnostic>>(&result))
    FAIL(to_string(faults->front()));
  return std::get<pup_spec>(result);
}

const process_spec& process(const pup_spec& spec, std::string_view id) {
  for (auto& x : spec.processes)
    if (x.id == id)
      return x;
  FAIL("no process " << id);
  return spec.processes.front();
}

bool says(const imported& x, std::string_view subject, std::string_view text) {
  auto found =
      std::any_of(x.notes.begin(), x.notes.end(), [&](const import_note& n) {
        return n.subject == subject && n.text.find(text) != std::string::npos;
      });
  if (!found)
    for (auto& n : x.notes)
      UNSCOPED_INFO(n.subject << ": " << n.text);
  return found;
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("import: a PM2 ecosystem file") {
  auto result = made_of(R"({
    "apps": [
      {
        "name": "api",
        "script": "./dist/server.js",
        "args": "--verbose --name 'two words'",
        "node_args": ["--max-old-space-size=512"],
        "cwd": "/srv/api",
        "instances": 4,
        "exec_mode": "cluster",
        "env": {"NODE_ENV": "production", "PORT": 3000, "RATE": "100%{x}"},
        "env_staging": {"NODE_ENV": "staging"},
        "autorestart": true,
        "max_restarts": 10,
        "restart_delay": 4000,
        "kill_timeout": 1600,
        "listen_timeout": 8000,
        "wait_ready": true,
        "stop_exit_codes": [0, 3],
        "source_map_support": true,
      },
      {"name": "mail worker", "script": "worker.py", "interpreter": "python3",
       "autorestart": false, "exec_mode": "fork", "instances": 1},
      {"script": "npm start"},
      {"name": "bin", "script": "./run", "interpreter": "none",
       "watch": true, "ignore_watch": ["node_modules"]},
      {"name": "workers", "script": "w.js", "instances": "max"},
      {"name": "counted", "script": "c.js", "instances": 2,
       "increment_var": "PORT", "env": {"PORT": "7000"},
       "instance_var": "NUMBER"},
    ],
    "deploy": {}
  })",
                        "ecosystem.json");
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 6);
  auto& api = process(spec, "api");
  CHECK(api.argv
        == texts{"node", "--max-old-space-size=512", "./dist/server.js",
                 "--verbose", "--name", "two words"});
  CHECK(api.cwd == "/srv/api");
  CHECK(api.env
        == std::map<std::string, std::string>{{"NODE_ENV", "production"},
                                              {"NODE_APP_INSTANCE", "%{index}"},
                                              {"RATE", "100%%{x}"}});
  REQUIRE(api.cluster);
  CHECK(api.cluster->instances == 4);
  CHECK(api.cluster->common_port == 3000);
  CHECK(api.cluster->start_port == 20000);
  CHECK(api.restart_limit == 10u);
  CHECK(api.restart_delay == std::chrono::milliseconds{4000});
  CHECK(api.terminate_timeout == std::chrono::milliseconds{1600});
  CHECK(api.ready_timeout == std::chrono::milliseconds{8000});
  CHECK(api.no_restart_exit_codes == std::vector{0, 3});
  CHECK(process(spec, "mail-worker").argv == texts{"python3", "worker.py"});
  CHECK(process(spec, "mail-worker").restart == restart_policy::never);
  CHECK(process(spec, "npm-start").argv == texts{"/bin/sh", "-c", "npm start"});
  CHECK(process(spec, "bin").argv == texts{"./run"});
  CHECK(process(spec, "bin").watch == texts{"/srv"});
  CHECK(process(spec, "bin").autostart);
  CHECK(process(spec, "workers").cluster->instances == 4);
  auto& counted = process(spec, "counted");
  CHECK(counted.cluster->start_port == 7000);
  CHECK(counted.cluster->common_port == 0);
  CHECK(counted.env
        == std::map<std::string, std::string>{{"NUMBER", "%{index}"}});

  CHECK(says(result, "apps[0].env_staging", "--env staging"));
  CHECK(says(result, "apps[0].source_map_support", "no counterpart"));
  CHECK(says(result, "apps[0].wait_ready", "process.send"));
  CHECK(says(result, "apps[0]", "listens on 3000"));
  CHECK(says(result, "apps[1]", "`mail worker` became `mail-worker`"));
  CHECK(says(result, "apps[3].ignore_watch", "watcher.skip"));
  CHECK(says(result, "deploy", "no counterpart"));
}

TEST_CASE("import: one application, an array of them, the word pm2") {
  CHECK(accepted(made_of(R"({"script": "a.js"})", "x.json")).processes[0].id
        == "a");
  CHECK(
      accepted(made_of(R"([{"script": "a.js"}, {"script": "b.sh"}])", "x.json"))
          .processes[1]
          .argv
      == texts{"bash", "b.sh"});
  CHECK(accepted(made_of(R"({"name": "p", "pm2": [{"script": "a.ts"}]})",
                         "package.json"))
            .processes[0]
            .argv
        == texts{"bun", "a.ts"});
}

TEST_CASE("import: ids become unique, and never those of instances") {
  auto result = made_of(R"([
    {"name": "web", "script": "a.js", "instances": 3},
    {"name": "web-2", "script": "b.js"},
    {"name": "web", "script": "c.js"},
    {"name": "all", "script": "d.js"},
    {"name": "-x", "script": "e.js"}])",
                        "x.json");
  auto spec = accepted(result);
  std::vector<std::string> ids;
  for (auto& x : spec.processes)
    ids.push_back(x.id);
  CHECK(ids == texts{"web", "web_2", "web_3", "process", "x"});
}

TEST_CASE("import: a supervisord configuration") {
  auto result = made_of(R"(; the usual head
[unix_http_server]
file=/tmp/supervisor.sock   ; path

[supervisord]
identifier = backend
logfile=/tmp/supervisord.log

[program:worker]
command=/usr/bin/python3 -m worker --queue="high priority" --n %(process_num)02d --at 50%%
process_name=%(program_name)s_%(process_num)02d
numprocs=3
directory=/srv/worker
environment=HOME="%(ENV_HOME)s",MODE='a,b',
    DEBUG=0
autostart=false
autorestart=unexpected
startretries=5
exitcodes=0,2
stopsignal=QUIT
stopwaitsecs=20
stopasgroup=true
priority=20
serverurl=AUTO

[program:db]
command=/usr/local/bin/db ; serve
priority=10
autorestart=true
stopsignal=KILL

[eventlistener:mail]
command=crashmail

[group:all]
programs=worker,db

[include]
files = conf.d/*.conf
)",
                        "/etc/supervisord.conf");
  auto spec = accepted(result);
  CHECK(spec.name == "backend");
  REQUIRE(spec.processes.size() == 2);
  CHECK(spec.processes[0].id == "db");  // by priority
  CHECK(spec.processes[0].argv == texts{"/usr/local/bin/db"});
  CHECK(spec.processes[0].restart == restart_policy::always);
  CHECK(spec.processes[0].terminate_timeout.count() == 0);
  auto& worker = spec.processes[1];
  CHECK(worker.argv
        == texts{"/usr/bin/python3", "-m", "worker", "--queue=high priority",
                 "--n", "%{index}", "--at", "50%"});
  CHECK(worker.cluster->instances == 3);
  CHECK(worker.cwd == "/srv/worker");
  CHECK(worker.env
        == std::map<std::string, std::string>{
            {"HOME", "<HOME>"}, {"MODE", "a,b"}, {"DEBUG", "0"}});
  CHECK_FALSE(worker.autostart);
  CHECK(worker.restart == restart_policy::on_error);
  CHECK(worker.restart_limit == 5u);
  CHECK(worker.success_exit_codes == std::vector{0, 2});
  CHECK(worker.stop_signal == 3);
  CHECK(worker.terminate_timeout == std::chrono::seconds{20});
  CHECK(says(result, "[program:worker] serverurl", "no counterpart"));
  CHECK(says(result, "[program:worker] command", "leading zeros"));
  CHECK(says(result, "[program:db] stopsignal", "SIGKILL at once"));
  CHECK(says(result, "[eventlistener:mail]", "no counterpart"));
  CHECK(says(result, "[group:all]", "left out"));
  CHECK(says(result, "[include]", "conf.d/*.conf"));
}

TEST_CASE("import: a Procfile") {
  auto result = made_of(R"(# comment
web: bundle exec puma -p $PORT
worker:  bundle exec sidekiq
release: rake db:migrate
)",
                        "Procfile");
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 3);
  CHECK(spec.processes[0].argv
        == texts{"/bin/sh", "-c", "bundle exec puma -p $PORT"});
  CHECK(spec.processes[0].env
        == std::map<std::string, std::string>{{"PORT", "5000"}});
  CHECK(spec.processes[1].env.empty());
  CHECK(spec.processes[2].restart == restart_policy::never);
}

TEST_CASE("import: a pup.json of Hexagon Pup keeps its defaults") {
  auto result = made_of(R"({
    // with comments
    "$schema": "https://deno.land/x/pup/docs/pup.schema.json",
    "name": "basic",
    "logger": {"colors": true},
    "plugins": [],
    "processes": [
      {"id": "server", "cmd": "deno run --allow-net ./server.ts",
       "autostart": true, "restart": "always", "restartLimit": 3,
       "env": {"TZ": "Europe/Berlin"}},
      {"id": "idle", "cmd": "sleep 1" /* never starts */},
      {"id": "w", "worker": ["./worker.ts"], "autostart": true},
      {"id": "pool", "cmd": "deno run s.ts", "autostart": true,
       "cluster": {"instances": 3, "commonPort": 3456, "startPort": 9500,
                   "strategy": "ip-hash"}},
    ]})",
                        "pup.jsonc");
  auto spec = accepted(result);
  CHECK(spec.name == "basic");
  REQUIRE(spec.processes.size() == 4);
  CHECK(spec.processes[0].restart == restart_policy::always);
  CHECK(spec.processes[0].autostart);
  CHECK(spec.processes[1].restart == restart_policy::never);
  CHECK_FALSE(spec.processes[1].autostart);
  CHECK(spec.processes[2].argv == texts{"deno", "run", "-A", "./worker.ts"});
  CHECK(spec.processes[3].cluster->strategy
        == balance_strategy::source_ip_hash);
  CHECK(says(result, "processes[1]", "no start policy"));
  CHECK(says(result, "plugins", "no counterpart"));
}

TEST_CASE("import: what a pup.json says of logs and watched files is kept") {
  auto result = made_of(R"({
    "logger": {"decorateFiles": false, "internalLogHours": 5, "shout": true},
    "watcher": {
      "interval": 750, // of quiet
      "exts": [".ts", "css"],
      "match": ["src/**/*.*"],
      "skip": ["**/.git/**", "dist"],
      "polling": true,
    },
    "processes": [{"id": "a", "cmd": "deno run a.ts", "watch": ["./"]}]})",
                        "pup.json");
  auto spec = accepted(result);
  CHECK(spec.watcher.interval == std::chrono::milliseconds{750});
  CHECK(spec.watcher.exts == texts{"ts", "css"});
  CHECK(spec.watcher.match == texts{"src/**/*.*"});
  CHECK(spec.watcher.skip == texts{"**/.git/**", "dist"});
  CHECK(spec.processes[0].watch == texts{"/srv"});
  CHECK(spec.processes[0].watcher == spec.watcher);
  CHECK_FALSE(spec.logger.output.decorate_files);
  CHECK(spec.logger.internal_log == std::chrono::hours{5});
  CHECK(says(result, "watcher.polling", "no counterpart"));
  CHECK(says(result, "logger.shout", "no counterpart"));
}

TEST_CASE("import: without a watcher Pup's endings count") {
  auto one = [](const std::string& more) {
    return made_of("{" + more
                       + R"("processes": [{"id": "a", "cmd": "x", "watch":
                            ["."]}, {"id": "b", "cmd": "x"}]})",
                   "pup.json");
  };
  auto plain = one("");
  CHECK(accepted(plain).watcher.exts
        == texts{"ts", "tsx", "js", "jsx", "json"});
  CHECK(says(plain, "watcher.exts", "all files count"));
  CHECK(accepted(plain).watcher.skip == watcher_spec{}.skip);
  CHECK(accepted(one(R"("watcher": {"exts": []},)")).watcher.exts.empty());
  auto odd = one(R"("watcher": true,)");
  CHECK(says(odd, "watcher", "is no object"));
  CHECK(accepted(odd).watcher.exts.size() == 5);
  // Who watches nothing is told nothing.
  auto none = made_of(R"({"processes": [{"id": "b", "cmd": "x",
    "autostart": true, "restart": "always"}]})",
                      "pup.json");
  CHECK(none.text.find("watcher") == std::string::npos);
  CHECK(none.notes.empty());
}

TEST_CASE("import: what cannot be read is refused with its line") {
  CHECK(fault_of("", "Procfile")
        == "1: the file is empty; name a file that says more");
  CHECK(fault_of("module.exports = {apps: []}", "ecosystem.config.js")
        == "1: is a program, not data; make JSON of it: node -p "
           "'JSON.stringify(require(\"./ecosystem.config.js\"))' > "
           "ecosystem.json");
  CHECK(fault_of("{\n\"a\": 1}", "x.json")
        == "1: has neither `apps` (PM2) nor `processes` (Pup); name an "
           "ecosystem file, a supervisord .conf, a Procfile or a pup.json");
  CHECK(fault_of("{\"apps\": [\n}", "x.json").starts_with("2: "));
  CHECK(fault_of("web: a\nnonsense\n", "Procfile")
        == "2: is not \"name: command\"; name an ecosystem file, a supervisord "
           ".conf, a Procfile or a pup.json");
  CHECK(fault_of("[program:a\n", "s.conf")
        == "1: `[program:a` has no closing ]; close it");
  CHECK(fault_of("[program:a]\nnonsense\n", "s.conf")
        == "2: `nonsense` is not \"key=value\"; correct it first");
  CHECK(fault_of("[supervisord]\n", "s.conf")
        == "1: has no [program:...] with a command; name the file that has "
           "them");
}
