// Other managers' files -> configurations that pup accepts, and what is said
// about the rest.
#include "pup/config/import.hpp"

#include "pup/config/load.hpp"

#include "catch.hpp"

#include <algorithm>

using namespace pup;

namespace {

imported made_of(std::string_view text, const std::string& file,
                 const import_surroundings& around = {}) {
  auto result = import_config(text, file, around);
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
  CHECK_FALSE(api.restart_limit);
  CHECK(api.restart_delay == std::chrono::milliseconds{4000});
  CHECK(api.restart_max_delay == std::chrono::milliseconds{4000});
  CHECK(api.terminate_timeout == std::chrono::milliseconds{1600});
  CHECK(api.ready_timeout == std::chrono::milliseconds{8000});
  CHECK(api.no_restart_exit_codes == std::vector{0, 3});
  CHECK(process(spec, "mail-worker").argv == texts{"python3", "worker.py"});
  CHECK(process(spec, "mail-worker").restart == restart_policy::never);
  CHECK(process(spec, "npm-start").argv == texts{"bash", "-c", "npm start"});
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
  CHECK_FALSE(worker.restart_limit);
  CHECK(worker.start_limit == 5u);
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
  CHECK(spec.processes[1].env
        == std::map<std::string, std::string>{{"PORT", "5100"}});
  CHECK(spec.processes[2].env
        == std::map<std::string, std::string>{{"PORT", "5200"}});
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
    return made_of(
        "{" + more + R"("processes": [{"id": "a", "cmd": "x", "watch":
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
  CHECK(fault_of("module.exports = {apps: []}", "my eco.config.js")
        == "1: is a program, not data; make JSON of it: node -e "
           "'import(require(\"url\").pathToFileURL(process.argv[1])).then(m "
           "=> console.log(JSON.stringify(m.default?.default ?? m.default ?? "
           "m)))' -- 'my eco.config.js' > ecosystem.json");
  CHECK(fault_of("export default {apps: []}", "-it's.mjs")
            .find("-- '-it'\\''s.mjs' > ecosystem.json")
        != std::string::npos);
  CHECK(fault_of("const path = require('path')", "x")
            .starts_with("1: is a program"));
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

TEST_CASE("import: what is no Procfile is not taken for one") {
  CHECK(fault_of("version: '3'\nservices:\n  web:\n    image: nginx\n",
                 "docker-compose.yml")
        == "1: is a compose file, not a Procfile; write each service that is a "
           "program of this machine into a pup.json with pup init and pup "
           "append");
  CHECK(fault_of("# what runs\nname: shop\nservices:\n    db:\n        image: "
                 "x\n",
                 "stack")
            .starts_with("3: is a compose file, not a Procfile"));
  CHECK(fault_of("apps:\n- script: a.js\n", "ecosystem.config.yml")
        == "1: is YAML, not a Procfile; make JSON of it: npx js-yaml "
           "ecosystem.config.yml > ecosystem.json");
  CHECK(fault_of("---\nweb: x\n", "x").starts_with("1: is YAML"));
  CHECK(fault_of("[Unit]\nDescription=x\n", "x.service")
            .starts_with("1: is a systemd unit"));
  // foreman passes over it.
  CHECK(fault_of("web: a\n  worker: b\n", "Procfile")
        == "2: begins with a blank; remove the blank, or the line");
  CHECK(fault_of("web:\nworker: b\n", "Procfile")
        == "1: has no command; write one or remove it");
}

TEST_CASE("import: a Procfile has foreman's variables, and says whose ends") {
  auto result = made_of("web: a\n#off: b\nclock: c\nweb: d\n", "Procfile");
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 3);
  CHECK(spec.processes[1].env.at("PORT") == "5100");
  CHECK(spec.processes[2].id == "web_2");
  CHECK(spec.processes[2].env.at("PORT") == "5200");
  CHECK(result.text.find(R"("envFile": ["-.env"])") != std::string::npos);
  CHECK(says(result, "Procfile", "foreman ends all with the first"));
  CHECK(says(result, "Procfile", "PS, its name of the process, is not set"));
}

TEST_CASE("import: PM2 runs a job at its start and by the clock") {
  auto result = made_of(R"([
    {"name": "job", "script": "a.js", "autorestart": false,
     "cron_restart": "0 3 * * *"},
    {"name": "fresh", "script": "a.js", "cron_restart": "0 4 * * *"},
    {"name": "later", "script": "a.js", "autostart": false,
     "cron_restart": "@daily"},
    {"name": "none", "script": "a.js", "cron_restart": "0"},
    {"name": "odd", "script": "a.js", "cron_restart": "0 99 * * *"},
    {"name": "ended", "script": "a.js", "cron": "0 5 * * *",
     "stop_exit_codes": [0]}])",
                        "x.json");
  auto spec = accepted(result);
  auto& job = process(spec, "job");
  CHECK(job.cron == "0 3 * * *");
  CHECK(job.terminate_cron.empty());
  CHECK(job.autostart);
  CHECK(job.restart == restart_policy::never);
  CHECK(says(result, "apps[0].cron_restart", "PM2 ends it first"));
  CHECK(process(spec, "fresh").terminate_cron == "0 4 * * *");
  CHECK(process(spec, "fresh").restart == restart_policy::always);
  CHECK(process(spec, "later").cron == "@daily");
  CHECK_FALSE(process(spec, "later").autostart);
  CHECK(process(spec, "later").restart == restart_policy::always);
  CHECK(process(spec, "none").cron.empty());
  CHECK(process(spec, "none").terminate_cron.empty());
  CHECK(process(spec, "odd").terminate_cron.empty());
  CHECK(says(result, "apps[4].cron_restart", "it was left out"));
  CHECK(says(result, "apps[5].cron_restart", "stop_exit_codes; PM2 does"));
}

