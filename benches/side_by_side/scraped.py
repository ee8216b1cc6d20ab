"""What it costs to be looked at: one switchmaster, with its metrics scraped every second and without, in one run.

In each round, for each workload, the same process is measured three times, in an order that turns from round to round: `off`
(nobody asks), `on` (GET /metrics each second, as Prometheus does), and `off-again`, which says how far two measurements of the
same thing differ. The processor time is that of the whole process, its admin thread among it; the requests a second also bear
what the asker itself takes of a machine that it shares. Exit code: 0 all was measured, 1 some measurement failed, 2 the run
could not begin.
"""

import argparse
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True

import figures  # noqa: E402
import idle  # noqa: E402
import loads  # noqa: E402
import programs  # noqa: E402
import readings  # noqa: E402
import workloads  # noqa: E402
from words import say  # noqa: E402

OFF, ON, AGAIN = "off", "on", "off-again"
ARMS = [OFF, ON, AGAIN]
# Without pipelining the system calls cost most, with it what is done for each request; the third is bytes.
DEFAULT = ["get50", "get50p16", "get16k"]
# (rounds, seconds a measurement): long enough for some scrapes in each.
FULL = (9, 5.0)
QUICK = (3, 1.2)
EVERY_S = 1.0
# Scrapes in a row, to know what one takes by itself.
ALONE = 100
ANSWER_S = 3.0
# The promise: within one hundredth.
MOST_OFF = 0.01
FIGURES = {"cpu_us": "us of the proxy a request", "rps": "requests/s"}
# What must be in an answer that counts as a scrape.
SIGN = b"switchmaster_bytes_total{"


class Asker:
    """Asks for the metrics each second while it is in its `with` block."""

    def __init__(self, port):
        self.port, self.scrapes, self.bytes, self.error = port, 0, 0, None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(2 * ANSWER_S)

    def run(self):
        due = time.monotonic()
        while not self.stop.is_set():
            try:
                self.bytes = scrape(self.port)
                self.scrapes += 1
            except OSError as error:
                self.error = str(error)
                return
            due += EVERY_S
            self.stop.wait(max(0.0, due - time.monotonic()))


