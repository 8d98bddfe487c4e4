"""The measurements. A row of ROWS is taken in rounds A B C … A B C …, one value
of each peer a round; a row of SCENES is one story each."""
import contextlib
import os
import select
import signal
import time

from . import machine
from .peers import (CheckedHaproxy, Haproxy, Nginx, Pm2, Pup,
                    most_connections)

GIB = 1 << 30
# Milliseconds until an unanswered request counts as lost where losses are what
# is measured: a machine that is merely too busy answers late, and that is told
# apart.
PATIENCE = 20_000


class Sizes:
    """How much is done in one measurement: about a second of it, or a glance."""

    def __init__(self, smoke):
        self.smoke = smoke
        self.requests = 400 if smoke else 40_000
        self.connections = 100 if smoke else 8_000
        self.bulk_bytes = GIB // 64 if smoke else GIB
        self.open_seconds = 0.1 if smoke else 1.5
        self.held = 200 if smoke else 10_000
        # Until the timers of what went before have run out, such as the 5 s of
        # a connect.
        self.settle_seconds = 0.5 if smoke else 6
        self.idle_seconds = 1 if smoke else 10
        self.clients = 100 if smoke else 1_000
        self.kill_seconds = 1 if smoke else 4
        self.scale_seconds = 1.5 if smoke else 6
        self.node_requests = 200 if smoke else 15_000
        self.node_connections = 50 if smoke else 3_000
        self.node_rounds = 1 if smoke else 3


class Context:
    """One phase of a run: peers that stand ready, and where results go."""

    def __init__(self, setting, peers, sizes, note):
        self.setting, self.peers = setting, peers
        self.sizes, self.note = sizes, note
        self.load = setting.load

    def backend_pids(self):
        return machine.pids_of_program(self.setting.backend, "PUP_NAME=" +
                                       self.peers["pup"].key) + (
            machine.pids_of_program(self.setting.backend, "PUP_NAME=" +
                                    self.peers["pup zero-hop"].key)
            if "pup zero-hop" in self.peers else [])


# -- rows taken in rounds -----------------------------------------------------


def burdened(context, peer, mode, **options):
    """Runs a load through a peer: its result, with the CPU seconds of the peer
    ("cpu"), of everything ("all_cpu"), and the segments of the network."""
    pids, backends = peer.pids(), context.backend_pids()
    before = machine.settled_cpu_seconds(pids)
    all_before = machine.settled_cpu_seconds(backends)
    segments = machine.tcp_segments()
    result = context.load.run(mode, peer.ports, **options)
    result["cpu"] = machine.settled_cpu_seconds(pids) - before
    result["segments"] = machine.tcp_segments() - segments
    result["all_cpu"] = (result["cpu"] + result["cpu_seconds"]
                         + machine.settled_cpu_seconds(backends) - all_before)
    return result


def keepalive(context, peer):
    """32 connections, each asks again as soon as it is answered."""
    n = context.sizes.requests
    x = burdened(context, peer, "closed", connections=32, requests=n)
    return {"keepalive_cpu": x["cpu"] / n * 1e5,
            "keepalive_rate": n / x["seconds"],
            "keepalive_work": n / x["all_cpu"]}


def connections(context, peer):
    """A new connection for each request, 32 at once; the server closes."""
    n = context.sizes.connections
    x = burdened(context, peer, "closed", connections=32, requests=n,
                 per_connection=1)
    return {"connections_cpu": x["cpu"] / n * 1e5,
            "connections_rate": n / x["seconds"],
            "connections_work": n / x["all_cpu"],
            "segments": x["segments"] / n}


def bulk(streams):
    def measure(context, peer):
        size = context.sizes.bulk_bytes // streams
        x = burdened(context, peer, "closed", connections=streams,
                     requests=streams, path=f"/bytes/{size}")
        gib = x["bytes"] / GIB
        return {f"bulk{streams}_cpu": x["cpu"] / gib,
                f"bulk{streams}_rate": x["bytes"] / 1e9 / x["seconds"],
                f"bulk{streams}_work": gib / x["all_cpu"]}
    measure.__doc__ = f"{streams} downloads at once, to their end."
    return measure


def latency(context, peer):
    """5,000 requests a second, on time whatever the answers do."""
    x = context.load.run("open", peer.ports, rate=5000, connections=64,
                         seconds=context.sizes.open_seconds)
    return {"latency_p50": x["latency_us"]["p50"],
            "latency_p99": x["latency_us"]["p99"]}


ROWS = {"keepalive": keepalive, "connections": connections, "bulk1": bulk(1),
        "bulk8": bulk(8), "latency": latency}


def in_rounds(context, name, rounds):
    """{metric: {peer: [value of each round]}}; a first round does not count."""
    values = {}
    for number in range(-1, rounds):
        for peer in context.peers.values():
            for metric, value in ROWS[name](context, peer).items():
                if number >= 0:
                    values.setdefault(metric, {}).setdefault(
                        peer.name, []).append(value)
    return values


# -- scenes -------------------------------------------------------------------


