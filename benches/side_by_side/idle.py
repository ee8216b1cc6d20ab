"""What an idle session costs: memory, descriptors, and processor time of all of them together."""

import resource
import socket
import time

import loads
import readings

# A hard limit of 20,000 descriptors is 9,800 sessions of two.
COUNTS = (1_000, 9_000)
QUICK_COUNTS = (1_000,)
OPEN_WITHIN_S = 60
PATIENCE_S = 5
# Memory is settled when it has not moved by more than this for so many looks.
SETTLED_KIB = 16
SETTLED_LOOKS = 4
LOOK_S = 0.1
SETTLED_WITHIN_S = 5
CLOSED_WITHIN_S = 10
KEPT_S = 2.5


def counts(wanted, descriptors, spare):
    """As many as the limit of descriptors allows, each count once."""
    return sorted({min(count, (descriptors - spare) // 2) for count in wanted})


def measure(proxy, port, wanted, seconds):
    """On a proxy that was just started: memory that was used once is not given back by all of them. Raises Failed."""
    converse(connect(port)).close()
    # For a moment a proxy may keep an upstream for the next client, this one's or that of the look whether it was there.
    time.sleep(KEPT_S)
    pids = proxy.pids()
    base_rss, base_descriptors = settled_rss(pids), readings.descriptors(pids)
    result = {"base_kib": base_rss, "steps": []}
    sessions = []
    try:
        over = loads.deadline(OPEN_WITHIN_S)
        for count in wanted:
            while len(sessions) < count:
                if over():
                    raise loads.Failed(f"{len(sessions)} of {count} sessions within {OPEN_WITHIN_S} s")
                sessions.append(connect(port))
                converse(sessions[-1])
            rss = settled_rss(pids)
            result["steps"].append({
                "sessions": count,
                "rss_kib": rss,
                "kib_per_session": (rss - base_rss) / count,
                "descriptors_per_session": (readings.descriptors(pids) - base_descriptors) / count,
            })
        before, since = readings.cpu_ns(pids), time.monotonic_ns()
        time.sleep(seconds)
        spent, passed = readings.cpu_ns(pids) - before, time.monotonic_ns() - since
        result["steps"][-1]["idle_cpu_percent"] = 100 * spent / passed
        # The last session must still be one: a proxy that dropped them all would look frugal.
        converse(sessions[-1])
        converse(sessions[0])
    except OSError as error:
        raise loads.Failed(f"after {len(sessions)} sessions: {error}") from None
    finally:
        for session in sessions:
            session.close()
    over = loads.deadline(CLOSED_WITHIN_S)
    while readings.descriptors(pids) > base_descriptors and not over():
        time.sleep(LOOK_S)
    result["rss_after_kib"] = settled_rss(pids)
    return result


def connect(port):
    try:
        session = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    except OSError as error:
        raise loads.Failed(f"a session cannot be opened: {error}") from None
    session.settimeout(PATIENCE_S)
    return session


def converse(session):
    session.sendall(b"PING\r\n")
    if session.recv(7) != b"+PONG\r\n":
        raise loads.Failed("a session was closed, or answered something else than PONG")
    return session


def settled_rss(pids):
    over, same, last = loads.deadline(SETTLED_WITHIN_S), 0, readings.rss_kib(pids)
    while same < SETTLED_LOOKS and not over():
        time.sleep(LOOK_S)
        now = readings.rss_kib(pids)
        same = same + 1 if abs(now - last) <= SETTLED_KIB else 0
        last = now
    return last


def raise_descriptors():
    """The soft limit to the hard one, for the rig and all it starts; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Without a limit nginx would allocate without one.
    limit = min(hard, 65_536) if hard != resource.RLIM_INFINITY else 65_536
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit
