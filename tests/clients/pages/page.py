"""What the programs that run a page's own block (docs/clients) share: the loop, what was seen, and the report of it.

Usage of each: NAME.py BLOCK. BLOCK is the block of the page, with the proxy's port in it. A line is printed after each round; at the end
of standard input everything that was acknowledged is read back, and a report is printed as JSON.
"""

import json
import runpy
import sys
import threading
import time

PAUSE = 0.02


def block() -> dict:
    """What the page's block defines."""
    return runpy.run_path(sys.argv[1])


class Report:
    def __init__(self, library: str) -> None:
        self.library = library
        self.errors = {}
        self.wrong_values = 0
        self.acknowledged = {}
        self.ended = threading.Event()
        threading.Thread(target=self._wait_for_the_end, daemon=True).start()

    def _wait_for_the_end(self) -> None:
        while sys.stdin.read(1):
            pass
        self.ended.set()

    def error(self, work: str, error: Exception) -> None:
        kind = f"{work}: {type(error).__name__}: {error}"[:200]
        self.errors[kind] = self.errors.get(kind, 0) + 1

    def rounds(self, work) -> None:
        """Calls work(number) until the end; it gives the (key, value) pairs that were acknowledged."""
        number = 0
        while not self.ended.is_set():
            try:
                self.acknowledged.update(work(number))
            except Exception as error:  # Counted and shown: the test asserts that there is none.
                self.error("ordinary", error)
            number += 1
            print("round", flush=True)
            time.sleep(PAUSE)

    def expect(self, what, expected) -> None:
        self.wrong_values += what != expected

    def print(self, read, **more) -> None:
        lost = sum(read(key) != value for key, value in self.acknowledged.items())
        told = {"library": self.library, "errors": self.errors, "wrong_values": self.wrong_values}
        told |= {"acknowledged": len(self.acknowledged), "lost": lost} | more
        print(json.dumps(told), flush=True)
