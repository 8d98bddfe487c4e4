"""Process managers, each with n processes p0, p1, … of bench_child, configured
as its own manual says."""
import json
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import time

from . import machine


class Marks:
    """The starts of all processes of one manager (bench/child.cpp)."""
    ROOM = 200_000

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.write_bytes(struct.pack("<QQ", 0, self.ROOM)
                              + bytes(16 * self.ROOM))
        self.file = open(self.path, "rb", buffering=0)

    def count(self):
        return struct.unpack("<Q", os.pread(self.file.fileno(), 8, 0))[0]

    def read(self, first, last):
        """(nanoseconds, pid) of each start."""
        data = os.pread(self.file.fileno(), 16 * (last - first),
                        16 + 16 * first)
        return list(struct.iter_unpack("<qq", data))

    def wait(self, wanted, limit=20):
        """Until so many have started; returns all marks."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            if self.count() >= wanted:
                marks = self.read(0, wanted)
                if all(when > 0 for when, _ in marks):
                    return marks
            time.sleep(0.001)
        raise machine.Fault(f"{self.count()} of {wanted} processes have "
                            f"started after {limit} s ({self.path.parent.name})")

    def heal(self):
        pathlib.Path(f"{self.path}.healed").touch()


class Programs:
    def __init__(self, build, folder):
        self.folder = pathlib.Path(folder)
        self.pup = str(build / "pup")
        self.child = str(build / "bench" / "bench_child")
        self.spawn = str(build / "bench" / "bench_spawn")
        self.pm2 = build / "npm" / "node_modules" / ".bin" / "pm2"


class Manager:
    """`kind` is of bench_child; `grace` how long a stop may take, in seconds.
    Processes are not started until start_all() or start_one(), which return when
    their command began; stopping returns when it began and ended."""

    def __init__(self, programs, n, kind="polite", grace=None, name=None):
        self.programs, self.n, self.kind, self.grace = (programs, n, kind,
                                                        grace)
        self.folder = programs.folder / (name or f"{self.name}-{n}-{kind}")
        self.folder.mkdir(parents=True)
        self.marks = Marks(self.folder / "marks")
        self.environment = dict(os.environ)
        self.log = open(self.folder / "log", "w")

    # What a shell would run for each process.
    def child_command(self):
        if self.kind == "shell":
            return ["/bin/sh", "-c", f"{self.programs.child} "
                    f"{self.marks.path} group; true"]
        return [self.programs.child, str(self.marks.path), self.kind]

    def timed(self, *command, repeats=1, may_fail=False):
        """[(began_ns, ended_ns)] of a command line, whose CPU time in all is
        kept in self.command_cpu_ms."""
        result = subprocess.run(
            [self.programs.spawn, "command", str(repeats), *command],
            env=self.environment, text=True, capture_output=True, timeout=300)
        runs = json.loads(result.stdout)["runs"]
        self.command_cpu_ms = sum(cpu for _, _, _, cpu in runs)
        bad = [code for _, _, code, _ in runs if code != 0]
        if bad and not may_fail:
            raise machine.Fault(f"{' '.join(command)} ended with {bad[0]}: "
                                f"{result.stderr[-500:]}")
        return [(began, ended) for began, ended, _, _ in runs]

    def daemon(self, *command):
        """A manager that stays in the foreground."""
        return subprocess.Popen(
            command, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=self.log, stderr=self.log, start_new_session=True)

    def children(self):
        """Living processes of bench_child, theirs, and their shells."""
        marks = str(self.marks.path).encode()
        programs = {os.path.realpath(self.programs.child),
                    os.path.realpath("/bin/sh")}
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                if os.readlink(f"/proc/{name}/exe") not in programs:
                    continue
                what = (pathlib.Path(f"/proc/{name}/cmdline").read_bytes()
                        + pathlib.Path(f"/proc/{name}/environ").read_bytes())
            except OSError:
                continue
            if marks in what:
                found.append(int(name))
        return found

    def end_survivors(self):
        for pid in self.children():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


class Pup(Manager):
    name = "pup"

    def __init__(self, *args, cluster=None, **options):
        super().__init__(*args, **options)
        self.key = self.folder.name[:64]
        self.environment.update(PUP_RUNTIME_DIR=str(self.folder / "run"),
                                PUP_STATE_DIR=str(self.folder / "state"))
        rules = {"cmd": self.child_command()}
        if self.grace is not None:
            rules["terminateTimeout"] = self.grace
        processes = ([{"id": "web", **rules, "cluster": {"instances": 0}}]
                     if cluster else
                     [{"id": f"p{i}", "autostart": False, **rules}
                      for i in range(max(self.n, 1))])
        self.config = self.folder / "config.json"
        self.config.write_text(json.dumps({"name": self.key,
                                           "processes": processes}))

    def pup(self, *arguments):
        return [self.programs.pup, "--name", self.key, *arguments]

    def launch(self):
        self.timed(self.programs.pup, "start", str(self.config))
        return self

    def launch_and_ask(self):
        """Milliseconds from nothing until a status is answered."""
        began = time.monotonic_ns()
        self.launch()
        (_, ended), = self.timed(*self.status_command())
        return (ended - began) / 1e6

    def start_all(self):
        return self.timed(*self.pup("start", "all"))[0][0]

    def start_one(self, i):
        return self.timed(*self.pup("start", f"p{i}"))[0][0]

    def stop_one(self, i=0):
        return self.timed(*self.pup("stop", f"p{i}"))[0]

    def stop_all(self):
        return self.timed(*self.pup("stop", "all"))[0]

    def status_command(self):
        return self.pup("status")

    def scale(self, n):
        return self.timed(*self.pup("scale", "web", str(n)))[0]

    def pids(self):
        return machine.pids_of_program(
            self.programs.pup,
            "PUP_RUNTIME_DIR=" + self.environment["PUP_RUNTIME_DIR"])

    def end(self):
        self.timed(*self.pup("terminate"), may_fail=True)


class Pm2(Manager):
    name = "pm2"

    @staticmethod
    def missing(programs):
        return None if programs.pm2.exists() else "PM2 is not installed"

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.environment.update(PM2_HOME=str(self.folder / "home"),
                                PM2_DISCRETE_MODE="true")
        command = self.child_command()
        rules = {"script": command[0], "args": command[1:],
                 "interpreter": "none", "exec_mode": "fork"}
        if self.grace is not None:
            rules["kill_timeout"] = self.grace * 1000
        self.config = self.folder / "ecosystem.json"
        self.config.write_text(json.dumps(
            {"apps": [{"name": f"p{i}", **rules} for i in range(self.n)]}))

    def run(self, *arguments, may_fail=False):
        return self.timed(str(self.programs.pm2), *arguments,
                          may_fail=may_fail)[0]

    def launch(self):
        self.run("ping")
        self.pid = int((self.folder / "home" / "pm2.pid").read_text())
        return self

    def launch_and_ask(self):
        began = time.monotonic_ns()
        self.launch()
        return (time.monotonic_ns() - began) / 1e6

    def start_all(self):
        return self.run("start", str(self.config))[0]

    def start_one(self, i):
        return self.run("start", f"p{i}")[0]

    def stop_one(self, i=0):
        return self.run("stop", f"p{i}")

    def stop_all(self):
        return self.run("stop", "all")

    def status_command(self):
        return [str(self.programs.pm2), "ls"]

    def pids(self):
        return [self.pid]

    def end(self):
        self.run("kill", may_fail=True)


class Supervisord(Manager):
    name = "supervisord"

    @staticmethod
    def missing(_):
        return (None if shutil.which("supervisord") else
                "supervisord is not installed")

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        command = self.child_command()
        if self.kind == "shell":
            command[2] = f"'{command[2]}'"
        self.config = self.folder / "supervisord.conf"
        program = "" if self.n == 0 else f"""
