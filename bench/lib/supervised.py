"""The measurements of process managers: {metric: {manager: [value, …]}}."""
import json
import os
import select
import signal
import subprocess
import time

from . import machine
from .managers import Marks, Pup, Scanned


class Sizes:
    def __init__(self, smoke):
        self.smoke = smoke
        self.rounds = 1 if smoke else 5
        self.fleets = (3, 5, 8) if smoke else (10, 100, 500)
        self.crashes = 2 if smoke else 50
        self.statuses = 2 if smoke else 20
        self.idle_seconds = 1 if smoke else 30
        self.loop_seconds = 2 if smoke else 10
        self.soak_processes = 5 if smoke else 400
        self.soak_rounds = 3 if smoke else 45
        self.cluster = 20 if smoke else 1000


class Bench:
    def __init__(self, programs, kinds, sizes):
        self.programs, self.kinds, self.sizes = programs, kinds, sizes
        # Of stories that take seconds however small they are, a glance tells
        # pup's alone.
        self.patient = ([x for x in kinds if x is Pup] if sizes.smoke
                        else kinds)
        self.figures = {}
        self.floors = 0

    def put(self, metric, manager, value):
        self.figures.setdefault(metric, {}).setdefault(manager, []).append(
            value)

    def floor(self, mode, n):
        """What bench_spawn says of its bare loop, and the marks."""
        self.floors += 1
        path = self.programs.folder / f"floor-{self.floors}"
        marks = Marks(path)
        text = subprocess.run(
            [self.programs.spawn, mode, str(n), self.programs.child,
             str(path)], text=True, capture_output=True, timeout=120,
            check=True).stdout
        starts = marks.read(0, marks.count())
        path.unlink()
        return json.loads(text), starts


class Ended:
    """A manager that ends with the block, and what it left with it."""

    def __init__(self, manager):
        self.manager = manager

    def __enter__(self):
        return self.manager

    def __exit__(self, *_):
        try:
            self.manager.end()
        finally:
            self.manager.end_survivors()


def milliseconds(began, ended):
    return (ended - began) / 1e6


def all_gone(pids, limit=120):
    """When the last of them was dead, in nanoseconds."""
    handles = set()
    for pid in pids:
        try:
            handles.add(os.pidfd_open(pid))
        except ProcessLookupError:
            pass
    end = time.monotonic() + limit
    poller = select.poll()
    for handle in handles:
        poller.register(handle, select.POLLIN)
    while handles and time.monotonic() < end:
        for handle, _ in poller.poll(1000):
            poller.unregister(handle)
            os.close(handle)
            handles.discard(handle)
    now = time.monotonic_ns()
    for handle in handles:
        os.close(handle)
    if handles:
        raise machine.Fault(f"{len(handles)} processes live on after "
                            f"{limit} s")
    return now


# -- rows 1 to 5, 7, 8 ----------------------------------------------------------


def empty(bench):
    """An idle manager from nothing until it answers."""
    for number in range(bench.sizes.rounds):
        for kind in bench.kinds:
            if issubclass(kind, Scanned):
                continue  # has nobody who could answer
            with Ended(kind(bench.programs, 0,
                            name=f"{kind.name}-empty-{number}")) as manager:
                bench.put("empty_ms", kind.name, manager.launch_and_ask())
                if number == 0:
                    time.sleep(1)
                    bench.put("pss_0", kind.name,
                              machine.pss_bytes(manager.pids()) / 1e6)


def one(bench):
    """A stopped process, from the command line's exec to its main()."""
    for kind in bench.kinds:
        with Ended(kind(bench.programs, bench.sizes.fleets[0],
                        name=f"{kind.name}-one")) as manager:
            manager.launch()
            manager.start_all()
            started = manager.n
            manager.marks.wait(started)
            for i in range(manager.n):
                manager.stop_one(i)
                began = manager.start_one(i)
                started += 1
                when, _ = manager.marks.wait(started)[-1]
                bench.put("start_1_ms", kind.name, milliseconds(began, when))


def fleet(bench):
    """10, 100 and 500 processes: all running, memory, status, crash, stop."""
    for n, name in zip(bench.sizes.fleets, (10, 100, 500)):
        for number in range(bench.sizes.rounds if name > 10 else 1):
            if name > 10:
                floor_of_fleet(bench, n, name)
            for kind in bench.kinds:
                # One look at the others is enough: they are not close.
                if number == 0 or kind is Pup:
                    fleet_of(bench, kind, n, name, number)


def floor_of_fleet(bench, n, name):
    told, starts = bench.floor("start", n)
    bench.put(f"start_{name}_ms", "floor",
              milliseconds(told["began_ns"], max(x for x, _ in starts)))
    bench.put(f"start_{name}_cpu", "floor", told["cpu_ms"])
    bench.put(f"stop_{name}_ms", "floor", told["stop_ms"])