TEST_CASE("import: PM2 shares one port among instances of node alone") {
  auto result = made_of(R"([
    {"name": "shared", "script": "a.js", "instances": 2,
     "env": {"PORT": 3000}},
    {"name": "max", "script": "bin/www", "instances": "max",
     "env": {"PORT": 4000}},
    {"name": "forked", "script": "a.js", "instances": 2, "exec_mode": "fork",
     "env": {"PORT": 5000}},
    {"name": "python", "script": "a.py", "instances": 2,
     "env": {"PORT": 6000}},
    {"name": "alone", "script": "a.js", "instances": 1, "port": 7000},
    {"name": "tool", "script": "npm", "args": "start", "instances": 2,
     "env": {"PORT": 8000}},
    {"name": "wrong", "script": "a.rb", "instances": 2, "execMode": "cluster",
     "env": {"PORT": 9000}},
    {"name": "few", "script": "a.js", "instances": -1}])",
                        "x.json");
  auto spec = accepted(result);
  CHECK(process(spec, "shared").cluster->common_port == 3000);
  CHECK(process(spec, "shared").cluster->start_port == 20000);
  CHECK(process(spec, "shared").env.count("PORT") == 0);
  CHECK(says(result, "apps[0]", "each instance must listen on $PORT"));
  CHECK(process(spec, "max").argv == texts{"node", "bin/www"});
  CHECK(process(spec, "max").cluster->instances == 4);
  CHECK(process(spec, "max").cluster->common_port == 4000);
  for (auto id : {"forked", "python"}) {
    CHECK(process(spec, id).cluster->common_port == 0);
    CHECK(process(spec, id).cluster->start_port == 0);
  }
  CHECK(process(spec, "forked").env.at("PORT") == "5000");
  CHECK(process(spec, "python").env.at("PORT") == "6000");
  CHECK(says(result, "apps[3].instances", "the same PORT"));
  CHECK_FALSE(process(spec, "alone").cluster);
  CHECK(process(spec, "alone").env.at("PORT") == "7000");
  CHECK(process(spec, "alone").env.at("NODE_APP_INSTANCE") == "%{index}");
  CHECK(process(spec, "tool").cluster->common_port == 8000);
  CHECK(says(result, "apps[6].exec_mode", "clusters of node programs only"));
  CHECK(says(result, "apps[7].instances", "one for each processor"));
}

