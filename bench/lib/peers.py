"""Starting and stopping what is measured. Each peer is configured as its own
manual recommends for one processor, with a listening port of the loopback
address, and balances the same four backends."""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import time

from . import machine

BACKENDS = [8000, 8001, 8002, 8003]


class Setting:
    """Programs, scratch folder and CPUs of one phase of a run."""

    def __init__(self, build, folder, pinned):
        self.folder = pathlib.Path(folder)
        self.pup = str(build / "pup")
        self.backend = str(build / "bench" / "bench_backend")
        self.pm2 = build / "npm" / "node_modules" / ".bin" / "pm2"
        cpus = sorted(os.sched_getaffinity(0))
        self.pinned = pinned and len(cpus) > 1
        self.balancer_cpu = cpus[0] if self.pinned else None
        self.other_cpu = cpus[1] if self.pinned else None
        self.load = machine.Load(str(build / "bench" / "bench_load"),
                                 self.other_cpu)

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def on_other_cpu(self, *command):
        """What pup starts inherits its CPU; backends belong to the other."""
        if self.other_cpu is None:
            return list(command)
        return ["taskset", "-c", str(self.other_cpu), *command]


class Direct:
    """No balancer: the generator goes round the backends itself."""
    name = "direct"
    ports = BACKENDS

    def pids(self):
        return []


class Daemon:
    """A balancer that stays in the foreground, started as a child."""

    def __init__(self, setting, command, ports):
        self.log = open(setting.folder / f"{self.name}.log", "w")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log,
            stderr=subprocess.STDOUT,
            preexec_fn=machine.pin(setting.balancer_cpu))
        self.ports = ports[:1]
        try:
            for port in ports:
                machine.wait_for_port(port)
        except machine.Fault as fault:
            self.stop()
            said = (setting.folder / f"{self.name}.log").read_text()
            raise machine.Fault(f"{self.name}: {fault}\n{said[-2000:]}")

    def pids(self):
        return machine.descendants(self.process.pid)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Nginx(Daemon):
    name = "nginx"
    port = 3200
    # By hash of the address, over 4, 6 and 3 servers.
    hash_ports = {4: 3204, 6: 3206, 3: 3203}

    # Debian's package libnginx-mod-stream; elsewhere it may be built in.
    module = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")

    @classmethod
    def program(cls):
        """None: there is none that balances TCP."""
        found = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        if found and not cls.module.exists():
            built = subprocess.run([found, "-V"], capture_output=True,
                                   text=True, check=True).stderr.split()
            return found if "--with-stream" in built else None
        return found

    def __init__(self, setting):
        load = f"load_module {self.module};" if self.module.exists() else ""

        def upstream(name, ports, head=""):
            servers = "".join(f"server 127.0.0.1:{p};" for p in ports)
            return f"upstream {name} {{ {head} {servers} }}"

        def server(port, name):
            return (f"server {{ listen 127.0.0.1:{port} backlog=4096; "
                    f"proxy_pass {name}; }}")

        hashed = "\n".join(
            upstream(f"hash{n}", range(8000, 8000 + n),
                     "hash $remote_addr consistent;")
            + server(port, f"hash{n}") for n, port in self.hash_ports.items())
        config = setting.write("nginx/nginx.conf", f"""
{load}
daemon off;
user root;
pid nginx.pid;
error_log stderr error;
worker_processes 1;
worker_rlimit_nofile {most_descriptors()};
events {{ worker_connections {2 * most_connections() + 100}; }}
stream {{
  proxy_connect_timeout 5s;
  proxy_timeout 1h;
  {upstream("web", BACKENDS)}
  {server(self.port, "web")}
  {hashed}
}}
""")
        super().__init__(
            setting, [self.program(), "-p", str(config.parent), "-c",
                      str(config)], [self.port, *self.hash_ports.values()])


class Haproxy(Daemon):
    name = "haproxy"
    port = 3300
    splice_port = 3301
    hash_ports = {4: 3304, 6: 3306, 3: 3303}

    @staticmethod
    def program():
        return shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin")

    def __init__(self, setting):
        def section(name, port, count, *lines):
            body = [f"bind 127.0.0.1:{port} backlog 4096", *lines]
            body += [f"server s{i + 1} 127.0.0.1:{8000 + i}"
                     for i in range(count)]
            return f"listen {name}\n  " + "\n  ".join(body) + "\n"

        config = setting.write("haproxy.cfg", f"""
global
  nbthread 1
  maxconn {most_connections()}
  maxpipes 64
defaults
  mode tcp
  balance roundrobin
  retries 3
  option redispatch 1
  timeout connect 5s
  timeout client 1h
  timeout server 1h
""" + section("plain", self.port, 4)
            + section("splice", self.splice_port, 4, "option splice-request",
                      "option splice-response")
            + "".join(section(f"hash{n}", port, n, "balance source",
                              "hash-type consistent")
                      for n, port in self.hash_ports.items()))
        super().__init__(
            setting, [self.program(), "-db", "-f", str(config)],
            [self.port, self.splice_port, *self.hash_ports.values()])

    def spliced(self):
        """The same process, on the port where splice is forced."""
        return Listener(self, "haproxy splice", [self.splice_port])


