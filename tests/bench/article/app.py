"""The application of the tutorials, with and without the logging they add to it."""

import json
import logging
import os
import socket
import time

from flask import Flask, g, request

app = Flask(__name__)


@app.get("/hello")
def hello():
    return "hello\n"


class BlockingTCPHandler(logging.Handler):
    """What logging over TCP from the request's own thread does: one blocking send a line."""

    def __init__(self, host: str, port: int):
        super().__init__()
        self.socket = socket.create_connection((host, port))

    def emit(self, record):
        self.socket.sendall(self.format(record).encode() + b"\n")


def log_every_request(handler: logging.Handler) -> None:
    """An access line with the same facts as this project's, through `handler`."""
    logger = logging.getLogger("access")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    logger.propagate = False

    @app.before_request
    def start():
        g.start = time.perf_counter_ns()

    @app.after_request
    def write(response):
        now = time.time()
        line = {
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
            + f".{int(now % 1 * 1000):03}Z",
            "log": {"level": "info", "logger": "access"},
            "message": f"{request.method} {request.path} {response.status_code}",
            "service": {"name": "article", "version": "1"},
            "process": {"pid": os.getpid()},
            "client": {"address": request.headers.get("X-Forwarded-For", request.remote_addr)},
            "http": {
                "request": {"method": request.method, "id": request.headers.get("X-Request-ID")},
                "response": {
                    "status_code": response.status_code,
                    "body": {"bytes": response.content_length},
                },
                "route": str(request.url_rule),
            },
            "url": {"path": request.path, "query": request.query_string.decode("latin-1")},
            "user_agent": {"original": request.user_agent.string},
            "event": {"duration": time.perf_counter_ns() - g.start},
        }
        logger.info(json.dumps(line))
        return response


match os.environ.get("ARTICLE_LOG"):
    case "stdout":
        log_every_request(logging.StreamHandler())
    case "tcp":
        log_every_request(BlockingTCPHandler("sink", 5000))