TEST_CASE("import: PM2 runs with node what is no program") {
  import_surroundings around;
  around.script_at = [](const std::string& path) {
    using kind = import_surroundings::script;
    return path == "bin/www"           ? kind::text
           : path == "/srv/app/server" ? kind::program
                                       : kind::unknown;
  };
  auto result = made_of(R"([
    {"name": "www", "script": "bin/www", "node_args": "--inspect"},
    {"name": "server", "script": "server", "cwd": "/srv/app", "args": "-v",
     "node_args": "--inspect"},
    {"name": "gone", "script": "bin/gone"},
    {"name": "path", "script": "python3", "args": ["-m", "x"]},
    {"name": "plain", "script": "bin/www", "interpreter": "none"},
    {"name": "old", "script": "a.js", "interpreter": "node@18"},
    {"name": "typed", "script": "a.ts"},
    {"name": "words", "script": "python3 a.py", "args": "lost"},
    {"name": "py", "script": "a.py",
     "args": "--x=\"a b\" 'c d' --open 'e"}])",
                        "x.json", around);
  auto spec = accepted(result);
  CHECK(process(spec, "www").argv == texts{"node", "--inspect", "bin/www"});
  CHECK(process(spec, "server").argv == texts{"./server", "-v"});
  CHECK(process(spec, "gone").argv == texts{"node", "bin/gone"});
  CHECK(says(result, "apps[2].script", "take `node` out of `cmd`"));
  CHECK(process(spec, "path").argv == texts{"python3", "-m", "x"});
  CHECK(process(spec, "plain").argv == texts{"bin/www"});
  CHECK(process(spec, "old").argv == texts{"node", "a.js"});
  CHECK(says(result, "apps[5].interpreter", "one of nvm's"));
  CHECK(says(result, "apps[6].script", "bun"));
  CHECK(process(spec, "words").argv == texts{"bash", "-c", "python3 a.py"});
  CHECK(says(result, "apps[7].args", "no effect"));
  // Quotes inside of a word stay, as PM2 leaves them.
  CHECK(process(spec, "py").argv
        == texts{"python3", "a.py", "--x=\"a b\"", "c d", "--open", "'e"});
  CHECK(process(spec, "py").env.at("PYTHONUNBUFFERED") == "1");
}

TEST_CASE("import: PM2's logs, and what it writes into them") {
  auto result = made_of(R"([
    {"name": "null", "script": "a.js", "out_file": "NULL",
     "error_file": "/dev/null"},
    {"name": "both", "script": "a.js", "log_file": "all.log", "time": true},
    {"name": "three", "script": "a.js", "cwd": "/srv/app",
     "log_file": "all.log", "outFile": "out.log", "error": "~/err.log",
     "log_type": "json"},
    {"name": "many", "script": "a.js", "instances": 2, "pid_file": "a.pid",
     "out_file": "logs/out.log", "merge_logs": false,
     "log_date_format": "YYYY"},
    {"name": "silent", "script": "a.js", "out_file": "x.log",
     "disable_logs": true},
    {"name": "timed", "script": "a.js", "time": true},
    {"name": "watched", "script": "a.js", "cwd": "/srv/app", "watch": true,
     "pid_file": "a.pid"},
    {"name": "some", "script": "a.js", "cwd": "/srv/app",
     "watch": ["src", "/etc/x", "lib/*.js"]}])",
                        "x.json");
  auto spec = accepted(result);
  CHECK(process(spec, "null").output == output_spec{});
  CHECK(says(result, "apps[0].out_file, apps[4].out_file", "all the same"));
  CHECK(process(spec, "both").output.stdout_file == "/srv/all.log");
  CHECK(process(spec, "both").output.stderr_file.empty());
  CHECK(process(spec, "both").output.decorate_files);
  CHECK(says(result, "apps[1].time, apps[3].log_date_format",
             "begins with time, id and stream"));
  CHECK(process(spec, "three").output.stdout_file == "/srv/app/out.log");
  CHECK(result.text.find(R"("stderr": "%{env:HOME}/err.log")")
        != std::string::npos);
  CHECK(process(spec, "three").output.json);
  CHECK(says(result, "apps[2].log_file", "each stream to one file"));
  CHECK(process(spec, "many").output.stdout_file
        == "/srv/logs/out-%{index}.log");
  CHECK(process(spec, "many").pid_file == "/srv/a-%{index}.pid");
  CHECK(says(result, "apps[3].error_file", "standard error goes to the file"));
  CHECK(process(spec, "silent").output == output_spec{});
  CHECK(process(spec, "timed").output == output_spec{});
  // Relative paths start at the folder of the application.
  CHECK(process(spec, "watched").watch == texts{"/srv/app"});
  CHECK(process(spec, "watched").pid_file == "/srv/app/a.pid");
  CHECK(process(spec, "some").watch == texts{"/srv/app/src", "/etc/x"});
  CHECK(says(result, "apps[7].watch", "is a pattern"));
}

