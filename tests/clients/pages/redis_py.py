"""docs/clients/redis-py.md. See page.py."""

import threading

import redis
from page import Report, block

client = block()["client"]
report = Report(f"redis-py {redis.__version__}")
popped = 0


def work(number: int) -> dict:
    key, value = f"page:redis-py:{number}", str(number)
    client.set(key, value)
    report.expect(client.get(key), value)
    client.lpush("page:redis-py:queue", value)
    return {key: value}


def pop() -> None:
    # Closed at each switch, which the page's settings have to hide.
    global popped
    while not report.ended.is_set():
        try:
            popped += client.blpop(["page:redis-py:queue"], 1) is not None
        except Exception as error:  # Counted and shown: the test asserts that there is none.
            report.error("blocking", error)


popper = threading.Thread(target=pop)
popper.start()
report.rounds(work)
popper.join()
report.print(client.get, popped=popped)
