"""What the programs of the Python libraries share: when to end, what was seen, and the report of it.

A program prints a line after each round of its first worker; at the end of its standard input it looks for each
acknowledged write, prints a report as JSON and ends.
"""

import collections
import json
import sys
import threading

WORKERS = 3
# Between two rounds: five such programs are run at once, beside other tests.
PAUSE = 0.02
LARGE = 1024 * 1024
# A round so often writes the large value; it is a hundred times the work of the others.
LARGE_EVERY = 25
# Longer than a failover, so that a blocked client meets it.
BLOCKING_SECONDS = 5
# In the end: for a subscriber and a blocked client to be back.
RECOVERY_SECONDS = 20
KEYS_AT_ONCE = 200
SCRIPT = "redis.call('SET', KEYS[1], ARGV[1]) return ARGV[1]"
LAST = "last"


class Report:
    """The kinds of work are `ordinary`, `pubsub` and `blocking`; a connection's name is the kind of its work."""

    def __init__(self, library: str) -> None:
        self.library = library
        self.errors = {"ordinary": {}, "pubsub": {}, "blocking": {}}
        self.connects = {"ordinary": 0, "pubsub": 0, "blocking": 0}
        self.connections = collections.defaultdict(set)
        self.acknowledged = {}
        self.rounds = 0
        self.wrong_values = 0
        self.heard = 0
        self.popped = 0
        self.recovered = {"pubsub": threading.Event(), "blocking": threading.Event()}

    def error(self, work: str, error: Exception) -> None:
        kind = f"{type(error).__name__}: {error}"[:160]
        self.errors[work][kind] = self.errors[work].get(kind, 0) + 1

    def round_ended(self) -> None:
        self.rounds += 1
        print("round", flush=True)

    def expect(self, what, expected) -> None:
        # None is a lost write, which is counted in the end: after a crash Redis itself may lose one.
        if what is not None and what != expected:
            self.wrong_values += 1

    def count_connections(self, connection_class) -> None:
        """The library connects again by itself; this makes that visible."""
        connect = connection_class._connect
        report = self

        def counted(connection):
            report.connects[connection.client_name] += 1
            # Kept, so that no other object has the same identity.
            report.connections[connection.client_name].add(connection)

        if connection_class.__module__.startswith("redis.asyncio"):

            async def counting(self):
                await connect(self)
                counted(self)

        else:

            def counting(self):
                socket = connect(self)
                counted(self)
                return socket

        connection_class._connect = counting

    def print(self, lost: int, server: str) -> None:
        print(
            json.dumps(
                {
                    "library": self.library,
                    "server": server,
                    "rounds": self.rounds,
                    "errors": self.errors,
                    "reconnects": {
                        work: count - len(self.connections[work])
                        for work, count in self.connects.items()
                    },
                    "acknowledged": len(self.acknowledged),
                    "lost": lost,
                    "wrong_values": self.wrong_values,
                    "heard": self.heard,
                    "popped": self.popped,
                    "recovered": {
                        work: event.is_set() for work, event in self.recovered.items()
                    },
                }
            ),
            flush=True,
        )


def wait_for_the_end() -> None:
    while sys.stdin.read(1):
        pass


def large_value(token: str) -> bytes:
    return token.encode().ljust(LARGE, b".")
