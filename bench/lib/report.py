"""What a run says: tables for the terminal and for the README."""
import pathlib
import re
import shutil
import statistics
import tempfile
from xml.etree import ElementTree

from . import goals, plot

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"

# Figures of all peers: metric, title, unit, digits after the point.
FIGURES = [
    ("keepalive_cpu", "CPU s per 100k keep-alive requests", 2),
    ("connections_cpu", "CPU s per 100k new connections", 2),
    ("segments", "TCP segments per connection", 1),
    ("bulk1_cpu", "bulk, 1 stream: CPU s per GiB", 3),
    ("bulk8_cpu", "bulk, 8 streams: CPU s per GiB", 3),
    ("bulk1_rate", "bulk, 1 stream: GB/s", 2),
    ("bulk8_rate", "bulk, 8 streams: GB/s", 2),
    ("keepalive_rate", "keep-alive requests/s", 0),
    ("connections_rate", "new connections/s", 0),
    ("latency_p50", "p50 at 5,000 requests/s, µs", 0),
    ("latency_p99", "p99 at 5,000 requests/s, µs", 0),
    ("memory", "KiB per idle connection", 2),
    ("wakeups", "wake-ups while idle", 0),
    ("hash_moved_6", "source hash: % moved by 4 to 6", 1),
    ("hash_moved_3", "source hash: % moved by 4 to 3", 1),
    ("hash_even_4", "source hash: fullest to mean of 4", 2),
    ("hash_even_6", "source hash: fullest to mean of 6", 2),
    ("kill_lost", "kill -9 of 1 of 4: connections lost", 0),
    ("kill_delayed", "kill -9 of 1 of 4: delayed over 200 ms", 0),
    ("scale_failed", "4 to 6 to 2: connections failed", 0),
    ("scale_cut", "4 to 6 to 2: requests cut", 0),
    ("reload_failed", "rolling reload: connections failed", 0),
    ("reload_cut", "rolling reload: requests cut", 0),
    ("node_keepalive", "node: CPU s per 100k keep-alive requests", 2),
    ("node_connections", "node: CPU s per 100k new connections", 2),
    ("node_scale_failed", "node, 4 to 6 to 2: connections failed", 0),
    ("node_scale_cut", "node, 4 to 6 to 2: requests cut", 0),
]
PEERS = ["direct", "nginx", "haproxy", "haproxy splice", "pm2", "pup",
         "pup zero-hop"]


def cells(figures, with_spread):
    """Rows of [title, figure of each peer]; only what was measured."""
    peers = [p for p in PEERS if any(p in x for x in figures.values())]
    rows = [["", *peers]]
    for metric, title, digits in FIGURES:
        if metric not in figures:
            continue
        row = [title]
        for peer in peers:
            values = figures[metric].get(peer)
            if not values:
                row.append("")
                continue
            text = f"{statistics.median(values):.{digits}f}"
            if with_spread and len(values) > 1:
                text += (f" [{min(values):.{digits}f}.."
                         f"{max(values):.{digits}f}]")
            row.append(text)
        rows.append(row)
    return rows


def align(rows):
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in
                               zip(row, widths)).rstrip() for row in rows)


def word(reached):
    return {None: "-", True: "pass", False: "SHORT"}[reached]


def verdicts(figures):
    rows = [["", "goal", "found", ""]]
    for goal in goals.GOALS:
        x = goal.judge(figures)
        rows.append([goal.title, x.goal, x.found, word(x.reached)])
    return rows


def tell(results):
    """For the terminal."""
    machine = results["machine"]
    print(f"\n{machine['date']}, {machine['cpus']} × {machine['processor']}, "
          f"Linux {machine['kernel']}, {machine['congestion_control']}, load "
          f"{machine['load_before']:.1f} before; {results['seconds']:.0f} s")
    if results["smoke"]:
        print("smoke: the counts are tiny, the figures mean nothing")
    for phase in ("pinned", "unpinned"):
        figures = results["figures"].get(phase)
        if not figures:
            continue
        print(f"\n== {phase}: median [least..most] of "
              f"{results['rounds'][phase]} rounds\n")
        print(align(cells(figures, True)))
    print("\n== goals (pinned; ratios are medians of the ratios of each round)"
          "\n")
    rows = verdicts(results["figures"].get("pinned")
                    or results["figures"].get("unpinned", {}))
    print(align([row for row in rows if row[3] != "-"]))
    count = [row[3] for row in rows]
    print(f"\n{count.count('pass')} pass, {count.count('SHORT')} short")
    absent = [row[0] for row in rows if row[3] == "-"]
    if absent and not results.get("only"):
        print("not measured: " + "; ".join(absent))
    for note in results["notes"]:
        print(f"note: {note}")


def markdown(rows):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return "\n".join(lines)


def write_readme(results, root):
    """The section between the markers, and the picture it shows."""
    readme = root / "README.md"
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"bench: README.md has no {BEGIN} … {END}")
    figures = results["figures"]["pinned"]
    (root / "docs" / "bench.svg").write_text(plot.picture(figures))
    machine = results["machine"]
    judged = [[row[0], row[1], row[2], row[3].lower()]
              for row in verdicts(figures)[1:] if row[3] != "-"]
    judged[0:0] = [["goal", "", "found: median [least..most]", ""]]
    section = f"""{BEGIN}
![CPU time, segments, throughput and memory of each balancer](docs/bench.svg)

`bench/run`, {machine['date']}, {machine['cpus']} × {machine['processor']}, \
Linux {machine['kernel']}: one processor for the balancer, one for four backends
and the generator, over loopback; medians of {results['rounds']['pinned']} rounds \
that take turns.

{markdown(cells(figures, False))}

<details><summary>Goals</summary>

{markdown(judged)}

</details>
{END}"""
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    readme.write_text(re.sub(pattern, lambda _: section, text, flags=re.S))


def rehearse_readme(results):
    """Writes a copy, so that a glance finds what keeps it from being written."""
    with tempfile.TemporaryDirectory(prefix="pup-bench-") as folder:
        copy = pathlib.Path(folder)
        (copy / "docs").mkdir()
        shutil.copy(root_folder() / "README.md", copy)
        write_readme(results, copy)
        ElementTree.parse(copy / "docs" / "bench.svg")
        text = (copy / "README.md").read_text()
        if results["machine"]["date"] not in text:
            raise SystemExit("bench: README.md got no date")


def root_folder():
    return pathlib.Path(__file__).resolve().parents[2]