def fleet_of(bench, kind, n, name, number):
    with Ended(kind(bench.programs, n,
                    name=f"{kind.name}-{name}-{number}")) as manager:
        manager.launch()
        before = cpu_ms(manager)
        began = manager.start_all()
        starts = manager.marks.wait(n, limit=120)
        if name > 10:
            if isinstance(manager, Pup):
                bench.put(f"start_{name}_cpu", kind.name,
                          cpu_ms(manager) - before + manager.command_cpu_ms)
            bench.put(f"start_{name}_ms", kind.name,
                      milliseconds(began, max(x for x, _ in starts)))
        if number == 0:
            time.sleep(0.2 if bench.sizes.smoke else 2)
            if name > 10:
                bench.put(f"pss_{name}", kind.name,
                          machine.pss_bytes(manager.pids()) / 1e6)
            statuses(bench, manager, name)
            if name == 100:
                crashes(bench, manager)
        marks = manager.marks.read(0, manager.marks.count())
        began, command_ended = manager.stop_all()
        gone = all_gone([pid for _, pid in marks])
        left = manager.children()
        if left:
            raise machine.Fault(f"{kind.name}: {len(left)} of {n} processes "
                                "live on after their stop")
        if name > 10:
            bench.put(f"stop_{name}_ms", kind.name,
                      milliseconds(began, max(gone, command_ended)))


def statuses(bench, manager, name):
    slow = manager.name in ("pm2", "supervisord")
    repeats = min(3, bench.sizes.statuses) if slow else bench.sizes.statuses
    commands = {f"status_{name}_ms": manager.status_command()}
    if isinstance(manager, Pup):
        commands[f"json_{name}_ms"] = [*manager.status_command(), "--json"]
    for metric, command in commands.items():
        before = cpu_ms(manager)
        for began, ended in manager.timed(*command, repeats=repeats):
            bench.put(metric, manager.name, milliseconds(began, ended))
        bench.put(metric.replace("_ms", "_command_cpu"), manager.name,
                  manager.command_cpu_ms / repeats)
        bench.put(metric.replace("_ms", "_manager_cpu"), manager.name,
                  (cpu_ms(manager) - before) / repeats)


def cpu_ms(manager):
    """Of the manager itself, so far."""
    return machine.settled_cpu_seconds(manager.pids()) * 1000


def crashes(bench, manager):
    """kill -9 to the new main(); each process once, after a second of life.
    Batches take turns with the floor."""
    time.sleep(1.2)
    victims = [pid for _, pid in manager.marks.read(0, manager.n)]
    rounds = bench.sizes.rounds if isinstance(manager, Pup) else 1
    started = manager.marks.count()
    for _ in range(rounds):
        batch = [victims.pop() for _ in range(min(bench.sizes.crashes // rounds
                                                  or 1, len(victims)))]
        if isinstance(manager, Pup):
            told, starts = bench.floor("crash", len(batch))
            for killed, (when, _) in zip(told["killed_ns"], starts[1:]):
                bench.put("crash_ms", "floor", milliseconds(killed, when))
        for pid in batch:
            killed = time.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            started += 1
            when, _ = manager.marks.wait(started)[-1]
            bench.put("crash_ms", manager.name, milliseconds(killed, when))


# -- rows 6, 18, 19, 21 -----------------------------------------------------------


def idle(bench):
    """All managers at once with 100 children each, left alone."""
    n = bench.sizes.fleets[1]
    running = []
    try:
        for kind in bench.kinds:
            manager = kind(bench.programs, n, name=f"{kind.name}-idle")
            running.append(manager)
            manager.launch()
            manager.start_all()
            manager.marks.wait(n)
        # pup's deadline for readiness is 30 s; what it armed runs out first.
        time.sleep(1 if bench.sizes.smoke else 32)
        before = {m.name: (machine.voluntary_switches(m.pids()),
                           machine.cpu_seconds(m.pids())) for m in running}
        time.sleep(bench.sizes.idle_seconds)
        for m in running:
            switches, cpu = before[m.name]
            bench.put("idle_switches", m.name,
                      machine.voluntary_switches(m.pids()) - switches)
            bench.put("idle_cpu_ms", m.name,
                      (machine.cpu_seconds(m.pids()) - cpu) * 1000)
    finally:
        for manager in running:
            manager.end()
            manager.end_survivors()


def loop(bench):
    """A process that fails at once, under each manager's defaults."""
    running = []
    try:
        for kind in bench.kinds:
            manager = kind(bench.programs, 1, "exit", name=f"{kind.name}-loop")
            running.append(manager)
            manager.launch()
            before = cpu_ms(manager)
            begin_failing(manager)
            manager.before = before
            manager.began = time.monotonic()
        for m in running:
            time.sleep(max(0, m.began + bench.sizes.loop_seconds
                           - time.monotonic()))
            bench.put("loop_spawns", m.name, m.marks.count())
            bench.put("loop_cpu_ms", m.name,
                      cpu_ms(m) - m.before)
            m.marks.heal()
        time.sleep(1 if bench.sizes.smoke else 15)
        for m in running:
            bench.put("loop_fails", m.name, int(len(m.children()) != 1))
    finally:
        for manager in running:
            manager.end()
            manager.end_survivors()


