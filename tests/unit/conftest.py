"""Fixtures: an application made from given settings, and real gunicorn on loopback."""

import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import hypothesis
import pytest

APP = Path(__file__).resolve().parents[2] / "app"
sys.path.insert(0, str(APP))

from webapp import create_app, logs  # noqa: E402

KEY = secrets.token_hex(32)

# Without a deadline for each example, which a busy machine misses.
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# Variables the application reads; one set on this machine must not decide a test.
OURS = """
ACCESS_LOG APP_COMMIT APP_ENV APP_VERSION CORS_ORIGINS FLASK_DEBUG GUNICORN_CMD_ARGS HTTPS_PORT
LOG_FORMAT LOG_LEVEL LOGSTASH_HOST MAX_BODY_SIZE MAX_FORM_MEMORY_SIZE
PEERS PORT PROXY_COUNT PUBLIC_PORT SCRIPT_NAME SECRET_KEY
SECRET_KEY_FALLBACKS SECRET_KEY_FALLBACKS_FILE SECRET_KEY_FILE
SERVER_NAME SERVICE_NAME SHIP_LOGS WEB_CONCURRENCY WEB_THREADS X_ACCEL_REDIRECT
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in list(os.environ):
        if name in OURS.split() or name.startswith("ADDON_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def clean_logging():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(False)


@pytest.fixture
def make_app():
    """make_app(NAME="value", ...): an application with a valid key and these variables."""
    return lambda **variables: create_app({"SECRET_KEY": KEY, **variables})


@pytest.fixture
def app(make_app):
    return make_app(APP_ENV="testing", SERVER_NAME="localhost")


@pytest.fixture
def client(app):
    return app.test_client()


@pytest.fixture
def stdout(capfd):
    """The lines on standard output so far, as objects."""
    return lambda: [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def formatter():
    return logs.JSONFormatter("shop", "1.2")


class Server:
    """Real gunicorn with the real configuration, on a free port of loopback."""

    def __init__(self, folder, *options, **variables):
        self.port = free_port()
        self.out = folder / "stdout"
        self.err = folder / "stderr"
        environ = {name: value for name, value in os.environ.items() if name not in OURS.split()}
        environ |= {"APP_ENV": "testing", "SECRET_KEY": KEY, "PORT": str(self.port)} | variables
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            # From another folder, since a platform does not start it in app/.
            command = [sys.executable, APP / "serve.py", "--bind", f"127.0.0.1:{self.port}"]
            self.process = subprocess.Popen(
                [*command, *options], cwd=folder, env=environ, stdout=out, stderr=err
            )

    def wait(self):
        for _ in range(200):
            try:
                return self.get("/livez")
            except OSError:
                time.sleep(0.05)
        raise AssertionError(self.out.read_text() + self.err.read_text())

    def get(self, path, **headers):
        with self.open(path, **headers) as answer:
            return answer.read()

    def open(self, path, **headers):
        url = f"http://127.0.0.1:{self.port}{path}"
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)

    def lines(self):
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=15)


@pytest.fixture
def serve(tmp_path):
    servers = []

    def start(*options, **variables):
        servers.append(Server(tmp_path, *options, **variables))
        return servers[-1]

    yield start
    for server in servers:
        # Without waiting for requests; it removes what it has in memory.
        server.process.send_signal(signal.SIGINT)
        try:
            server.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.process.kill()
            server.process.wait()