[program:p]
command={' '.join(command)}
process_name=p%(process_num)d
numprocs={self.n}
autostart=false
autorestart=true
startsecs=0
{'' if self.grace is None else f'stopwaitsecs={self.grace}'}
"""
        self.config.write_text(f"""
[supervisord]
nodaemon=true
logfile=/dev/null
logfile_maxbytes=0
pidfile={self.folder}/pid
childlogdir={self.folder}
minfds=8192
[unix_http_server]
file={self.folder}/socket
[supervisorctl]
serverurl=unix://{self.folder}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = \
supervisor.rpcinterface:make_main_rpcinterface
{program}""")

    def control(self, *arguments):
        return ["supervisorctl", "-c", str(self.config), *arguments]

    def launch(self):
        self.process = self.daemon("supervisord", "-c", str(self.config))
        while not (self.folder / "socket").exists():
            if self.process.poll() is not None:
                raise machine.Fault("supervisord: "
                                    + (self.folder / "log").read_text())
            time.sleep(0.002)
        return self

    def launch_and_ask(self):
        began = time.monotonic_ns()
        self.launch()
        self.timed(*self.control("pid"))
        return (time.monotonic_ns() - began) / 1e6

    def start_all(self):
        return self.timed(*self.control("start", "all"))[0][0]

    def start_one(self, i):
        return self.timed(*self.control("start", f"p:p{i}"))[0][0]

    def stop_one(self, i=0):
        return self.timed(*self.control("stop", f"p:p{i}"))[0]

    def stop_all(self):
        return self.timed(*self.control("stop", "all"))[0]

    def status_command(self):
        return self.control("status")

    def pids(self):
        return [self.process.pid]

    def end(self):
        self.process.terminate()
        self.process.wait(60)


class Scanned(Manager):
    """A folder for each service, and a process for each folder."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.environment.update(BENCH_MARKS=str(self.marks.path),
                                BENCH_KIND=self.kind)
        self.scan = self.folder / "scan"
        self.scan.mkdir()
        for i in range(self.n):
            service = self.scan / f"p{i}"
            service.mkdir()
            self.fill(service)
        self.process = None

    def fill(self, service):
        if self.kind == "shell":
            (service / "run").write_text(
                "#!/bin/sh\n" + self.child_command()[2] + "\n")
            (service / "run").chmod(0o755)
        else:
            # No shell between: the fastest they can be.
            (service / "run").symlink_to(self.programs.child)

    def services(self):
        return [str(self.scan / f"p{i}") for i in range(self.n)]

    def launch(self):
        """Nothing yet: what scans the folder starts what is in it."""
        return self

    def start_all(self):
        began = time.monotonic_ns()
        self.process = self.daemon(*self.scanner())
        return began

    def pids(self):
        if self.process is None:
            return []
        return [pid for pid in machine.descendants(self.process.pid)
                if pid not in self.children()]

    def wait_for_end(self):
        self.process.wait(60)


class S6(Scanned):
    name = "s6"

    @staticmethod
    def missing(_):
        return None if shutil.which("s6-svscan") else "s6 is not installed"

    def fill(self, service):
        super().fill(service)
        # Without it s6 waits a second before each restart.
        (service / "notification-fd").write_text("3\n")
        if self.grace is not None:
            (service / "timeout-kill").write_text(f"{self.grace * 1000}\n")

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.environment["BENCH_NOTIFY_FD"] = "3"

    def scanner(self):
        return ["s6-svscan", "-c", "2000", str(self.scan)]

    def start_one(self, i):
        return self.timed("s6-svc", "-u", self.services()[i])[0][0]

    def stop_one(self, i=0):
        return self.timed("s6-svc", "-wD", "-d", self.services()[i])[0]

    def stop_all(self):
        return self.timed("s6-svscanctl", "-t", str(self.scan))[0]

    def status_command(self):
        return ["/bin/sh", "-c", f"for x in {self.scan}/p*; do "
                "s6-svstat $x; done"]

    def end(self):
        if self.process and self.process.poll() is None:
            self.timed("s6-svscanctl", "-t", str(self.scan), may_fail=True)
            self.wait_for_end()


class Runit(Scanned):
    name = "runit"

    @staticmethod
    def missing(_):
        return None if shutil.which("runsvdir") else "runit is not installed"

    def scanner(self):
        return ["runsvdir", str(self.scan)]

    def start_one(self, i):
        return self.timed("sv", "up", self.services()[i])[0][0]

    def stop_one(self, i=0):
        # It never goes further than SIGTERM by itself; force-stop does.
        return self.timed("sv", "-w", str(self.grace or 7), "force-stop",
                          self.services()[i], may_fail=True)[0]

    def stop_all(self):
        began = time.monotonic_ns()
        self.process.send_signal(signal.SIGHUP)
        return began, began

    def status_command(self):
        return ["sv", "status", *self.services()]

    def end(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGHUP)
            self.wait_for_end()


ALL = [Pup, Pm2, Supervisord, S6, Runit]


def present(programs, note, wanted=None):
    found = []
    for kind in ALL:
        if wanted and kind.name not in wanted:
            continue
        missing = getattr(kind, "missing", lambda _: None)(programs)
        if missing:
            note(f"{missing}; its figures are left out")
        else:
            found.append(kind)
    return found