TEST_CASE("import: PM2 stops and gives up by its own defaults") {
  auto result = made_of(R"([
    {"name": "plain", "script": "a.js"},
    {"name": "bound", "script": "a.js", "max_restarts": 5,
     "min_uptime": "20s"},
    {"name": "slow", "script": "a.js", "max_restarts": 5,
     "restart_delay": 3000},
    {"name": "never", "script": "a.js", "max_restarts": 0,
     "stop_exit_codes": 0, "kill_timeout": 0, "autorestart": false},
    {"name": "grow", "script": "a.js", "exp_backoff_restart_delay": 200},
    {"name": "kept", "script": "a.js", "kill_timeout": 3000,
     "treekill": false, "max_memory_restart": "100K"},
    {"name": "other", "script": "a.js", "user": "www", "filter_env": true}])",
                        "x.json");
  auto spec = accepted(result);
  auto& plain = process(spec, "plain");
  CHECK(plain.stop_signal == 2);
  CHECK(plain.terminate_timeout == std::chrono::milliseconds{1600});
  CHECK_FALSE(plain.start_limit);
  CHECK(says(result,
             "apps[0].max_restarts, apps[5].max_restarts, "
             "apps[6].max_restarts",
             "gives up on what ends 16 times"));
  auto& bound = process(spec, "bound");
  CHECK(bound.start_limit == 4u);
  CHECK_FALSE(bound.restart_limit);
  CHECK(bound.ready == ready_condition::exec);
  CHECK(bound.ready_command.argv == texts{"/bin/sleep", "20"});
  CHECK(bound.ready_timeout == std::chrono::seconds{50});
  CHECK_FALSE(process(spec, "slow").start_limit);
  CHECK(process(spec, "slow").restart_max_delay == std::chrono::seconds{3});
  CHECK(says(result, "apps[2].max_restarts", "has no effect in PM2"));
  // What is 0 is as if it were not there.
  CHECK(process(spec, "never").no_restart_exit_codes.empty());
  CHECK(process(spec, "never").terminate_timeout
        == std::chrono::milliseconds{1600});
  CHECK(process(spec, "never").restart == restart_policy::never);
  CHECK(process(spec, "grow").restart_delay == std::chrono::milliseconds{200});
  CHECK(process(spec, "grow").restart_max_delay == std::chrono::seconds{15});
  CHECK(process(spec, "kept").terminate_timeout == std::chrono::seconds{3});
  CHECK(process(spec, "kept").max_memory == 0);
  CHECK(says(result, "apps[5].treekill", "no counterpart"));
  CHECK(says(result, "apps[5].max_memory_restart", "at least 1M"));
  CHECK(result.text.find(R"("inheritEnv": false)") != std::string::npos);
}

TEST_CASE("import: what pm2 save has written") {
  auto result = made_of(R"([
 {"name": "api", "pm_exec_path": "/srv/app/api.js", "pm_cwd": "/srv/app",
  "exec_interpreter": "node", "exec_mode": "cluster_mode", "args": ["-v"],
  "node_args": [], "autorestart": true, "status": "online", "unique_id": "1",
  "instance_var": "NODE_APP_INSTANCE", "NODE_APP_INSTANCE": 0, "pm_id": 0,
  "axm_actions": [], "restart_time": 3, "RATE": "5", "kill_timeout": 3000,
  "pm_out_log_path": "/srv/app/logs/out-0.log",
  "pm_err_log_path": "/home/me/.pm2/logs/api-error-0.log",
  "env": {"PORT": "3000", "RATE": "5", "HOME": "/home/me", "api": "{}",
          "SSH_CONNECTION": "1.2.3.4", "PM2_HOME": "/home/me/.pm2",
          "NODE_APP_INSTANCE": 0, "PATH": "/usr/bin"}},
 {"name": "api", "pm_exec_path": "/srv/app/api.js", "pm_cwd": "/srv/app",
  "exec_mode": "cluster_mode", "env": {}},
 {"name": "job", "pm_exec_path": "/usr/bin/bash", "pm_cwd": "/srv",
  "exec_interpreter": "none", "exec_mode": "fork_mode", "status": "stopped",
  "autostart": true, "args": ["-c", "npm run job"], "env": {}}])",
                        "dump.pm2");
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 2);
  auto& api = spec.processes[0];
  CHECK(api.argv == texts{"node", "/srv/app/api.js", "-v"});
  CHECK(api.cwd == "/srv/app");
  CHECK(api.cluster->instances == 2);
  CHECK(api.cluster->common_port == 3000);
  CHECK(api.env
        == std::map<std::string, std::string>{{"NODE_APP_INSTANCE", "%{index}"},
                                              {"PATH", "/usr/bin"},
                                              {"RATE", "5"}});
  CHECK(api.output.stdout_file == "/srv/app/logs/out-%{index}.log");
  CHECK(api.terminate_timeout == std::chrono::seconds{3});
  CHECK(spec.processes[1].argv == texts{"/usr/bin/bash", "-c", "npm run job"});
  CHECK_FALSE(spec.processes[1].autostart);
  CHECK(says(result, "apps[0].env", "HOME, SSH_CONNECTION, PM2_HOME"));
  CHECK_FALSE(says(result, "apps[0].axm_actions", ""));
}

