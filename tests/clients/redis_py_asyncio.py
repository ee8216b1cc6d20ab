"""redis-py with asyncio, one pool for all tasks, RESP2. Usage: redis_py_asyncio.py PORT. See work.py."""

import asyncio
import sys
import time

import redis.asyncio as redis
from work import *


def steps(client, report, worker: int, number: int):
    token = f"{worker}:{number}"
    key = f"redis-py-asyncio:{token}"

    async def plain():
        await client.set(f"{key}:plain", token)
        report.acknowledged[f"{key}:plain"] = token
        report.expect(await client.get(f"{key}:plain"), token.encode())

    async def pipeline():
        async with client.pipeline(transaction=False) as pipe:
            answers = await pipe.set(f"{key}:p1", token).set(f"{key}:p2", token).get(f"{key}:p1").execute()
        report.acknowledged[f"{key}:p1"] = report.acknowledged[f"{key}:p2"] = token
        report.expect(answers[2], token.encode())

    async def transaction():
        async with client.pipeline(transaction=True) as pipe:
            await pipe.set(f"{key}:m1", token).set(f"{key}:m2", token).execute()
        report.acknowledged[f"{key}:m1"] = report.acknowledged[f"{key}:m2"] = token

    async def script():
        report.expect(await client.eval(SCRIPT, 1, f"{key}:lua", token), token.encode())
        report.acknowledged[f"{key}:lua"] = token

    async def large():
        value = large_value(token)
        await client.set(f"redis-py-asyncio:large:{worker}", value)
        report.expect(await client.get(f"redis-py-asyncio:large:{worker}"), value)

    async def to_others():
        await client.publish("redis-py-asyncio:channel", token)
        await client.lpush("redis-py-asyncio:queue", token)

    yield from (plain, pipeline, transaction, script)
    if number % LARGE_EVERY == 0:
        yield large
    if worker == 0:
        yield to_others


async def work(client, report, worker: int, ended) -> None:
    number = 0
    while not ended.is_set():
        for step in steps(client, report, worker, number):
            try:
                await step()
            except Exception as error:  # Counted and shown: the test asserts that there is none.
                report.error("ordinary", error)
        number += 1
        if worker == 0:
            report.round_ended()
        await asyncio.sleep(PAUSE)


async def subscribe(client, report) -> None:
    pubsub = client.pubsub()
    await pubsub.subscribe("redis-py-asyncio:channel")
    while not report.recovered["pubsub"].is_set():
        try:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
        except Exception as error:
            report.error("pubsub", error)
            await asyncio.sleep(PAUSE)
            continue
        if message:
            report.heard += 1
            if message["data"] == LAST.encode():
                report.recovered["pubsub"].set()


async def pop(client, report) -> None:
    while not report.recovered["blocking"].is_set():
        try:
            popped = await client.blpop(["redis-py-asyncio:queue", "redis-py-asyncio:last"], BLOCKING_SECONDS)
        except Exception as error:
            report.error("blocking", error)
            await asyncio.sleep(PAUSE)
            continue
        if popped:
            report.popped += 1
            if popped[1] == LAST.encode():
                report.recovered["blocking"].set()


async def main() -> None:
    report = Report("redis-py asyncio, RESP2")
    report.count_connections(redis.Connection)
    client, publisher, popper = (
        redis.Redis(host="localhost", port=int(sys.argv[1]), protocol=2, client_name=work)
        for work in ("ordinary", "pubsub", "blocking")
    )
    ended = asyncio.Event()
    workers = [asyncio.create_task(work(client, report, worker, ended)) for worker in range(WORKERS)]
    others = [asyncio.create_task(subscribe(publisher, report)), asyncio.create_task(pop(popper, report))]
    await asyncio.to_thread(wait_for_the_end)
    ended.set()
    await asyncio.gather(*workers)
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline and not all(e.is_set() for e in report.recovered.values()):
        await client.publish("redis-py-asyncio:channel", LAST)
        await client.lpush("redis-py-asyncio:last", LAST)
        await asyncio.sleep(0.1)
    keys = list(report.acknowledged)
    lost = 0
    for at in range(0, len(keys), KEYS_AT_ONCE):
        some = keys[at : at + KEYS_AT_ONCE]
        for key, value in zip(some, await client.mget(some)):
            lost += value != report.acknowledged[key].encode()
    report.print(lost, (await client.info("server"))["redis_version"])
    for task in others:
        task.cancel()
    for connected in (client, publisher, popper):
        await connected.aclose()


asyncio.run(main())