class CheckedHaproxy(Daemon):
    """haproxy as one runs it where backends die: checked each 100 ms. Apart
    from the other, whose figures the checks would disturb."""
    name = "haproxy checked"
    port = 3310

    def __init__(self, setting):
        servers = "".join(
            f"  server s{i + 1} 127.0.0.1:{port} check inter 100 fall 1 rise 1"
            " observe layer4 error-limit 1 on-error mark-down\n"
            for i, port in enumerate(BACKENDS))
        config = setting.write("haproxy-checked.cfg", f"""
global
  nbthread 1
  maxconn 4000
defaults
  mode tcp
  retries 3
  option redispatch 1
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen web
  bind 127.0.0.1:{self.port} backlog 4096
  balance roundrobin
{servers}""")
        super().__init__(
            setting, [Haproxy.program(), "-db", "-f", str(config)],
            [self.port])


class Listener:
    """Another port of a peer that runs already."""

    def __init__(self, peer, name, ports):
        self.peer, self.name, self.ports = peer, name, ports

    def pids(self):
        return self.peer.pids()

    def stop(self):
        pass


class Pup:
    """A supervisor with one cluster "web"."""

    def __init__(self, setting, name, port, command, start_port, mode="proxy",
                 strategy="round-robin", instances=4):
        self.name, self.ports = name, [port]
        self.setting = setting
        self.key = name.replace(" ", "-")
        cluster = {"instances": instances, "commonHost": "127.0.0.1",
                   "commonPort": port, "startPort": start_port,
                   "strategy": strategy}
        if mode != "proxy":
            cluster["mode"] = mode
        if mode == "inherit":
            del cluster["startPort"]
            if strategy == "round-robin":  # the kernel cannot
                cluster["strategy"] = "random"
        config = {"name": self.key,
                  "processes": [{"id": "web", "cmd": command,
                                 "cluster": cluster}]}
        self.config = setting.write(self.key + "/config.json",
                                    json.dumps(config))
        self.environment = dict(
            os.environ,
            PUP_RUNTIME_DIR=str(setting.folder / self.key / "run"),
            PUP_STATE_DIR=str(setting.folder / self.key / "state"))

    def refusal(self):
        """Why this configuration is refused; none when it is not."""
        result = self.run("validate", str(self.config))
        if result.returncode == 0:
            return None
        lines = result.stderr.strip().split("\n")
        return lines[-1].replace(str(self.config.parent) + "/", "")

    def start(self):
        result = self.run("start", str(self.config))
        if result.returncode != 0:
            raise machine.Fault(f"pup start: {result.stderr.strip()}")
        return self

    def run(self, *arguments):
        return subprocess.run(
            [self.setting.pup, *arguments], env=self.environment, text=True,
            capture_output=True, timeout=60,
            preexec_fn=machine.pin(self.setting.balancer_cpu))

    def command(self, *arguments):
        result = self.run("--name", self.key, *arguments)
        if result.returncode != 0:
            raise machine.Fault(
                f"pup {' '.join(arguments)}: {result.stderr.strip()}")
        return result.stdout

    def scale(self, count):
        self.command("scale", "web", str(count))

    def instances(self):
        status = json.loads(self.command("status", "--json"))
        return status["processes"][0]["instances"]

    def pids(self):
        """All processes of the supervisor, none of what it runs."""
        return machine.pids_of_program(
            self.setting.pup,
            "PUP_RUNTIME_DIR=" + self.environment["PUP_RUNTIME_DIR"])

    def stop(self):
        self.run("--name", self.key, "terminate")


class Pm2:
    """PM2's cluster mode: node's own balancer."""
    name = "pm2"

    def __init__(self, setting, app, port):
        self.setting, self.ports = setting, [port]
        self.environment = dict(
            os.environ, PM2_HOME=str(setting.folder / "pm2"), PORT=str(port),
            PM2_DISCRETE_MODE="true")
        self.run("start", str(app), "-i", "4", "--name", "web")
        machine.wait_for_port(port)
        self.daemon = int((setting.folder / "pm2" / "pm2.pid").read_text())

    def run(self, *arguments):
        result = subprocess.run(
            [str(self.setting.pm2), *arguments], env=self.environment,
            text=True, capture_output=True, timeout=60,
            preexec_fn=machine.pin(self.setting.balancer_cpu))
        if result.returncode != 0:
            raise machine.Fault(f"pm2 {' '.join(arguments)}: "
                                f"{result.stderr.strip()[-300:]}")

    def scale(self, count):
        self.run("scale", "web", str(count))

    def pids(self):
        return machine.descendants(self.daemon)

    def stop(self):
        self.run("kill")


def most_descriptors():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def most_connections():
    """Through one balancer: two descriptors each, and some for itself."""
    return min(24_000, (most_descriptors() - 400) // 2)


def start_all(setting, stack, note):
    """The balancers of the byte rows, by name, and their backends, which are
    the instances of the first. `stack` stops them; `note` hears what is left
    out and why."""
    peers = [Direct()]

    def add(peer):
        stack.callback(peer.stop)
        peers.append(peer)

    web = Pup(setting, "pup", 3100, setting.on_other_cpu(setting.backend),
              BACKENDS[0])
    stack.callback(web.stop)
    web.start()
    if Nginx.program():
        add(Nginx(setting))
    else:
        note("nginx with its stream module is not installed; its rows are "
             "left out")
    if Haproxy.program():
        add(Haproxy(setting))
        add(peers[-1].spliced())
    else:
        note("haproxy is not installed; its rows are left out")
    peers.append(web)
    zero = Pup(setting, "pup zero-hop", 3101,
               setting.on_other_cpu(setting.backend), 8100, mode="inherit")
    refusal = zero.refusal()
    if refusal:
        note(f"zero-hop is left out: {refusal}")
    else:
        stack.callback(zero.stop)
        peers.append(zero.start())
    return {peer.name: peer for peer in peers}
