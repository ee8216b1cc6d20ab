"""INCR by redis-py: its answer, or the name of the error. Usage: incr.py PORT NAME, as in the table of docs/clients/README.md."""

import sys

import redis

url = f"redis://127.0.0.1:{sys.argv[1]}"
if "pool of one's own" in sys.argv[2]:
    client = redis.Redis(connection_pool=redis.ConnectionPool.from_url(url))
else:
    client = redis.Redis(port=int(sys.argv[1]))
try:
    print(client.incr("a"))
except Exception as error:
    print(type(error).__name__)
