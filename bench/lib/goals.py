"""The goals, and whether a run's figures reach them.

A ratio is taken within each round, between neighbours in time, and the median
of the rounds counts: what slows a shared machine for a while slows both."""
import statistics


class Verdict:
    """`reached` is none when a figure is missing."""

    def __init__(self, goal, found, reached):
        self.goal, self.found, self.reached = goal, found, reached


def ratios(figures, metric, peer, other, base=None):
    """Of each round; less `base`, such as what there is without a balancer."""
    per_peer = figures.get(metric, {})
    rows = [per_peer.get(x) for x in (peer, other)]
    if not all(rows):
        return []
    bases = per_peer.get(base) or [0] * len(rows[0])
    return [(a - b) / (c - b) if c > b else float("inf")
            for a, c, b in zip(*rows, bases)]


def spread(values):
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return (f"{statistics.median(values):.2f} "
            f"[{min(values):.2f}..{max(values):.2f}]")


class Against:
    """pup's figure as a ratio to each of some peers'."""
    exact = False

    def __init__(self, title, metric, limits, least=False, base=None,
                 peer="pup"):
        self.title, self.metric, self.limits = title, metric, limits
        self.least, self.base, self.peer = least, base, peer

    def judge(self, figures):
        sign = "≥" if self.least else "≤"
        goal = ", ".join(f"{sign} {limit:.2f} × {peer}"
                         for peer, limit in self.limits.items())
        found, reached = [], True
        for other, limit in self.limits.items():
            values = ratios(figures, self.metric, self.peer, other, self.base)
            if not values:
                continue
            ratio = statistics.median(values)
            reached &= ratio >= limit if self.least else ratio <= limit
            found.append(f"{spread(values)} × {other}")
        if not found:
            return Verdict(goal, "not measured", None)
        return Verdict(goal, ", ".join(found), reached)


class Bound:
    """A figure of pup's own and its limit. An exact one holds however few
    connections it was measured with."""

    def __init__(self, title, metric, limit, unit="", peer="pup",
                 exact=False):
        self.title, self.metric, self.limit = title, metric, limit
        self.unit, self.peer, self.exact = unit, peer, exact

    def judge(self, figures):
        goal = f"≤ {self.limit:g}{self.unit}"
        values = figures.get(self.metric, {}).get(self.peer)
        if not values:
            return Verdict(goal, "not measured", None)
        return Verdict(goal, spread(values) + self.unit,
                       statistics.median(values) <= self.limit)


def both(title, metric, limit, unit="", exact=False):
    """The same bound for the proxy and for zero-hop."""
    return [Bound(title, metric, limit, unit, exact=exact),
            Bound(title + ", zero-hop", metric, limit, unit, "pup zero-hop",
                  exact)]


BOTH = ("nginx", "haproxy")
# A figure below what can be told from noise is no worse.
NO_WORSE = 1.02

GOALS = [
    Against("CPU per 100k keep-alive requests", "keepalive_cpu",
            {"nginx": 0.90, "haproxy": 0.95}),
    Against("CPU per 100k new connections", "connections_cpu",
            {"nginx": 0.75, "haproxy": 0.78}),
    Bound("TCP segments per connection", "segments", 17.0),
    Against("bulk CPU per GiB, 1 stream", "bulk1_cpu",
            {**dict.fromkeys(BOTH, 0.20), "haproxy splice": NO_WORSE}),
    Against("bulk CPU per GiB, 8 streams", "bulk8_cpu",
            {**dict.fromkeys(BOTH, 0.13), "haproxy splice": NO_WORSE}),
    Against("bulk GB/s, 1 stream", "bulk1_rate", dict.fromkeys(BOTH, 2.5),
            least=True),
    Against("bulk GB/s, 8 streams", "bulk8_rate", dict.fromkeys(BOTH, 2.5),
            least=True),
    Against("added p50 at 5,000 requests/s", "latency_p50",
            dict.fromkeys(BOTH, 0.95), base="direct"),
    Bound("memory per idle proxied connection", "memory", 0.25, " KiB"),
    Bound("wake-ups while idle", "wakeups", 0),
    Against("zero-hop: keep-alive requests", "keepalive_work",
            {"direct": 0.97}, least=True, peer="pup zero-hop"),
    Against("zero-hop: new connections", "connections_work",
            {"direct": 0.97}, least=True, peer="pup zero-hop"),
    Against("zero-hop: bulk", "bulk1_work", {"direct": 0.95}, least=True,
            peer="pup zero-hop"),
    *both("source hash: moved by 4 to 6", "hash_moved_6", 36, " %"),
    *both("source hash: moved by 4 to 3", "hash_moved_3", 27, " %"),
    *both("source hash: fullest to mean of 4", "hash_even_4", 1.10),
    *both("source hash: fullest to mean of 6", "hash_even_6", 1.15),
    Bound("kill -9 of 1 of 4: lost besides those in flight", "kill_lost_after",
          0, exact=True),
    Bound("kill -9 of 1 of 4, zero-hop: lost", "kill_lost", 0,
          peer="pup zero-hop", exact=True),
    *both("4 to 6 to 2 under load: failed", "scale_failed", 0, exact=True),
    *both("4 to 6 to 2 under load: cut", "scale_cut", 0, exact=True),
    *both("rolling reload under load: failed", "reload_failed", 0, exact=True),
    *both("rolling reload under load: cut", "reload_cut", 0, exact=True),
    Against("node application: CPU per 100k keep-alive requests",
            "node_keepalive", {"pm2": 1.0}),
    Against("node application: CPU per 100k new connections",
            "node_connections", {"pm2": 1.0}),
    Against("node application, zero-hop: keep-alive", "node_keepalive",
            {"pm2": 0.5}, peer="pup zero-hop"),
    Against("node application, zero-hop: new connections", "node_connections",
            {"pm2": 0.5}, peer="pup zero-hop"),
    *both("node application, 4 to 6 to 2: failed", "node_scale_failed", 0, exact=True),
    *both("node application, 4 to 6 to 2: cut", "node_scale_cut", 0, exact=True),
]


def broken(figures):
    """Titles of exact goals that were missed."""
    return [goal.title for goal in GOALS
            if goal.exact and goal.judge(figures).reached is False]
