"""pup as a supervisor against others; started by bench/supervision."""
import argparse
import json
import pathlib
import signal
import statistics
import sys
import tempfile
import time

from lib import machine, managers, report, supervised


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# -- goals --------------------------------------------------------------------


class Goal:
    """A limit of pup's figure: of its own, or times the floor's of the same
    run. An exact one holds for any count."""

    def __init__(self, row, title, metric, limit, unit="", of=None,
                 times_floor=None, share=0.5, exact=False):
        self.row, self.title, self.metric = row, title, metric
        self.limit, self.unit, self.of = limit, unit, of
        self.times_floor, self.share, self.exact = times_floor, share, exact

    def judge(self, figures):
        per_manager = figures.get(self.metric, {})
        values = per_manager.get("pup")
        text = f"≤ {self.limit:g}{self.unit}" if self.limit is not None else ""
        if self.times_floor:
            text += (" or " if text else "") + f"≤ {self.times_floor:g} × floor"
        if not values:
            return text, "not measured", None
        found = (statistics.median(values) if self.share == 0.5
                 else quantile(values, self.share))
        told = f"{found:.4g}{self.unit}"
        reached = self.limit is not None and found <= self.limit
        floor = per_manager.get("floor")
        if self.times_floor and floor:
            ratio = found / statistics.median(floor)
            told += f", {ratio:.2f} × floor"
            reached |= ratio <= self.times_floor
        return text, told, reached


GOALS = [
    Goal(1, "empty, until status answers", "empty_ms", 12, " ms"),
    Goal(2, "start of 1, exec to main()", "start_1_ms", 5, " ms"),
    Goal(3, "100 all running", "start_100_ms", None, " ms", times_floor=1.3),
    Goal(3, "500 all running", "start_500_ms", None, " ms", times_floor=1.3),
    Goal(4, "stop of 500", "stop_500_ms", 120, " ms"),
    Goal(5, "PSS at 0", "pss_0", 5, " MB"),
    Goal(5, "PSS at 100", "pss_100", 6, " MB"),
    Goal(5, "PSS at 500", "pss_500", 9, " MB"),
    Goal(6, "idle: wake-ups", "idle_switches", 1),
    Goal(6, "idle: CPU", "idle_cpu_ms", 10, " ms"),
    Goal(7, "crash to main(), median", "crash_ms", 1.6, " ms",
         times_floor=1.5),
    Goal(7, "crash to main(), p99", "crash_ms", 4, " ms", share=0.99),
    Goal(8, "status of 10", "status_10_ms", 2, " ms"),
    Goal(8, "status of 500", "status_500_ms", 5, " ms"),
    Goal(8, "status --json of 10", "json_10_ms", 2, " ms"),
    Goal(8, "status --json of 500", "json_500_ms", 5, " ms"),
    Goal(18, "crash loop: starts", "loop_spawns", 8),
    Goal(18, "crash loop: CPU", "loop_cpu_ms", 20, " ms"),
    Goal(18, "crash loop: still failing once healed", "loop_fails", 0),
    Goal(19, "ignores SIGTERM: gone after its grace", "stubborn_ms", 5,
         " ms"),
    *(Goal(19, f"survivors of a {way}, {family}", f"left_by_{way}_{family}",
           0, exact=True)
      for way in ("stop", "kill") for family in supervised.FAMILIES),
    Goal(21, "soak: growth of PSS", "soak_pss_mb", 1, " MB"),
    Goal(21, "soak: descriptors leaked", "soak_fds", 0, exact=True),
    Goal(21, "soak: zombies", "soak_zombies", 0, exact=True),
    Goal("", "cluster of 1,000 all running", "cluster_up_ms", None, " ms",
         times_floor=1.3),
]

