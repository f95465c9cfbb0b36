"""The container's health check against real servers on loopback."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import healthcheck
import pytest
from conftest import APP


@contextmanager
def server(status, text):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"{text}\n".encode())

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (200, "ok", 0),
        (503, "draining", 0),
        (503, "draining; database", 1),
        (404, "not found", 1),
        (500, "error", 1),
    ],
)
def test_ready_and_draining_are_healthy(tmp_path, status, text, code):
    with server(status, text) as port:
        answer = healthcheck.check(healthcheck.ask(port), str(tmp_path / "answered"))
    assert answer == (code, f"/readyz: {status} {text}")


@pytest.mark.parametrize(("age", "code"), [(None, 1), (5, 0), (59, 0), (61, 1), (-100, 1)])
def test_busy_is_healthy_for_a_minute_after_an_answer(tmp_path, age, code):
    file = tmp_path / "answered"
    if age is not None:
        file.touch()
        os.utime(file, (0, time.time() - age))
    assert healthcheck.check(None, str(file))[0] == code


def test_an_answer_starts_the_minute_again(tmp_path):
    file = str(tmp_path / "answered")
    assert healthcheck.check((200, "ok"), file)[0] == 0
    os.utime(file, (0, 0))
    assert healthcheck.check(None, file)[0] == 1
    healthcheck.check((200, "ok"), file)
    assert healthcheck.check(None, file)[0] == 0


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    assert healthcheck.check((200, "ok"), str(tmp_path / "none/answered"))[0] == 0


def test_a_silent_server_is_no_answer(monkeypatch):
    monkeypatch.setattr(healthcheck, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert healthcheck.ask(silent.getsockname()[1]) is None


def test_as_a_program():
    def run(port):
        return subprocess.run(
            [sys.executable, "-I", "-S", APP / "healthcheck.py"],
            env={"PORT": str(port)},
            capture_output=True,
            text=True,
            check=False,
        )

    with server(200, "ok") as port:
        good = run(port)
    refused = run(port)
    assert (good.returncode, good.stdout, good.stderr) == (0, "/readyz: 200 ok\n", "")
    assert (refused.returncode, refused.stderr) == (1, "")
    assert refused.stdout.startswith("/readyz: 0 ConnectionRefusedError")