def balancers(context):
    """One of each program that carries the bytes itself."""
    return [peer for peer in context.peers.values()
            if peer.name not in ("direct", "haproxy splice", "pup zero-hop")]


def unharmed(context):
    """Bytes arrive as they left, both ways: an echo through every balancer."""
    for peer in context.peers.values():
        size = 1 << 20
        x = context.load.run("closed", peer.ports, connections=4, requests=8,
                             method="PUT", path="/echo", upload=size)
        if x["bytes"] != 8 * size:
            raise machine.Fault(f"{peer.name}: {x['bytes']} bytes came back "
                                f"of {8 * size}")
    return {}


def memory(context):
    """Idle connections after one answer each: memory for each of them."""
    held = min(context.sizes.held, most_connections())
    values = {}
    for peer in balancers(context):
        context.load.run("closed", peer.ports, connections=32, requests=320)
        pids = peer.pids()
        before = machine.pss_bytes(pids)
        load = context.load.start("hold", peer.ports, connections=held)
        line = load.stdout.readline()
        if '"lost": 0' not in line:
            raise machine.Fault(f"{peer.name} did not hold {held} connections: "
                                f"{line[:300]}")
        values[peer.name] = [(machine.pss_bytes(pids) - before) / held / 1024]
        load.communicate()
    return {"memory": values}


def idle(context):
    """100 idle connections through each, all at the same time."""
    loads = []
    for peer in balancers(context):
        load = context.load.start("hold", peer.ports, connections=100)
        load.stdout.readline()
        loads.append(load)
    time.sleep(context.sizes.settle_seconds)
    before = {peer.name: machine.voluntary_switches(peer.pids())
              for peer in balancers(context)}
    time.sleep(context.sizes.idle_seconds)
    values = {peer.name: [machine.voluntary_switches(peer.pids())
                          - before[peer.name]]
              for peer in balancers(context)}
    for load in loads:
        load.communicate()
    return {"wakeups": values}


def hashes(context):
    """Who serves 1,000 clients by the hash of their address, with 4, 6 and 3
    instances."""
    count = context.sizes.clients
    values = {}

    def ask(port):
        return context.load.run("who", [port], sources=count)["who"]

    def judge(name, at):
        def share(a, b):
            return 100 * sum(x != y for x, y in zip(at[a], at[b])) / count

        def unevenness(n):
            loads = [at[n].count(x) for x in set(at[n])]
            return max(loads) * n / count

        for metric, value in (("hash_moved_6", share(4, 6)),
                              ("hash_moved_3", share(4, 3)),
                              ("hash_even_4", unevenness(4)),
                              ("hash_even_6", unevenness(6))):
            values.setdefault(metric, {})[name] = [value]

    for peer in context.peers.values():
        if isinstance(peer, (Nginx, Haproxy)):
            # Each instance's name is the same on all ports.
            context.peers["pup"].scale(6)
            judge(peer.name, {n: ask(p) for n, p in peer.hash_ports.items()})
    context.peers["pup"].scale(4)
    for name, mode, port, start in (("pup", "proxy", 3102, 8200),
                                    ("pup zero-hop", "inherit", 3103, 8300)):
        if name not in context.peers:
            continue
        pup = Pup(context.setting, name + " hash", port,
                  context.setting.on_other_cpu(context.setting.backend), start,
                  mode=mode, strategy="source-ip-hash")
        refusal = pup.refusal()
        if refusal:
            context.note(f"source hash of {name} is left out: {refusal}")
            continue
        with contextlib.ExitStack() as stack:
            stack.callback(pup.stop)
            pup.start()
            at = {4: ask(port)}
            for n in (6, 3):
                pup.scale(n)
                at[n] = ask(port)
            judge(name, at)
    return values


def kill(context):
    """kill -9 of one of four under 2,000 new connections a second. pup starts
    it again at once, for all balancers alike."""
    values = {}
    with contextlib.ExitStack() as stack:
        peers = [p for p in context.peers.values() if p.name != "haproxy splice"]
        if "haproxy" in context.peers:
            checked = CheckedHaproxy(context.setting)
            stack.callback(checked.stop)
            peers = [checked if p.name == "haproxy" else p for p in peers]
        for peer in peers:
            owner = peer if isinstance(peer, Pup) else context.peers["pup"]
            wait_until_ready(owner, 4)
            seconds = context.sizes.kill_seconds
            load = context.load.start("open", peer.ports, rate=2000,
                                      seconds=seconds, per_connection=1,
                                      timeout=PATIENCE)
            time.sleep(seconds / 4)
            died = kill_and_wait(owner.instances()[1]["pid"])
            x = machine.finish(load, lossless=False)
            # Opened before the instance and its sockets were gone.
            in_flight = sum(opened <= died
                            for _, _, opened, _, _ in x["failures"])
            if x["lost"] > in_flight:
                context.note(f"kill -9 behind {peer.name}: of "
                             f"{x['lost'] + x['answered']} connections lost: "
                             f"{x['failed']}, {in_flight} of them in flight")
            name = "haproxy" if peer.name == "haproxy checked" else peer.name
            for metric, value in (("kill_lost", x["lost"]),
                                  ("kill_lost_after", x["lost"] - in_flight),
                                  ("kill_delayed", x["slow"])):
                values.setdefault(metric, {})[name] = [value]
    return values