TEST_CASE("import: supervisord's comments and values that go on") {
  auto result = made_of(R"([DEFAULT]
user = www
[program:a]
command = run --port 80 # the usual one
  ; not this
    --tag a#b;c ; nor this
    # nor that
STDOUT_LOGFILE : /var/log/a.log
stdout_logfile = /var/log/b.log
redirect_stderr = TRUE
  # indented
autostart = False

[program:a]
autostart = On
)",
                        "s.conf");
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 1);
  auto& a = spec.processes[0];
  CHECK(a.argv == texts{"run", "--port", "80", "--tag", "a#b;c"});
  CHECK(a.output.stdout_file == "/var/log/b.log");
  CHECK(a.autostart);
  CHECK(result.text.find(R"("user": "www")") != std::string::npos);
}

TEST_CASE("import: supervisord's logs") {
  auto result = made_of(R"([program:docker]
command = a
stdout_logfile = /dev/stdout
stdout_logfile_maxbytes = 0
stderr_logfile = /dev/fd/2
stderr_logfile_maxbytes = 0
[program:file]
command = b
stdout_logfile = ~/b.log
stdout_logfile_maxbytes = 20MB
stdout_logfile_backups = 5
[program:merged]
command = c
redirect_stderr = true
stdout_logfile = c.log
stderr_logfile = d.log
stdout_logfile_maxbytes = 20mb
stdout_logfile_backups = 5
[program:none]
command = d
stdout_logfile = NONE
stderr_logfile = syslog
)",
                        "s.conf");
  auto spec = accepted(result);
  CHECK(process(spec, "docker").output.console);
  CHECK(process(spec, "docker").output.stdout_file.empty());
  CHECK(says(result, "[program:docker] logfile", "`pup run` shows"));
  CHECK(result.text.find(R"("stdout": "%{env:HOME}/b.log")")
        != std::string::npos);
  CHECK(says(result, "[program:file] stderr_logfile", "as well"));
  CHECK(process(spec, "merged").output.stdout_file == "/srv/c.log");
  CHECK(process(spec, "merged").output.stderr_file.empty());
  CHECK(says(result, "[program:merged] stderr_logfile", "has no effect"));
  CHECK(says(result, "[program:none] stdout_logfile", "all the same"));
  CHECK(says(result, "[program:none] stderr_logfile", "syslog"));
  CHECK(spec.logger.file_bytes == std::uint64_t{20} << 20);
  CHECK(spec.logger.files_kept == 5u);

  auto sizes = [](const std::string& more) {
    return made_of("[program:a]\ncommand=a\nstdout_logfile=a.log\n" + more,
                   "s.conf");
  };
  CHECK(accepted(sizes("")).logger.file_bytes == std::uint64_t{50} << 20);
  CHECK(accepted(sizes("")).logger.files_kept == 10u);
  auto endless = sizes(
      "stdout_logfile_maxbytes=0\nstderr_logfile=b.log\n"
      "stderr_logfile_maxbytes=1kb\nstderr_logfile_backups=0\n");
  CHECK(accepted(endless).logger.file_bytes == 0);
  CHECK(says(endless, "logfile_maxbytes, logfile_backups", "the largest"));
  auto small = sizes("stdout_logfile_maxbytes=1kb\n");
  CHECK(accepted(small).logger.file_bytes == std::uint64_t{1} << 20);
  CHECK(says(small, "logfile_maxbytes", "the least that pup has"));
}

