"""What is measured, and what has to be reached (docs/benchmarks.md quotes it)."""

from dataclasses import dataclass

KIB, MIB = 1024, 1024 * 1024


@dataclass(frozen=True)
class Workload:
    name: str
    command: str
    size: int
    clients: int
    pipeline: int = 1
    keep: bool = True
    # Requests of the calibration, which is the warm-up, too: some tenths of a second on a slow machine.
    warm_up: int = 5_000
    # A connection that was closed keeps its port for a minute, and there are 28,000 of them.
    most: int = 20_000_000

    @property
    def label(self):
        size = {64: "64 B", 16 * KIB: "16 KiB", MIB: "1 MiB"}[self.size]
        rest = f", -P {self.pipeline}" if self.pipeline > 1 else ""
        rest += "" if self.keep else ", new connections"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{self.command.upper()} {size}, {clients}{rest}"


WORKLOADS = [
    Workload("get1", "get", 64, 1, warm_up=1_500),
    Workload("set1", "set", 64, 1, warm_up=1_500),
    Workload("get50", "get", 64, 50),
    Workload("set50", "set", 64, 50),
    Workload("get500", "get", 64, 500),
    Workload("set500", "set", 64, 500),
    Workload("get50p16", "get", 64, 50, pipeline=16, warm_up=80_000),
    Workload("set50p16", "set", 64, 50, pipeline=16, warm_up=80_000),
    Workload("get16k", "get", 16 * KIB, 50),
    Workload("set16k", "set", 16 * KIB, 50),
    Workload("get1m", "get", MIB, 8, warm_up=200),
    Workload("set1m", "set", MIB, 8, warm_up=200),
    Workload("churn", "get", 64, 50, keep=False, warm_up=2_000, most=20_000),
]

# Figures of a measurement: key in the JSON, title, unit, whether more is better.
FIGURES = {
    "cpu_us": ("Processor time of the proxy per request", "us", False),
    "rps": ("Requests per second", "req/s", True),
    "p50_ms": ("Latency, median", "ms", False),
    "p99_ms": ("Latency, p99", "ms", False),
    "p999_ms": ("Latency, p99.9", "ms", False),
}


@dataclass(frozen=True)
class Target:
    """As a ratio to HAProxy in the same round; for idle sessions absolute. An aim of None is the bare floor."""

    figure: str
    workloads: tuple
    must: float
    aim: float | None


ALL = tuple(workload.name for workload in WORKLOADS)
TARGETS = [
    Target("cpu_us", ("get50", "set50"), 0.95, 0.88),
    # What the tracker of sessions that can be moved costs for each request shows most here.
    Target("cpu_us", ("get50p16", "set50p16"), 1.00, 0.92),
    Target("cpu_us", ("get16k", "set16k"), 0.75, None),
    Target("cpu_us", ("get1m", "set1m"), 0.80, None),
    Target("cpu_us", ("churn",), 0.90, 0.60),
    Target("rps", ALL, 1.00, 1.10),
    Target("p99_ms", ("get1", "set1", "get50", "set50", "get500", "set500"), 1.00, 0.80),
]


@dataclass(frozen=True)
class IdleTarget:
    figure: str
    title: str
    unit: str
    must: float
    aim: float


# An idle process is never quite still, so "none" is less than can be read off a table.
IDLE_TARGETS = [
    IdleTarget("kib_per_session", "Memory per idle session", "KiB", 2.0, 1.0),
    IdleTarget("descriptors_per_session", "Descriptors per idle session", "", 2.0, 2.0),
    IdleTarget("idle_cpu_percent", "Processor time with idle sessions", "% of a core", 0.5, 0.05),
]
