"""pup's balancer against others; started by bench/run."""
import argparse
import contextlib
import json
import pathlib
import resource
import signal
import sys
import tempfile
import time

from lib import goals, machine, peers, report, rows


def parse():
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", type=lambda x: x.split(","))
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--readme", action="store_true")
    parser.add_argument("--from", dest="source", type=pathlib.Path)
    x = parser.parse_args()
    known = [*rows.ROWS, *rows.SCENES, "unpinned"]
    for name in x.only or []:
        if name not in known:
            parser.error(f"no row {name}; there are {', '.join(known)}")
    if x.list:
        print("\n".join(known))
        sys.exit(0)
    if not x.json and not x.smoke:
        x.json = report.root_folder() / "bench" / "results.json"
    return x


def measure_phase(options, phase, rounds, notes):
    """All rows in one placement: pinned, or as the scheduler likes."""
    sizes = rows.Sizes(options.smoke)
    pinned = phase == "pinned"

    def note(text):
        if text not in notes:
            notes.append(text)
            print(f"  {text}", flush=True)

    figures = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="pup-bench-"))
        setting = peers.Setting(options.build.resolve(), folder, pinned)
        if pinned and not setting.pinned:
            note("one CPU only: nothing can be pinned")
        context = rows.Context(setting, peers.start_all(setting, stack, note),
                               sizes, note)
        # Memory first: what is allocated once stays allocated.
        scenes = [x for x in rows.SCENES if pinned
                  and (not options.only or x in options.only)]
        taken = [x for x in rows.ROWS if not options.only or x in options.only]
        plan = ([(x, True) for x in scenes[:2]] + [(x, False) for x in taken]
                + [(x, True) for x in scenes[2:]])
        for name, is_scene in plan:
            began = time.monotonic()
            print(f"  {name} …", end=" ", flush=True)
            found = (rows.SCENES[name](context) if is_scene
                     else rows.in_rounds(context, name, rounds))
            figures.update(found)
            print(f"{time.monotonic() - began:.1f} s", flush=True)
    return figures


def run(options):
    began = time.monotonic()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (65_536, most):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (wanted, max(wanted, most)))
            break
        except (ValueError, OSError):
            continue  # only the administrator may raise the upper bound
    notes = []
    held = rows.Sizes(False).held
    if held > peers.most_connections():
        notes.append(f"a process may have {peers.most_descriptors()} "
                     f"descriptors: {peers.most_connections()} idle connections "
                     f"are held instead of {held}")
    results = {"machine": machine.describe(), "smoke": options.smoke,
               "only": options.only, "notes": notes, "figures": {}, "rounds": {}}
    plan = {"pinned": 1 if options.smoke else options.rounds}
    if not options.smoke and (not options.only or "unpinned" in options.only):
        # For the record: the goals are judged pinned.
        plan["unpinned"] = min(options.rounds, 3)
    for phase, rounds in plan.items():
        print(f"{phase}:", flush=True)
        results["rounds"][phase] = rounds
        results["figures"][phase] = measure_phase(options, phase, rounds,
                                                  notes)
    results["seconds"] = time.monotonic() - began
    return results


def main():
    options = parse()
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.source:
        results = json.loads(options.source.read_text())
    else:
        results = run(options)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    report.tell(results)
    if results["smoke"]:
        report.rehearse_readme(results)
    if options.readme:
        if results["smoke"]:
            sys.exit("bench: figures of a smoke run do not go into the README")
        report.write_readme(results, report.root_folder())
    broken = goals.broken(results["figures"]["pinned"])
    if broken:
        sys.exit("bench: not reached however few connections: "
                 + "; ".join(broken))


if __name__ == "__main__":
    try:
        main()
    except machine.Fault as fault:
        sys.exit(f"bench: {fault}")
