"""What the kernel says of processes and of the machine. Reads only."""

import os
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

# A process whose processor time grows by less than this in one step of waiting has nothing left to do.
QUIET_NS = 100_000
QUIET_STEP_S = 0.01
QUIET_WITHIN_S = 0.5
BUSY_SAMPLE_S = 1.0


def family(pid):
    """The process and all its descendants: nginx works in a child."""
    found, open_ = [], [pid]
    while open_:
        one = open_.pop()
        found.append(one)
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            open_.extend(int(child) for child in task.read_text().split())
    return found


def cpu_ns(pids):
    """Processor time of all threads, those that have ended included.

    It is the sum of what /proc/PID/task/*/schedstat shows, by clock_gettime(2) on the process' own clock (the id is
    made as clock_getcpuclockid(3) makes it): a running thread counts up to this moment, not up to its last tick.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def quiet_cpu_ns(pids):
    """The same, once what was asked for is done: closing connections goes on after the client has left."""
    deadline = time.monotonic() + QUIET_WITHIN_S
    before = cpu_ns(pids)
    while time.monotonic() < deadline:
        time.sleep(QUIET_STEP_S)
        after = cpu_ns(pids)
        if after - before < QUIET_NS:
            return after
        before = after
    return before


def rss_kib(pids):
    """Resident memory. Not VmRSS, which newer kernels only estimate."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Rss:"):
                total += int(line.split()[1])
    return total


def descriptors(pids):
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


class Machine:
    """Busy and stolen processor time of the whole machine since it was made, in seconds."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        fields = [int(n) for n in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _iowait, irq, softirq, steal = fields
        return (user + nice + system + irq + softirq) / TICKS_PER_SECOND, steal / TICKS_PER_SECOND

    def since(self):
        busy, steal = self.now()
        return busy - self.start[0], steal - self.start[1]


def describe():
    """What a reader must know of the machine to judge absolute figures."""
    cpu = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    cpu = {key.strip(): value.strip() for key, _, value in cpu}
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return {
        "processor": cpu.get("model name", cpu.get("Model", "unknown")),
        "cpus": len(os.sched_getaffinity(0)),
        "virtual": "hypervisor" in cpu.get("flags", "").split(),
        "memory_gib": round(int(memory["MemTotal"].split()[0]) / 2**20, 1),
        "kernel": " ".join((os.uname().sysname, os.uname().release, os.uname().machine)),
        "system": system_name(),
        "congestion_control": first_line("/proc/sys/net/ipv4/tcp_congestion_control"),
        "busy_before_percent": busy_percent(),
    }


def busy_percent():
    """How busy the machine is with other things."""
    machine = Machine()
    time.sleep(BUSY_SAMPLE_S)
    return round(100 * machine.since()[0] / (BUSY_SAMPLE_S * os.cpu_count()), 1)


def system_name():
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return "unknown"
    return dict(line.partition("=")[::2] for line in lines).get("PRETTY_NAME", "unknown").strip('"')


def first_line(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return "unknown"