TEST_CASE("import: supervisord gives up on failed starts, and stops in time") {
  auto result = made_of(R"([program:a]
command = a
autorestart = true
[program:b]
command = b
startretries = 7
startsecs = 20
autorestart = false
stopsignal = int
[program:c]
command = c
startsecs = 0
stopsignal = RTMIN
exitcodes = 0, 300
stopasgroup = false
)",
                        "s.conf");
  auto spec = accepted(result);
  auto& a = process(spec, "a");
  CHECK(a.start_limit == 3u);
  CHECK_FALSE(a.restart_limit);
  CHECK(a.ready == ready_condition::exec);
  CHECK(a.ready_command.argv == texts{"/bin/sleep", "1"});
  CHECK(a.terminate_timeout == std::chrono::seconds{10});
  auto& b = process(spec, "b");
  CHECK(b.start_limit == 7u);
  CHECK(b.ready_command.argv == texts{"/bin/sleep", "20"});
  CHECK(b.ready_timeout == std::chrono::seconds{50});
  CHECK(b.stop_signal == 2);
  CHECK(says(result, "[program:b] autorestart", "whatever the exit code"));
  CHECK(process(spec, "c").ready == ready_condition::spawn);
  CHECK(says(result, "[program:c] stopsignal", "SIGTERM takes its place"));
  CHECK(says(result, "[program:c] exitcodes", "is not an exit code"));
  CHECK(says(result, "[program:c] stopasgroup", "no counterpart"));
}

TEST_CASE("import: what supervisord says of all programs") {
  auto result = made_of(R"([supervisord]
umask = 027
user = www
directory = /srv/base
environment = LEVEL="info",SHARED=1
minfds = 4096
[program:a]
command = run %(ENV_LEVEL)s %(ENV_OTHER)s
directory = app
environment = LEVEL=debug,WORDS="a b"
[program:b]
command = run "%(ENV_SHARED)s"
user = %(ENV_WHO)s
umask = 002
numprocs = %(ENV_COUNT)s
)",
                        "s.conf");
  auto spec = accepted(result);
  auto& a = process(spec, "a");
  CHECK(a.argv == texts{"run", "debug", "<OTHER>"});
  CHECK(says(result, "[program:a] command", "stays one argument"));
  CHECK(a.cwd == "/srv/base/app");
  CHECK(a.env
        == std::map<std::string, std::string>{
            {"LEVEL", "debug"}, {"SHARED", "1"}, {"WORDS", "a b"}});
  CHECK(a.attributes.umask == 027u);
  CHECK_FALSE(a.inherit_env);
  auto& b = process(spec, "b");
  CHECK(b.argv == texts{"run", "1"});
  CHECK(b.attributes.umask == 002u);
  CHECK(b.cwd == "/srv/base");
  CHECK(result.text.find(R"("user": "www")") != std::string::npos);
  CHECK(result.text.find("WHO") == std::string::npos);
  CHECK(says(result, "[program:b] user", "write its value"));
  CHECK(says(result, "[program:b] numprocs", "write its value"));
  CHECK(says(result, "[program:a] user", "inherits pup's whole environment"));
  CHECK(says(result, "[supervisord] minfds", "nofile"));
  // In the foreground supervisord sets neither.
  auto plain =
      accepted(made_of("[supervisord]\nnodaemon=true\numask=077\n"
                       "user=root\ndirectory=/x\n[program:a]\n"
                       "command=a\n",
                       "s.conf"));
  CHECK_FALSE(plain.processes[0].attributes.umask);
  CHECK_FALSE(plain.processes[0].attributes.run_as);
  CHECK(plain.processes[0].cwd.empty());
}

TEST_CASE("import: where supervisord's file lies, and which number it is") {
  import_surroundings around;
  around.folder = "/etc/100%/sup";
  auto result = made_of(R"([program:a]
command = %(here)s/run --no %(process_num)02d
directory = /srv/app
numprocs_start = 7
stdout_logfile = %(here)s/a-%(process_num)d.log
[program:b]
command = %(program_name)s %(group_name)s %(numprocs)d %(host_node_name)s
process_name = other
[group:g]
programs = b,c
[program:c]
command = c %(process_num)d
process_name = c_%(process_num)d
numprocs = 2
numprocs_start = 1
)",
                        "s.conf", around);
  auto spec = accepted(result);
  auto& a = process(spec, "a");
  CHECK(a.argv == texts{"/etc/100%/sup/run", "--no", "07"});
  CHECK(a.output.stdout_file == "/etc/100%/sup/a-7.log");
  CHECK(process(spec, "b").argv == texts{"b", "g", "1"});
  CHECK(says(result, "[program:b] command", "has no counterpart"));
  CHECK(says(result, "[program:b] process_name", "`b`"));
  CHECK(process(spec, "c").argv == texts{"c", "%{index}"});
  CHECK(says(result, "[program:c] numprocs_start", "counts from 0; add 1"));
  CHECK(says(result, "[program:c] process_name", "ID-1"));
}

