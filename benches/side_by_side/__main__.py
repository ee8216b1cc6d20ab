"""Measures switchmaster beside HAProxy, nginx, a bare relay and the server itself, in one run: see CONTRIBUTING.md.

Every figure is a ratio to HAProxy in the same round. HAProxy is measured twice; what differs there is noise, and
nothing smaller is claimed. Exit code: 0 all was measured, 1 some measurement failed, 2 the run could not begin.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

sys.dont_write_bytecode = True

import figures  # noqa: E402
import idle  # noqa: E402
import loads  # noqa: E402
import plot  # noqa: E402
import programs  # noqa: E402
import readings  # noqa: E402
import tables  # noqa: E402
import workloads  # noqa: E402
from words import say  # noqa: E402

SCHEMA = 1
# (rounds, seconds a measurement, repetitions and seconds of idle sessions)
FULL = (7, 1.8, 2, 10.0)
QUICK = (3, 0.3, 1, 1.0)
# A calibration takes about this long, and so does whatever is around a measurement.
AROUND_S = 0.25
# A run that takes so many times longer than planned says so and stops measuring.
LATE = 2.0
LATE_AT_LEAST_S = 60
# Of a value that is read through a proxy byte by byte before anything is measured.
PROOF_KEY, PROOF_SIZE = "proof", workloads.MIB


def arguments():
    names = [w.name for w in workloads.WORKLOADS]
    known = [*programs.PROGRAMS, programs.DIRECT]
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 minutes instead of 25, for a first look")
    parser.add_argument("--rounds", type=int, help="rounds, each with every program once (default 7, quick 3)")
    parser.add_argument("--seconds", type=float, help="of one measurement (default 1.8, quick 0.3)")
    parser.add_argument("--only", type=listed(names), default=names, metavar="WORKLOADS",
                        help=f"of {', '.join(names)}; or 'none', for idle sessions alone")
    parser.add_argument("--programs", type=listed(known), metavar="PROGRAMS",
                        default=[n for n in known if n not in programs.ON_DEMAND],
                        help=f"of {', '.join(known)}; haproxy and haproxy-again are always among them")
    parser.add_argument("--idle-seconds", type=float, help="of idle sessions (default 10, quick 1)")
    parser.add_argument("--no-idle", action="store_true", help="leave the idle sessions out")
    parser.add_argument("--tls", action="store_true",
                        help="clients come with TLS, which the proxies end: HAProxy and switchmaster, no idle sessions")
    parser.add_argument("--syscalls", action="store_true", help="also count system calls per request (needs perf)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement of every round")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report, as docs/benchmarks.md is")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the plot")
    parser.add_argument("--from", type=Path, metavar="FILE", dest="source",
                        help="measure nothing: write the report of this JSON file")
    parser.add_argument("--switchmaster", default="target/release/switchmaster", help=argparse.SUPPRESS)
    parser.add_argument("--floor", default="target/release/examples/floor", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rounds, seconds, args.repetitions, idle_seconds = QUICK if args.quick else FULL
    args.rounds = rounds if args.rounds is None else args.rounds
    args.seconds = seconds if args.seconds is None else args.seconds
    args.idle_seconds = idle_seconds if args.idle_seconds is None else args.idle_seconds
    if not (1 <= args.rounds <= 1000 and 0.05 <= args.seconds <= 600 and 0.1 <= args.idle_seconds <= 600):
        parser.error("rounds are 1 to 1000, seconds 0.05 to 600, idle seconds 0.1 to 600")
    args.programs = [n for n in known if n in args.programs or n in (programs.BASE, programs.CONTROL)]
    if args.tls:
        args.programs = [n for n in args.programs if n in programs.WITH_TLS]
        args.no_idle = True
    args.only = [w for w in workloads.WORKLOADS if w.name in args.only]
    return args


def listed(known):
    def parse(text):
        names = [] if text == "none" else [name.strip() for name in text.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return names

    return parse


class Rig:
    """One run: starts what is needed, measures, keeps everything."""

    def __init__(self, args, bench):
        self.args, self.bench = args, bench
        self.running = {}
        self.rates = {}
        self.run = {"measurements": [], "calibrations": [], "idle": [], "syscalls": []}
        carriers = len(args.programs)
        measured = len(args.only) * carriers * (args.rounds * (args.seconds + AROUND_S) + 2 * AROUND_S)
        resting = 0 if args.no_idle else (carriers - 1) * args.repetitions * (args.idle_seconds + 6)
        self.planned_s = measured + resting
        self.over = loads.deadline(LATE * self.planned_s + LATE_AT_LEAST_S)

    def measure(self):
        say(f"about {self.planned_s / 60:.0f} min: {len(self.args.only)} workloads, {self.args.rounds} rounds of "
            f"{self.args.seconds:g} s, {', '.join(self.args.programs)}")
        self.bench.start_servers()
        for name in self.args.programs:
            if name == programs.DIRECT:
                self.running[name] = (None, self.bench.server_port)
            else:
                self.running[name] = self.bench.start_program(name)
        self.prove()
        for number in range(1, self.args.rounds + 1):
            for place, workload in enumerate(self.args.only):
                self.prepare(workload)
                for name in figures.order(self.args.programs, number + place):
                    self.one(number, workload, name)
            say(f"round {number} of {self.args.rounds} done")
        if self.args.syscalls:
            self.count_syscalls()
        if not self.args.no_idle:
            self.rest()
        return self.run

    def prove(self):
        """Every proxy carries a value of 1 MiB unchanged, or nothing is measured."""
        value = bytes(n * 7 % 251 for n in range(PROOF_SIZE))
        for name, (_, port) in self.running.items():
            wire = loads.Wire(port, self.args.tls)
            wire.set(PROOF_KEY, value)
            if wire.get(PROOF_KEY) != value:
                raise programs.NotStarted(f"{name} does not carry a value of {PROOF_SIZE} bytes unchanged")
            wire.close()

    def prepare(self, workload):
        """The key that redis-benchmark reads holds a value of this size."""
        wire = loads.Wire(self.bench.server_port)
        wire.set(loads.KEY, b"x" * workload.size)
        wire.close()

    def one(self, number, workload, name):
        proxy, port = self.running[name]
        seen = {"round": number, "workload": workload.name, "program": name, "figures": {}, "error": None}
        try:
            if self.over():
                raise loads.Failed(f"not begun: the run already takes {LATE:g} times as long as planned")
            if (workload.name, name) not in self.rates:
                wanted = loads.requests_for(workload, workload.warm_up, 1.0)
                warm = loads.measure(proxy, port, workload, wanted, self.args.seconds, self.args.tls)
                self.rates[workload.name, name] = warm["rps"]
                self.run["calibrations"].append({"workload": workload.name, "program": name, "figures": warm})
            wanted = loads.requests_for(workload, self.rates[workload.name, name], self.args.seconds)
            seen["figures"] = loads.measure(proxy, port, workload, wanted, self.args.seconds, self.args.tls)
            self.rates[workload.name, name] = seen["figures"]["rps"]
        except (loads.Failed, OSError) as error:
            seen["error"] = str(error)
            say(f"FAILED: round {number}, {workload.name}, {name}: {error}")
        self.run["measurements"].append(seen)

    def count_syscalls(self):
        for workload in self.args.only:
            self.prepare(workload)
            for name, (proxy, port) in self.running.items():
                if proxy is None:
                    continue
                seen = {"workload": workload.name, "program": name, "per_request": None, "error": None}
                try:
                    rate = self.rates.get((workload.name, name), workload.warm_up)
                    wanted = loads.requests_for(workload, rate, self.args.seconds)
                    seen["per_request"] = loads.syscalls(proxy, port, workload, wanted, self.args.tls)
                except loads.Failed as error:
                    seen["error"] = str(error)
                self.run["syscalls"].append(seen)

    def rest(self):
        for name in list(self.running):
            proxy, _ = self.running.pop(name)
            if proxy:
                self.bench.end(proxy)
        counts = idle.QUICK_COUNTS if self.args.quick else idle.COUNTS
        counts = idle.counts(counts, self.bench.descriptors, 5 * programs.SPARE_DESCRIPTORS)
        for repetition in range(1, self.args.repetitions + 1):
            for name in figures.order([n for n in self.args.programs if n != programs.DIRECT], repetition):
                seen = {"repetition": repetition, "program": name, "figures": {}, "error": None}
                try:
                    if self.over():
                        raise loads.Failed(f"not begun: the run already takes {LATE:g} times as long as planned")
                    proxy, port = self.bench.start_program(name)
                    try:
                        seen["figures"] = idle.measure(proxy, port, counts, self.args.idle_seconds)
                    finally:
                        self.bench.end(proxy)
                except (loads.Failed, programs.NotStarted, OSError) as error:
                    seen["error"] = str(error)
                    say(f"FAILED: idle sessions, {name}: {error}")
                self.run["idle"].append(seen)
        say("idle sessions done")


def run(args):
    descriptors = idle.raise_descriptors()
    binaries = {
        "server": programs.find_server(),
        "switchmaster": str(Path(args.switchmaster).resolve()),
        "floor": str(Path(args.floor).resolve()),
    }
    begun = datetime.now(timezone.utc)
    about = {
        "schema": SCHEMA,
        "begun": begun.isoformat(timespec="seconds"),
        "command": " ".join(["scripts/bench", *shown(sys.argv[1:])]),
        "commit": commit(),
        "machine": readings.describe() | {"descriptors": descriptors},
        "settings": {"rounds": args.rounds, "seconds": args.seconds, "idle_seconds": args.idle_seconds,
                     "repetitions": args.repetitions, "quick": args.quick, "tls": args.tls},
        "programs": args.programs,
        "versions": programs.versions(binaries, args.programs),
    }
    with tempfile.TemporaryDirectory(prefix="side-by-side-") as folder:
        with programs.Bench(folder, binaries, descriptors, args.tls) as bench:
            measured = Rig(args, bench).measure()
    about["seconds_taken"] = round((datetime.now(timezone.utc) - begun).total_seconds(), 1)
    about |= measured
    about["summary"] = figures.summarise(about["measurements"], args.programs)
    about["verdicts"] = figures.verdicts(about["summary"])
    about["idle_summary"] = figures.idle_summary(about["idle"], args.programs)
    about["idle_verdicts"] = figures.idle_verdicts(about["idle_summary"])
    return about


def shown(args):
    """Without the two binaries that scripts/bench puts in front."""
    return [arg for arg in args if not arg.startswith(("--switchmaster=", "--floor="))]


def commit():
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main():
    args = arguments()
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    try:
        about = json.loads(args.source.read_text()) if args.source else run(args)
    except (programs.NotStarted, loads.Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"scripts/bench: {error}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    # A JSON file knows text keys only: what is shown must not depend on where it comes from.
    about = json.loads(json.dumps(about))
    print(tables.text(about))
    if args.svg:
        args.svg.write_text(plot.svg(about), encoding="utf-8")
    if args.markdown:
        args.markdown.write_text(tables.markdown(about, args.svg), encoding="utf-8")
    return 1 if figures.failures(about) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