def kill_and_wait(pid):
    """Returns when it was gone, in nanoseconds of the monotonic clock."""
    handle = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
        select.select([handle], [], [], 10)
        return time.monotonic_ns()
    finally:
        os.close(handle)


def wait_until_ready(pup, count, limit=30):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        ready = [x for x in pup.instances() if x["state"] == "ready"]
        if len(ready) == count:
            return
        time.sleep(0.05)
    raise machine.Fault(f"{pup.name}: {count} instances are not ready after "
                        f"{limit} s")


@contextlib.contextmanager
def traffic(context, peer, found):
    """500 new connections and 1,000 requests on kept ones a second while
    something happens; a kept one ends after 50 requests, as clients' do."""
    seconds = context.sizes.scale_seconds
    new = context.load.start("open", peer.ports, rate=500, seconds=seconds,
                             per_connection=1, timeout=PATIENCE)
    kept = context.load.start("open", peer.ports, rate=1000, seconds=seconds,
                              per_connection=50, connections=64,
                              timeout=PATIENCE)
    time.sleep(seconds / 6)
    yield seconds
    new, kept = (machine.finish(x, lossless=False) for x in (new, kept))
    found["failed"] = new["lost"] + kept["lost"] - kept["cut"]
    found["cut"] = kept["cut"]


def scale(context):
    """4 to 6 to 2 under load, then a rolling reload where there is one."""
    values = {}

    def put(metric, peer, value):
        values.setdefault(metric, {})[peer.name] = [value]

    for peer in (context.peers.get(x) for x in ("pup", "pup zero-hop")):
        if peer is None:
            continue
        found = {}
        with traffic(context, peer, found) as seconds:
            peer.scale(6)
            time.sleep(seconds / 6)
            peer.scale(2)
        put("scale_failed", peer, found["failed"])
        put("scale_cut", peer, found["cut"])
        peer.scale(4)
        with traffic(context, peer, found):
            reload = peer.run("--name", peer.key, "reload", "web")
        if reload.returncode != 0:
            context.note(f"reload of {peer.name} is left out: "
                         f"{reload.stderr.strip()}")
            continue
        put("reload_failed", peer, found["failed"])
        put("reload_cut", peer, found["cut"])
    return values


# -- a node application, by PM2 and by pup --------------------------------------

NODE_APP = """\
// Listens where its manager says: a socket passed as fd 3, or $PORT.
const server = require('http').createServer((_, answer) => {
  answer.setHeader('Content-Length', '3');
  answer.end('ok\\n');
});
if (process.env.LISTEN_FDS) server.listen({fd: 3});
else server.listen(Number(process.env.PORT), '127.0.0.1');
"""


def node(context):
    """The same node application under PM2's cluster mode and under pup, manager
    and application on one CPU: CPU time of all of them."""
    setting, sizes, values = context.setting, context.sizes, {}
    if not setting.pm2.exists():
        context.note("PM2 is not installed; its rows are left out")
        return {}
    app = setting.write("node/app.js", NODE_APP)
    with contextlib.ExitStack() as stack:
        managed = []
        for name, mode, port, start in (
                ("pup", "proxy", 3110, 8400),
                ("pup zero-hop", "inherit", 3111, 8500)):
            pup = Pup(setting, name + " node", port, ["node", str(app)], start,
                      mode=mode)
            if pup.refusal():
                continue  # said before
            stack.callback(pup.stop)
            pup.start()
            managed.append((name, pup))
        pm2 = Pm2(setting, app, 3112)
        stack.callback(pm2.stop)
        managed.insert(0, ("pm2", pm2))

        def pids(peer):
            return (peer.pids() if peer is pm2 else
                    peer.pids() + [x["pid"] for x in peer.instances()])

        for number in range(-1, sizes.node_rounds):
            for name, peer in managed:
                for metric, n, options in (
                        ("node_keepalive", sizes.node_requests, {}),
                        ("node_connections", sizes.node_connections,
                         {"per_connection": 1})):
                    all_pids = pids(peer)
                    before = machine.settled_cpu_seconds(all_pids)
                    context.load.run("closed", peer.ports, connections=32,
                                     requests=n, **options)
                    used = machine.settled_cpu_seconds(all_pids) - before
                    if number >= 0:
                        values.setdefault(metric, {}).setdefault(
                            name, []).append(used / n * 1e5)
        for name, peer in managed:
            found = {}
            with traffic(context, peer, found) as seconds:
                peer.scale(6)
                time.sleep(seconds / 6)
                peer.scale(2)
            values.setdefault("node_scale_failed", {})[name] = [
                found["failed"]]
            values.setdefault("node_scale_cut", {})[name] = [found["cut"]]
    return values


SCENES = {"unharmed": unharmed, "memory": memory, "idle": idle,
          "hash": hashes, "kill": kill, "scale": scale, "node": node}