def begin_failing(manager):
    """Its command fails too, or waits for what never comes: not of interest."""
    if isinstance(manager, Pup):
        manager.timed(*manager.pup("start", "all", "--no-wait"), may_fail=True)
        return
    try:
        manager.start_all()
    except machine.Fault:
        pass


def stubborn(bench):
    """A process that ignores SIGTERM, with a grace of one second."""
    for kind in bench.patient:
        with Ended(kind(bench.programs, 1, "stubborn", 1,
                        name=f"{kind.name}-stubborn")) as manager:
            manager.launch()
            manager.start_all()
            (_, pid), = manager.marks.wait(1)
            began, _ = manager.stop_one()
            try:
                gone = all_gone([pid], limit=20)
            except machine.Fault:
                bench.put("stubborn_ms", kind.name, float("inf"))
                continue
            bench.put("stubborn_ms", kind.name,
                      milliseconds(began, gone) - 1000)


FAMILIES = ("group", "session", "daemon", "shell")


def survivors(bench):
    """What lives on of a process that has a child of its own: in its process
    group, in a session of its own, adopted by init, behind a shell; after a
    stop, and after kill -9 of the process and its restart."""
    for kind in bench.patient:
        for family in FAMILIES:
            with Ended(kind(bench.programs, 1, family, 2,
                            name=f"{kind.name}-{family}")) as manager:
                manager.launch()
                manager.start_all()
                manager.marks.wait(1)
                settle(1.2)
                old = set(manager.children())
                first = min(old, key=start_time)
                os.kill(first, signal.SIGKILL)
                manager.marks.wait(2)
                settle(0.3)
                bench.put(f"left_by_kill_{family}", kind.name,
                          len(old & set(manager.children())))
                for pid in old & set(manager.children()):
                    os.kill(pid, signal.SIGKILL)
                manager.stop_one()
                settle(0.3)
                bench.put(f"left_by_stop_{family}", kind.name,
                          len(manager.children()))


def settle(seconds):
    """Processes end at their own pace; a survivor has no event to wait for."""
    time.sleep(seconds)


def start_time(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19]), pid


def soak(bench):
    """As many restarts as a minute holds, by kill -9: what grows?"""
    n = bench.sizes.soak_processes
    with Ended(Pup(bench.programs, n, name="pup-soak")) as manager:
        manager.launch()
        manager.start_all()
        started = n
        manager.marks.wait(started)
        first = None
        for number in range(bench.sizes.soak_rounds):
            time.sleep(1.1)
            for _, pid in manager.marks.read(started - n, started):
                os.kill(pid, signal.SIGKILL)
            started += n
            manager.marks.wait(started, limit=30)
            # The first rounds fill pools and caches.
            if number == bench.sizes.soak_rounds // 5:
                first = grown(manager)
        last = grown(manager)
        bench.put("soak_restarts", "pup", started - n)
        bench.put("soak_pss_mb", "pup", (last[0] - first[0]) / 1e6)
        bench.put("soak_fds", "pup", last[1] - first[1])
        bench.put("soak_zombies", "pup", last[2])


def grown(manager):
    """(PSS, descriptors, zombies) of a manager."""
    time.sleep(0.3)
    pids = manager.pids()
    zombies = 0
    for pid in machine.descendants(*pids):
        try:
            with open(f"/proc/{pid}/stat") as file:
                zombies += file.read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError:
            continue
    return (machine.pss_bytes(pids),
            sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids), zombies)


def thousand(bench):
    """One cluster from 0 to 1,000 instances and back."""
    n = bench.sizes.cluster
    for number in range(min(3, bench.sizes.rounds)):
        told, starts = bench.floor("start", n)
        bench.put("cluster_up_ms", "floor",
                  milliseconds(told["began_ns"], max(x for x, _ in starts)))
        bench.put("cluster_down_ms", "floor", told["stop_ms"])
        with Ended(Pup(bench.programs, n, cluster=True,
                       name=f"pup-cluster-{number}")) as manager:
            manager.launch()
            began, _ = manager.scale(n)
            starts = manager.marks.wait(n)
            bench.put("cluster_up_ms", "pup",
                      milliseconds(began, max(x for x, _ in starts)))
            for began, ended in manager.timed(*manager.status_command(),
                                              repeats=bench.sizes.statuses):
                bench.put("cluster_status_ms", "pup",
                          milliseconds(began, ended))
            if number == 0:
                time.sleep(1)
                bench.put("cluster_pss", "pup",
                          machine.pss_bytes(manager.pids()) / 1e6)
            began, ended = manager.scale(0)
            bench.put("cluster_down_ms", "pup", milliseconds(
                began, max(ended, all_gone([pid for _, pid in starts]))))
            if manager.children():
                raise machine.Fault("instances live on after a scale to 0")


ROWS = {x.__name__: x for x in (empty, one, fleet, idle, loop, stubborn,
                                survivors, soak, thousand)}
