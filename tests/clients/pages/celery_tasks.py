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


@app.task(name="page.double")
def double(number: int) -> int:
    return 2 * number


def work(number: int) -> dict:
    result = double.delay(number)
    report.expect(result.get(timeout=PATIENCE), 2 * number)
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
report.print(lambda id: app.AsyncResult(id).result)
