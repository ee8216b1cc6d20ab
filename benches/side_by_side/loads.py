"""One measurement: redis-benchmark against one port, and what the proxy spent on it."""

import re
import subprocess
import time

import programs
import readings

# A measurement that takes so many times longer than planned has failed.
TIMES_PLANNED = 10
LEAST_LIMIT_S = 20
# Fewer requests have no p99.9.
LEAST_FOR_P999 = 1_000
# The one key that redis-benchmark uses when it is not told to draw keys.
KEY = "key:__rand_int__"
WIRE_S = 10
# Of what redis-benchmark says when it fails.
MOST_SAID = 300

THROUGHPUT = re.compile(r"throughput summary: ([0-9.]+) requests per second")
SUMMARY = re.compile(r"avg\s+min\s+p50\s+p95\s+p99\s+max\s+((?:[0-9.]+\s+){5}[0-9.]+)")
PERCENTILE = re.compile(r"^([0-9.]+)% <= ([0-9.]+) milliseconds", re.MULTILINE)
COMPLETED = re.compile(r"(\d+) requests completed in")


class Failed(Exception):
    """A measurement that says nothing; the text says why."""


def command(port, workload, requests, tls=False):
    args = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "-t", workload.command, "--precision", "3"]
    args += ["-d", str(workload.size), "-c", str(workload.clients), "-n", str(requests), "-P", str(workload.pipeline)]
    args += ["--tls", "--insecure"] if tls else []
    return args + ([] if workload.keep else ["-k", "0"])


def requests_for(workload, rate, seconds):
    """Whole pipelines, and one for each client at least."""
    step = workload.clients * workload.pipeline
    wanted = max(step, min(int(rate * seconds), workload.most))
    return wanted - wanted % workload.pipeline


def measure(proxy, port, workload, requests, seconds, tls=False):
    """`proxy` is what carries it, None for none. Raises Failed."""
    if proxy and proxy.child.poll() is not None:
        raise Failed("the proxy has ended")
    pids = proxy.pids() if proxy else []
    before = readings.cpu_ns(pids)
    machine = readings.Machine()
    said = run(command(port, workload, requests, tls), max(LEAST_LIMIT_S, TIMES_PLANNED * seconds))
    busy, steal = machine.since()
    figures = parse(said, requests)
    if proxy:
        if sorted(proxy.pids()) != sorted(pids):
            raise Failed("a process of the proxy ended or was replaced meanwhile")
        figures["cpu_us"] = (readings.quiet_cpu_ns(pids) - before) / 1000 / requests
    figures["machine_us"] = busy * 1e6 / requests
    figures["steal_s"] = steal
    return figures


def run(args, limit):
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=limit, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise Failed(f"not done within {limit:.0f} s") from None
    except OSError as error:
        raise Failed(f"{args[0]}: {error}") from None
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip()
        raise Failed(f"{args[0]} ended with {done.returncode}: {said[-MOST_SAID:]}")
    return done.stdout.replace("\r", "\n") + done.stderr


def parse(said, requests):
    """The figures in what redis-benchmark prints. Raises Failed when they are not all there."""
    for line in said.splitlines():
        if re.search(r"\berr(or)?\b|could not connect|refused|reset by peer", line, re.IGNORECASE):
            raise Failed(f"redis-benchmark says: {line.strip()[:MOST_SAID]}")
    throughput, summary, completed = THROUGHPUT.search(said), SUMMARY.search(said), COMPLETED.search(said)
    if not (throughput and summary and completed):
        raise Failed("redis-benchmark printed no summary")
    if int(completed[1]) < requests:
        raise Failed(f"{completed[1]} of {requests} requests were answered")
    p50, p99 = (float(summary[1].split()[column]) for column in (2, 4))
    # The first line at or above it, so never less than the true value.
    high = [float(ms) for percent, ms in PERCENTILE.findall(said) if float(percent) >= 99.9]
    return {
        "requests": requests,
        "rps": float(throughput[1]),
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": high[0] if high and requests >= LEAST_FOR_P999 else None,
    }


def syscalls(proxy, port, workload, requests, tls=False):
    """System calls of the proxy per request, by perf. Raises Failed, too, where perf may not count."""
    pids = ",".join(str(pid) for pid in proxy.pids())
    args = ["perf", "stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", pids, "--"]
    said = run(args + command(port, workload, requests, tls), LEAST_LIMIT_S)
    counted = re.search(r"^(\d+),[^,]*,raw_syscalls:sys_enter", said, re.MULTILINE)
    if not counted:
        raise Failed("perf did not count (it needs root, or kernel.perf_event_paranoid = -1)")
    return int(counted[1]) / requests


class Wire:
    """Just enough of a client to place a value and to read it back."""

    def __init__(self, port, tls=False):
        self.socket = programs.connect(port, tls, WIRE_S)
        self.reader = self.socket.makefile("rb")

    def set(self, key, value):
        if (line := self.call(b"SET", key.encode(), value)) != b"+OK":
            raise Failed(f"SET {key}: {line[:MOST_SAID]!r}")

    def get(self, key):
        line = self.call(b"GET", key.encode())
        if not line.startswith(b"$") or line == b"$-1":
            raise Failed(f"GET {key}: {line[:MOST_SAID]!r}")
        size = int(line[1:])
        return self.reader.read(size + 2)[:size]

    def call(self, *words):
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return self.reader.readline().rstrip(b"\r\n")

    def close(self):
        self.reader.close()
        self.socket.close()


def deadline(seconds):
    """A function that tells whether so many seconds have passed since now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end
