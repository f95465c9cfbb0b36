"""The container's health check, with everything around it replaced; then against a real server."""

import http.server
import signal
import socket
import subprocess
import sys
import threading

import healthcheck
import pytest
from conftest import APP


@pytest.fixture
def container(tmp_path):
    """container(readyz, livez, now=...): run the check once; what it did is in the attributes."""

    class Container:
        killed = 0
        said = ()
        ours = True

        def __call__(self, readyz, livez=0, now=0.0):
            def kill():
                self.killed += 1

            answers = {"/readyz": (readyz, "x"), "/livez": (livez, "y")}
            lines = []
            code = healthcheck.check(
                answers.get, str(tmp_path / "state"), now, lambda: self.ours, kill, lines.append
            )
            self.said = lines
            return code

    return Container()


def test_only_200_is_healthy(container):
    assert container(200) == 0
    assert container.said == []
    for status in (0, 204, 301, 404, 500, 503):
        assert container(status, 200) == 1
        assert len(container.said) == 1


def test_not_ready_but_alive_is_never_ended(container):
    for now in range(0, 600, 5):
        assert container(503, 200, now) == 1
    assert container.killed == 0


def test_a_minute_without_life_ends_it(container):
    for now in range(0, 60, 5):
        assert container(0, 0, now) == 1
        assert container.killed == 0
    assert container(0, 0, 60) == 1
    assert container.killed == 1


@pytest.mark.parametrize(("readyz", "livez"), [(200, 0), (503, 200)])
def test_one_success_starts_the_minute_anew(container, readyz, livez):
    for now in range(0, 60, 5):
        container(0, 0, now)
    container(readyz, livez, 58)
    container(0, 0, 60)
    container(0, 0, 85)
    container(0, 0, 110)
    assert container.killed == 0
    container(0, 0, 120)
    assert container.killed == 1


def test_failures_before_and_after_a_pause_are_not_one_outage(container):
    container(0, 0, 0)
    container(0, 0, 1000)
    container(0, 0, 1010)
    assert container.killed == 0


def test_a_damaged_state_file_starts_the_minute_anew(container, tmp_path):
    (tmp_path / "state").write_text("nonsense")
    container(0, 0, 1000)
    assert container.killed == 0


def test_nothing_is_ended_outside_our_container(container):
    container.ours = False
    for now in range(0, 200, 5):
        container(0, 0, now)
    assert container.killed == 0


@pytest.mark.parametrize(
    ("command", "ours"),
    [
        (b"/opt/venv/bin/python\0serve.py\0", True),
        (b"/sbin/docker-init\0--\0python\0serve.py\0", True),
        (b"/opt/venv/bin/python\0/opt/venv/bin/gunicorn\0wsgi:app\0", True),
        (b"/sbin/init\0splash\0", False),
        (b"/usr/lib/systemd/systemd\0", False),
        (b"", False),
        (None, False),
    ],
)
def test_our_container_is_known_by_its_first_process(tmp_path, command, ours):
    if command is not None:
        (tmp_path / "1").mkdir()
        (tmp_path / "1/cmdline").write_bytes(command)
    assert healthcheck.is_our_container(tmp_path) is ours


def test_this_machine_is_not_our_container():
    assert not healthcheck.is_our_container()


def test_the_master_is_told_first_then_the_rest_is_killed():
    signals = []
    healthcheck.end_container(lambda *args: signals.append(args))
    assert signals == [(1, signal.SIGTERM), (-1, signal.SIGKILL)]


def test_the_state_belongs_to_one_life_of_the_container(tmp_path):
    (tmp_path / "1").mkdir()
    names = set()
    for start in ("100", "200"):
        fields = " ".join(["S", *["0"] * 18, start, "0"])
        (tmp_path / "1/stat").write_text(f"1 (odd) name) {fields}")
        names.add(healthcheck.state_file(tmp_path))
    assert len(names) == 2
    assert names.pop().rpartition("-")[2] in ("100", "200")
    assert healthcheck.state_file(tmp_path / "none").endswith("unknown")


@pytest.fixture
def run(tmp_path):
    """run(port): as the image runs it, with a folder for temporary files of its own."""

    def run(port):
        return subprocess.run(
            [sys.executable, "-I", "-S", APP / "healthcheck.py"],
            env={"PORT": str(port), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=6,
            check=False,
        )

    return run


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1), (404, 1), (500, 1)])
def test_as_a_program(run, status, code):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"the reason\n")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        answer = run(server.server_port)
        server.shutdown()
        thread.join()
    assert (answer.returncode, answer.stderr) == (code, "")
    assert answer.stdout.startswith(f"/readyz: {status} the reason\n" if code else "")


def test_a_silent_server_is_given_up_in_time(run):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = run(silent.getsockname()[1])
    assert answer.returncode == 1
    assert answer.stdout.count("\n") == 2
    assert "Traceback" not in answer.stderr