TEST_CASE("import: what supervisord cannot start is left out, and named") {
  auto result = made_of(
      "[program:a]\ncommand=run 'open\n[program:b]\n"
      "command=\n[program:c]\ncommand=c\n",
      "s.conf");
  CHECK(accepted(result).processes.size() == 1);
  CHECK(says(result, "[program:a] command", "a quote that is not closed"));
  CHECK(says(result, "[program:b] command", "is empty"));
}

TEST_CASE("import: the files that supervisord includes") {
  import_surroundings around;
  around.folder = "/etc/supervisor";
  around.matching = [](const std::string& pattern) {
    using file = import_surroundings::file;
    if (pattern == "conf.d/*.conf")
      return std::vector<file>{
          {"/etc/supervisor/conf.d/a.conf",
           "[program:a]\ncommand=%(here)s/a\n"},
          {"/etc/supervisor/conf.d/b.conf", "[program:b]\ncommand=b\n"}};
    return std::vector<file>{};
  };
  auto result = made_of(
      "[supervisord]\n[include]\nfiles=conf.d/*.conf "
      "%(ENV_MORE)s/*.conf\n\tnone/*.ini\n",
      "/etc/supervisor/supervisord.conf", around);
  auto spec = accepted(result);
  REQUIRE(spec.processes.size() == 2);
  CHECK(spec.processes[0].argv == texts{"/etc/supervisor/conf.d/a"});
  CHECK(says(result, "[include]", "import these as well: %(ENV_MORE)s/*.conf"));
  CHECK(says(result, "[include]", "no readable file matches `none/*.ini`"));
}

TEST_CASE("import: what is empty is as if it were not there") {
  auto ini = made_of(
      "[supervisord]\nuser=\ndirectory=\n[program:a]\n"
      "command=a\nuser=\ndirectory=\nstdout_logfile=\numask=\n"
      "environment==x,A=1,1B=2\n[program:b]\ncommand=\"\" x\n",
      "s.conf");
  CHECK(accepted(ini).processes.size() == 1);
  CHECK(accepted(ini).processes[0].env
        == std::map<std::string, std::string>{{"A", "1"}});
  CHECK(says(ini, "[program:a] environment", "`1B` cannot name a variable"));
  CHECK(says(ini, "[program:b] command", "is empty"));
  auto own =
      accepted(made_of("[supervisord]\nuser=\n[program:a]\n"
                       "command=a\n",
                       "s.conf"));
  CHECK_FALSE(own.processes[0].attributes.run_as);
  auto pm2 = made_of(R"([{"script": "a.js", "interpreter": "", "cwd": "",
    "uid": "", "out_file": "", "pid_file": "", "watch": [""], "instances": "",
    "env": {"": "x", "A=B": "y", "C": null}}])",
                     "x.json");
  const auto process = accepted(pm2).processes[0];
  CHECK(process.argv == texts{"node", "a.js"});
  CHECK(process.watch.empty());
  CHECK(process.env.at("C") == "null");
  CHECK(says(pm2, "apps[0].env", "`A=B` cannot name a variable"));
}

TEST_CASE("import: of what supervisord does not know nothing is left") {
  auto result = made_of(
      "[program:a]\ncommand=a\nuser=%(nobody)s\n"
      "directory=%(nowhere)s\nstdout_logfile=%(none)s\n",
      "s.conf");
  auto spec = accepted(result);
  CHECK_FALSE(spec.processes[0].attributes.run_as);
  CHECK(spec.processes[0].cwd.empty());
  CHECK(spec.processes[0].output == output_spec{});
  CHECK(says(result, "[program:a] user", "%(nobody) has no counterpart"));
  CHECK(says(result, "[program:a] directory", "%(nowhere)"));
}