def scrape(port):
    """The length of one answer. Raises OSError when it is none."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as asked:
        asked.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: asked.recv(65536), b""))
    if not answer.startswith(b"HTTP/1.1 200 ") or SIGN not in answer:
        raise OSError(f"no metrics: {answer[:100]!r}")
    return len(answer)


def arguments():
    names = [w.name for w in workloads.WORKLOADS]
    parser = argparse.ArgumentParser(prog="scripts/bench --scraped", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="half a minute, for a first look: no figure of worth")
    parser.add_argument("--rounds", type=int, help=f"default {FULL[0]}, quick {QUICK[0]}")
    parser.add_argument("--seconds", type=float, help=f"of one measurement (default {FULL[1]:g}, quick {QUICK[1]:g})")
    parser.add_argument("--only", metavar="WORKLOADS", default=",".join(DEFAULT), help=f"of {', '.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement of every round")
    parser.add_argument("--switchmaster", default="target/release/switchmaster", help=argparse.SUPPRESS)
    parser.add_argument("--floor", help=argparse.SUPPRESS)
    args = parser.parse_args()
    rounds, seconds = QUICK if args.quick else FULL
    args.rounds = rounds if args.rounds is None else args.rounds
    args.seconds = seconds if args.seconds is None else args.seconds
    chosen = args.only.split(",")
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"{', '.join(unknown)}: not one of {', '.join(names)}")
    if not (1 <= args.rounds <= 1000 and 1.1 <= args.seconds <= 600):
        parser.error("rounds are 1 to 1000; seconds 1.1 to 600, as there is a scrape each second")
    args.only = [w for w in workloads.WORKLOADS if w.name in chosen]
    return args


def measure(args, bench):
    """All measurements, in the form that `figures` reads: an arm is a program there."""
    bench.start_servers()
    admin = programs.free_port()
    sentinels = ",".join(f"127.0.0.1:{port}" for port in bench.sentinel_ports)

    def program(port):
        return [bench.binaries["switchmaster"], "run", "--sentinel", sentinels, "--master", "mymaster", "--listen",
                f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]

    proxy, port = bench.start("switchmaster", program)
    alone_ms = alone(admin, proxy)
    measurements, rates = [], {}
    for number in range(1, args.rounds + 1):
        for place, workload in enumerate(args.only):
            wire = loads.Wire(bench.server_port)
            wire.set(loads.KEY, b"x" * workload.size)
            wire.close()
            if workload.name not in rates:
                wanted = loads.requests_for(workload, workload.warm_up, 1.0)
                rates[workload.name] = loads.measure(proxy, port, workload, wanted, args.seconds)["rps"]
            for arm in figures.order(ARMS, number + place):
                seen = {"round": number, "workload": workload.name, "program": arm, "figures": {}, "error": None}
                try:
                    wanted = loads.requests_for(workload, rates[workload.name], args.seconds)
                    seen["figures"] = one(arm, admin, proxy, port, workload, wanted, args.seconds)
                    rates[workload.name] = seen["figures"]["rps"]
                except (loads.Failed, OSError) as error:
                    seen["error"] = str(error)
                    say(f"FAILED: round {number}, {workload.name}, {arm}: {error}")
                measurements.append(seen)
        say(f"round {number} of {args.rounds} done")
    return measurements, alone_ms


def alone(admin, proxy):
    """What one scrape takes of a proxy that has nothing else to do, in ms of processor time."""
    scrape(admin)
    pids = proxy.pids()
    before = readings.cpu_ns(pids)
    for _ in range(ALONE):
        scrape(admin)
    return (readings.quiet_cpu_ns(pids) - before) / 1e6 / ALONE


def one(arm, admin, proxy, port, workload, wanted, seconds):
    if arm != ON:
        return loads.measure(proxy, port, workload, wanted, seconds)
    begun = time.monotonic()
    with Asker(admin) as asker:
        measured = loads.measure(proxy, port, workload, wanted, seconds)
    if asker.error:
        raise loads.Failed(f"a scrape failed: {asker.error}")
    # One at the beginning, and one for each second that was begun; a late one is due at once.
    if asker.scrapes < int((time.monotonic() - begun) / EVERY_S):
        raise loads.Failed(f"{asker.scrapes} scrapes are fewer than one a second")
    return measured | {"scrapes": asker.scrapes, "scrape_bytes": asker.bytes}


def summarise(measurements):
    """One row for each workload and figure. Pure."""
    rows = []
    present = [w.name for w in workloads.WORKLOADS if any(m["workload"] == w.name for m in measurements)]
    for workload in present:
        for figure in FIGURES:
            more = workloads.FIGURES[figure][2]
            ratio = figures.spread(figures.ratios(measurements, figure, workload, ON, OFF))
            control = figures.spread(figures.ratios(measurements, figure, workload, AGAIN, OFF))
            must = 1 - MOST_OFF if more else 1 + MOST_OFF
            noise = figures.noise(control)
            rows.append({
                "workload": workload, "figure": figure, "ratio": ratio, "control": control, "noise": noise,
                "off": figures.spread(figures.of(measurements, figure, workload, OFF).values()),
                "verdict": figures.verdict(ratio["median"], must, noise, more) if ratio else "not measured",
            })
    return rows


def table(rows):
    """For people. Pure."""
    def shown(spread):
        if not spread:
            return "-"
        return f"{spread['median']:.4f} ({spread['q1']:.4f} to {spread['q3']:.4f})"

    lines = [f"Scraped every second against not, the same process; ratios are medians over rounds, with the middle half. "
             f"off-again / off is noise. Within {MOST_OFF:.0%}:", ""]
    head = f"{'workload':<10} {'figure':<26} {'off':>12}  {'on / off':<26} {'off-again / off':<26} verdict"
    lines += [head, "-" * len(head)]
    for row in rows:
        off = f"{row['off']['median']:.3f}" if row["off"] else "-"
        lines.append(f"{row['workload']:<10} {FIGURES[row['figure']]:<26} {off:>12}  {shown(row['ratio']):<26} "
                     f"{shown(row['control']):<26} {row['verdict']}")
    return "\n".join(lines)


def main():
    args = arguments()
    for end in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    minutes = len(args.only) * len(ARMS) * args.rounds * (args.seconds + 0.3) / 60
    say(f"about {minutes:.1f} min: {', '.join(w.name for w in args.only)}, {args.rounds} rounds of {args.seconds:g} s")
    try:
        machine = readings.describe()
        binaries = {"server": programs.find_server(), "switchmaster": str(Path(args.switchmaster).resolve())}
        with tempfile.TemporaryDirectory(prefix="scraped-") as folder:
            with programs.Bench(folder, binaries, idle.raise_descriptors()) as bench:
                measurements, alone_ms = measure(args, bench)
    except (programs.NotStarted, loads.Failed, OSError, subprocess.TimeoutExpired) as error:
        print(f"scripts/bench --scraped: {error}", file=sys.stderr)
        return 2
    rows = summarise(measurements)
    if args.json:
        about = {"machine": machine, "rounds": args.rounds, "seconds": args.seconds, "quick": args.quick,
                 "scrape_alone_ms": alone_ms, "summary": rows, "measurements": measurements}
        args.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    print(f"{machine['processor']}, {machine['cpus']} CPUs, {machine['kernel']}; busy before: "
          f"{machine['busy_before_percent']} %\n")
    print(table(rows))
    print(f"\nOne scrape takes {alone_ms:.2f} ms of the proxy's processor time when it has nothing else to do.")
    return 1 if any(m["error"] for m in measurements) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
