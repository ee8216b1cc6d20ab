"""redis-py with threads, one pool for all of them, RESP3. Usage: redis_py_sync.py PORT. See work.py."""

import sys
import threading
import time

import redis
from work import *


def steps(client, report, worker: int, number: int):
    token = f"{worker}:{number}"
    key = f"redis-py-sync:{token}"

    def plain():
        client.set(f"{key}:plain", token)
        report.acknowledged[f"{key}:plain"] = token
        report.expect(client.get(f"{key}:plain"), token.encode())

    def pipeline():
        with client.pipeline(transaction=False) as pipe:
            answers = pipe.set(f"{key}:p1", token).set(f"{key}:p2", token).get(f"{key}:p1").execute()
        report.acknowledged[f"{key}:p1"] = report.acknowledged[f"{key}:p2"] = token
        report.expect(answers[2], token.encode())

    def transaction():
        with client.pipeline(transaction=True) as pipe:
            pipe.set(f"{key}:m1", token).set(f"{key}:m2", token).execute()
        report.acknowledged[f"{key}:m1"] = report.acknowledged[f"{key}:m2"] = token

    def script():
        report.expect(client.eval(SCRIPT, 1, f"{key}:lua", token), token.encode())
        report.acknowledged[f"{key}:lua"] = token

    def large():
        value = large_value(token)
        client.set(f"redis-py-sync:large:{worker}", value)
        report.expect(client.get(f"redis-py-sync:large:{worker}"), value)

    def to_others():
        client.publish("redis-py-sync:channel", token)
        client.lpush("redis-py-sync:queue", token)

    yield from (plain, pipeline, transaction, script)
    if number % LARGE_EVERY == 0:
        yield large
    if worker == 0:
        yield to_others


def work(client, report, worker: int, ended) -> None:
    number = 0
    while not ended.is_set():
        for step in steps(client, report, worker, number):
            try:
                step()
            except Exception as error:  # Counted and shown: the test asserts that there is none.
                report.error("ordinary", error)
        number += 1
        if worker == 0:
            report.round_ended()
        time.sleep(PAUSE)


def subscribe(client, report) -> None:
    pubsub = client.pubsub()
    pubsub.subscribe("redis-py-sync:channel")
    while not report.recovered["pubsub"].is_set():
        try:
            message = pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
        except Exception as error:
            report.error("pubsub", error)
            time.sleep(PAUSE)
            continue
        if message:
            report.heard += 1
            if message["data"] == LAST.encode():
                report.recovered["pubsub"].set()


def pop(client, report) -> None:
    while not report.recovered["blocking"].is_set():
        try:
            popped = client.blpop(["redis-py-sync:queue", "redis-py-sync:last"], BLOCKING_SECONDS)
        except Exception as error:
            report.error("blocking", error)
            time.sleep(PAUSE)
            continue
        if popped:
            report.popped += 1
            if popped[1] == LAST.encode():
                report.recovered["blocking"].set()


def main() -> None:
    report = Report("redis-py sync, RESP3")
    report.count_connections(redis.Connection)
    client, publisher, popper = (
        redis.Redis("localhost", int(sys.argv[1]), protocol=3, client_name=work)
        for work in ("ordinary", "pubsub", "blocking")
    )
    ended = threading.Event()
    workers = [
        threading.Thread(target=work, args=(client, report, worker, ended)) for worker in range(WORKERS)
    ]
    others = [
        threading.Thread(target=subscribe, args=(publisher, report), daemon=True),
        threading.Thread(target=pop, args=(popper, report), daemon=True),
    ]
    for thread in workers + others:
        thread.start()
    wait_for_the_end()
    ended.set()
    for thread in workers:
        thread.join()
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline and not all(e.is_set() for e in report.recovered.values()):
        client.publish("redis-py-sync:channel", LAST)
        client.lpush("redis-py-sync:last", LAST)
        time.sleep(0.1)
    keys = list(report.acknowledged)
    lost = 0
    for at in range(0, len(keys), KEYS_AT_ONCE):
        some = keys[at : at + KEYS_AT_ONCE]
        for key, value in zip(some, client.mget(some)):
            lost += value != report.acknowledged[key].encode()
    report.print(lost, client.info("server")["redis_version"])


main()
