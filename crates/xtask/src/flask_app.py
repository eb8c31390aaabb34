"""The "Get started" app of Docker's documentation: a counter in Redis, asked through Flask."""

import os
import socket
import time

import redis
from flask import Flask

app = Flask(__name__)
cache = redis.Redis(host="redis", port=6379)


def hits():
    """Counts one visit; Redis may still be starting."""
    retries = 20
    while True:
        try:
            return cache.incr("hits")
        except redis.exceptions.ConnectionError:
            if retries == 0:
                raise
            retries -= 1
            time.sleep(0.5)


@app.route("/")
def hello():
    greeting = os.environ.get("GREETING", "Hello World!")
    return f"{greeting} I have been seen {hits()} times. {socket.gethostname()}\n"


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8000, threaded=True)
