"""The kind of application switchmaster is for: it knows one host and one port, and nothing of Sentinel.

Usage: plain_app.py PORT. Prints a line after each round of set, get and ping; at the end of its standard
input it prints a report as JSON and ends.
"""

import json
import select
import sys
import time

import redis

PAUSE = 0.005

connections = 0


def count_connections() -> None:
    """The library connects again by itself; this makes that visible."""
    connect = redis.Connection._connect

    def counting(self):
        global connections
        socket = connect(self)
        connections += 1
        return socket

    redis.Connection._connect = counting


def ended(stdin) -> bool:
    readable, _, _ = select.select([stdin], [], [], 0)
    return bool(readable) and not stdin.read(1)


def main() -> None:
    count_connections()
    client = redis.Redis("localhost", int(sys.argv[1]))
    report = {"rounds": 0, "connection_errors": 0, "other_errors": 0, "wrong_values": 0}
    while not ended(sys.stdin):
        key = f"plain:app:{report['rounds']}"
        try:
            client.set(key, "value")
            # A failover between the two commands may lose the write: Redis replicates asynchronously.
            if client.get(key) not in (b"value", None):
                report["wrong_values"] += 1
            client.ping()
        except redis.exceptions.ConnectionError:
            report["connection_errors"] += 1
        except Exception as error:  # Counted and shown: the test asserts that there is none.
            report["other_errors"] += 1
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        report["rounds"] += 1
        print("round", flush=True)
        time.sleep(PAUSE)
    report["reconnects"] = connections - 1
    print(json.dumps(report), flush=True)


main()
