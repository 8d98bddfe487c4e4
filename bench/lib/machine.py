"""What the kernel knows of processes and of the network, and running loads."""
import json
import os
import pathlib
import platform
import subprocess
import time


class Fault(Exception):
    """Something that makes a measurement worthless."""


# -- processes ----------------------------------------------------------------


def threads(pids):
    for pid in pids:
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                yield f"/proc/{pid}/task/{tid}"
        except FileNotFoundError:
            raise Fault(f"process {pid} has ended")


def cpu_seconds(pids):
    """CPU time of all threads, in the scheduler's nanoseconds."""
    total = 0
    for thread in threads(pids):
        with open(thread + "/schedstat") as file:
            total += int(file.read().split()[0])
    return total / 1e9


def settled_cpu_seconds(pids, limit=0.5):
    """The same once it no longer grows: closing may outlast the load, and the
    scheduler counts what runs only at its next tick."""
    end = time.monotonic() + limit
    now = cpu_seconds(pids)
    while time.monotonic() < end:
        time.sleep(0.01)
        before, now = now, cpu_seconds(pids)
        if now == before:
            break
    return now


def pss_bytes(pids):
    """User-space memory, shared pages by their share."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def voluntary_switches(pids):
    total = 0
    for thread in threads(pids):
        with open(thread + "/status") as file:
            for line in file:
                if line.startswith("voluntary_ctxt_switches:"):
                    total += int(line.split()[1])
    return total


def descendants(*roots):
    """The processes themselves and all below them."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{name}/stat").read_text()
            except OSError:
                continue
            # The name in brackets may hold anything.
            parent = int(stat.rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(name))
    found, todo = [], list(roots)
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += children.get(pid, [])
    return found


def pids_of_program(program, variable):
    """Living processes of an executable that have NAME=value in their
    environment."""
    found = []
    wanted = os.path.realpath(program)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            environment = pathlib.Path(f"/proc/{name}/environ").read_bytes()
            if (os.path.realpath(f"/proc/{name}/exe") == wanted
                    and variable.encode() in environment.split(b"\0")):
                found.append(int(name))
        except OSError:
            continue
    return found


# -- network ------------------------------------------------------------------


def tcp_segments():
    """Segments received in this network namespace. On loopback each segment
    that is sent is received once."""
    lines = [line.split() for line in open("/proc/net/snmp")
             if line.startswith("Tcp:")]
    return int(dict(zip(*lines))["InSegs"])


def congestion_control():
    return pathlib.Path(
        "/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def wait_for_port(port, limit=60):
    """Until something listens; asks the kernel, not the port."""
    end = time.monotonic() + limit
    wanted = f":{port:04X}"
    while time.monotonic() < end:
        for table in ("tcp", "tcp6"):
            for line in open(f"/proc/net/{table}"):
                fields = line.split()
                if fields[3] == "0A" and fields[1].endswith(wanted):
                    return
        time.sleep(0.01)
    raise Fault(f"nothing listens on port {port} after {limit} s")


# -- the machine --------------------------------------------------------------


def describe():
    model = "unknown processor"
    for line in open("/proc/cpuinfo"):
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": model,
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "congestion_control": congestion_control(),
        "load_before": os.getloadavg()[0],
    }


# -- loads --------------------------------------------------------------------


class Load:
    """Runs bench_load, on one CPU or all."""

    def __init__(self, program, cpu=None):
        self.program = program
        self.cpu = cpu

    def start(self, mode, ports, **options):
        command = [self.program, mode, "--ports", ",".join(map(str, ports))]
        for key, value in options.items():
            command += ["--" + key.replace("_", "-"), str(value)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=pin(self.cpu))

    def run(self, mode, ports, lossless=True, **options):
        return finish(self.start(mode, ports, **options), lossless)


def finish(process, lossless=True):
    text, _ = process.communicate(timeout=300)
    if process.returncode != 0:
        raise Fault(f"{' '.join(process.args)} ended with {process.returncode}")
    result = json.loads(text)
    if lossless and result.get("lost", 0) > 0:
        raise Fault(f"{' '.join(process.args[1:])} lost {result['lost']}: "
                    f"{result['failed']}")
    return result


def pin(cpu):
    """For Popen's preexec_fn."""
    return None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})
