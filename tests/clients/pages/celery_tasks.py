"""docs/clients/celery.md: a worker of its own process, and who sends it tasks and waits for their results. See page.py."""

import os
import subprocess
import sys
import threading

import celery
from page import Report, block

app = block()["app"]
# For a result, through a failover.
PATIENCE = 20
# Results that were there, and that Celery did not hear of.
unheard = 0


@app.task(name="page.double")
def double(number: int) -> int:
    return 2 * number


def work(number: int) -> dict:
    global unheard
    result = double.delay(number)
    try:
        told = result.get(timeout=PATIENCE)
    except celery.exceptions.TimeoutError:
        # After a switch Celery reads what it missed, and then subscribes (backends/redis.py, _reconnect_pubsub): nobody tells it what is
        # stored in between. A task that was lost has no result.
        told = app.AsyncResult(result.id).result
        if told is None:
            raise
        unheard += 1
    report.expect(told, 2 * number)
    return {result.id: 2 * number}


def end_with_the_sender() -> None:
    sys.stdin.read()
    os._exit(0)


if os.environ.get("PAGE_WORKER"):
    threading.Thread(target=end_with_the_sender, daemon=True).start()
    app.worker_main(["worker", "--pool=solo", "--loglevel=WARNING", "--without-gossip", "--without-mingle"])
    sys.exit()
report = Report(f"Celery {celery.__version__}")
worker = subprocess.Popen(
    [sys.executable, __file__, sys.argv[1]],
    env=os.environ | {"PAGE_WORKER": "1"},
    stdin=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
)
report.rounds(work)
report.print(lambda id: app.AsyncResult(id).result, unheard=unheard)