FIGURES = [
    ("empty_ms", "empty, until it answers, ms", 1),
    ("start_1_ms", "start of 1, exec to main(), ms", 1),
    ("start_100_ms", "100 all running, ms", 0),
    ("start_500_ms", "500 all running, ms", 0),
    ("start_100_cpu", "100 all running: CPU ms", 1),
    ("start_500_cpu", "500 all running: CPU ms", 1),
    ("stop_100_ms", "stop of 100, ms", 0),
    ("stop_500_ms", "stop of 500, ms", 0),
    ("pss_0", "PSS at 0, MB", 1),
    ("pss_100", "PSS at 100, MB", 1),
    ("pss_500", "PSS at 500, MB", 1),
    ("idle_switches", "idle: wake-ups", 0),
    ("idle_cpu_ms", "idle: CPU ms", 1),
    ("crash_ms", "crash to main(), ms", 2),
    ("status_10_ms", "status of 10, ms", 1),
    ("status_100_ms", "status of 100, ms", 1),
    ("status_500_ms", "status of 500, ms", 1),
    ("json_500_ms", "status --json of 500, ms", 1),
    ("status_10_command_cpu", "status of 10: CPU ms of the command", 1),
    ("status_10_manager_cpu", "status of 10: CPU ms of the manager", 1),
    ("status_500_command_cpu", "status of 500: CPU ms of the command", 1),
    ("status_500_manager_cpu", "status of 500: CPU ms of the manager", 1),
    ("loop_spawns", "crash loop: starts", 0),
    ("loop_cpu_ms", "crash loop: CPU ms", 1),
    ("loop_fails", "crash loop: still failing once healed", 0),
    ("stubborn_ms", "ignores SIGTERM: gone after grace, ms", 1),
    *((f"left_by_{way}_{family}", f"survivors of a {way}, {family}", 0)
      for way in ("stop", "kill") for family in supervised.FAMILIES),
    ("soak_restarts", "soak: restarts", 0),
    ("soak_pss_mb", "soak: growth of PSS, MB", 2),
    ("soak_fds", "soak: descriptors leaked", 0),
    ("soak_zombies", "soak: zombies", 0),
    ("cluster_up_ms", "cluster of 1,000 all running, ms", 0),
    ("cluster_down_ms", "cluster of 1,000 stopped, ms", 0),
    ("cluster_status_ms", "cluster of 1,000: status, ms", 1),
    ("cluster_pss", "cluster of 1,000: PSS, MB", 1),
]
COLUMNS = ["floor", "pm2", "supervisord", "s6", "runit", "pup"]


def tell(results):
    figures, where = results["figures"], results["machine"]
    print(f"\n{where['date']}, {where['cpus']} × {where['processor']}, Linux "
          f"{where['kernel']}, load {where['load_before']:.1f} before; "
          f"{results['seconds']:.0f} s")
    if results["smoke"]:
        print("smoke: the counts are tiny, the figures mean nothing")
    columns = [c for c in COLUMNS if any(c in x for x in figures.values())]
    rows = [["median [least..most]", *columns]]
    for metric, title, digits in FIGURES:
        if metric not in figures:
            continue
        row = [title]
        for column in columns:
            values = figures[metric].get(column, [])
            text = f"{statistics.median(values):.{digits}f}" if values else ""
            if len(values) > 1:
                text += (f" [{min(values):.{digits}f}.."
                         f"{max(values):.{digits}f}]")
            row.append(text)
        rows.append(row)
    print("\n" + report.align(rows))
    judged = [["", "goal", "found", ""]]
    for goal in GOALS:
        text, found, reached = goal.judge(figures)
        if reached is not None:
            judged.append([f"{goal.row:>2}  {goal.title}", text, found,
                           report.word(reached)])
    print("\n" + report.align(judged))
    words = [row[3] for row in judged]
    print(f"\n{words.count('pass')} pass, {words.count('SHORT')} short")
    for note in results["notes"]:
        print(f"note: {note}")


# -- running --------------------------------------------------------------------


def parse():
    parser = argparse.ArgumentParser(prog="bench/supervision")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", type=lambda x: x.split(","))
    parser.add_argument("--managers", type=lambda x: x.split(","))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    x = parser.parse_args()
    if x.list:
        print("\n".join(supervised.ROWS))
        sys.exit(0)
    for name in x.only or []:
        if name not in supervised.ROWS:
            parser.error(f"no row {name}; there are "
                         + ", ".join(supervised.ROWS))
    if not x.json and not x.smoke:
        x.json = report.root_folder() / "bench" / "supervision.json"
    return x


def main():
    options = parse()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    notes = []

    def note(text):
        notes.append(text)
        print(f"  {text}", flush=True)

    began = time.monotonic()
    results = {"machine": machine.describe(), "smoke": options.smoke,
               "notes": notes}
    with tempfile.TemporaryDirectory(prefix="pup-") as folder:
        programs = managers.Programs(options.build.resolve(), folder)
        bench = supervised.Bench(
            programs, managers.present(programs, note, options.managers),
            supervised.Sizes(options.smoke))
        for name, measure in supervised.ROWS.items():
            if options.only and name not in options.only:
                continue
            row_began = time.monotonic()
            print(f"  {name} …", end=" ", flush=True)
            measure(bench)
            print(f"{time.monotonic() - row_began:.1f} s", flush=True)
    results.update(figures=bench.figures, seconds=time.monotonic() - began)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    tell(results)
    broken = [goal.title for goal in GOALS
              if goal.exact and goal.judge(bench.figures)[2] is False]
    if options.smoke and broken:
        sys.exit("bench: not reached however few processes: "
                 + "; ".join(broken))


if __name__ == "__main__":
    try:
        main()
    except machine.Fault as fault:
        sys.exit(f"bench: {fault}")
