"""gunicorn's worker when all threads are busy: real gunicorn, one worker with two threads."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import worker
from clone import wait_until
from conftest import APP

# The real settings, with shorter waits: seconds.
WAIT, STUCK = 2, 3
SETTINGS = f"""
import sys
sys.path.insert(0, {str(APP)!r})
import worker
worker.LONGEST_WAIT, worker.STUCK_AFTER = {WAIT}, {STUCK}
__file__ = {str(APP / "gunicorn.conf.py")!r}
exec(open(__file__).read())
"""


@pytest.fixture
def start(serve, tmp_path):
    """start(workers): a server with so many of them, each with two threads."""
    file = tmp_path / "short.conf.py"
    file.write_text(SETTINGS)

    def start(workers):
        server = serve("--config", str(file), WEB_CONCURRENCY=str(workers), WEB_THREADS="2")
        server.wait()
        return server

    return start


@pytest.fixture
def server(start):
    return start(1)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(40) as pool:
        yield pool


def request(server, path, **headers):
    """(status, seconds, headers, body); status 0: the connection broke."""
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, time.monotonic() - begin, answer.headers, answer.read()
    except (OSError, http.client.HTTPException) as error:
        return 0, time.monotonic() - begin, {}, str(error).encode()
    finally:
        connection.close()


def in_flight(server):
    text = request(server, "/metrics")[3].decode()
    return float(re.search(r"^app_requests_in_flight (\S+)", text, re.MULTILINE)[1])


def occupy(server, pool, path, threads=2):
    """So many threads have such a request: their futures."""
    futures = [pool.submit(request, server, path) for _ in range(threads)]
    wait_until(lambda: in_flight(server) == threads, 10, "all requests to begin")
    return futures


def workers(server):
    """How many have been started."""
    return sum(line["message"].startswith("Booting worker") for line in server.lines())


def test_health_and_metrics_need_no_free_thread(server, pool):
    occupied = occupy(server, pool, "/diagnostics/work?ms=1500")
    for path in ("/livez", "/readyz", "/metrics"):
        status, seconds, _, _ = request(server, path)
        assert status == 200
        assert seconds < 1
    check = [sys.executable, "-I", "-S", APP / "healthcheck.py"]
    assert subprocess.run(check, env={"PORT": str(server.port)}, check=False).returncode == 0
    assert not any(future.done() for future in occupied)


def test_who_waits_too_long_gets_503_with_retry_after(server, pool):
    occupied = occupy(server, pool, "/diagnostics/work?ms=2900")
    waiting = [
        pool.submit(request, server, f"/diagnostics/echo?{n}", Accept="application/json")
        for n in range(20)
    ]
    for status, seconds, headers, body in (future.result() for future in waiting):
        assert status == 503
        assert WAIT < seconds < WAIT + 1.5
        assert headers["Retry-After"] == "5"
        problem = json.loads(body)
        assert problem["request_id"] == headers["X-Request-ID"]
    assert [future.result()[0] for future in occupied] == [200, 200]
    assert request(server, "/diagnostics/echo")[0] == 200
    # Each has its line, and is counted for its route.
    lines = [line["message"] for line in server.lines()]
    assert lines.count("GET /diagnostics/echo 503") == 20
    metrics = request(server, "/metrics")[3].decode()
    assert re.search(r'route="/diagnostics/echo",status="503"} 20', metrics)


def test_who_waits_less_is_served(server, pool):
    occupy(server, pool, "/diagnostics/work?ms=700")
    waiting = [pool.submit(request, server, "/diagnostics/work?ms=1") for _ in range(20)]
    assert Counter(future.result()[0] for future in waiting) == {200: 20}


def keep(server):
    """A connection that was used once and stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    again(connection)
    return connection


def again(connection):
    """Seconds that a short request on a kept connection takes."""
    begin = time.monotonic()
    connection.request("POST", "/diagnostics/echo", body=b"x" * 1000)
    with connection.getresponse() as answer:
        assert answer.status == 200
        answer.read()
    return time.monotonic() - begin


def test_no_request_waits_for_a_busy_worker_while_another_is_idle(start, pool):
    server = start(2)
    wait_until(lambda: workers(server) == 2, 10, "both workers")
    kept = [keep(server) for _ in range(20)]
    # One of four threads is free.
    occupied = occupy(server, pool, "/diagnostics/work?ms=2500", threads=3)
    begin, seconds = time.monotonic(), []
    while time.monotonic() - begin < 1:
        seconds += [again(connection) for connection in kept]
        seconds += [request(server, "/diagnostics/echo")[1] for _ in range(20)]
    assert max(seconds) < 1
    assert not any(future.done() for future in occupied)


def test_a_request_that_waits_goes_where_a_thread_comes_free(start, pool):
    """All are busy first, one worker for longer than the other, and longer than requests wait."""
    server = start(2)
    wait_until(lambda: workers(server) == 2, 10, "both workers")
    occupy(server, pool, "/diagnostics/work?ms=2900", threads=3)
    occupy_last = pool.submit(request, server, "/diagnostics/work?ms=600")
    wait_until(lambda: in_flight(server) == 4, 10, "all threads to be busy")
    waiting = [pool.submit(request, server, "/diagnostics/work?ms=1") for _ in range(20)]
    assert occupy_last.result()[0] == 200
    assert Counter(future.result()[0] for future in waiting) == {200: 20}
    assert max(future.result()[1] for future in waiting) < WAIT


def test_who_was_handed_over_is_refused_in_its_turn(monkeypatch):
    """Not after those that came later to the worker that now has it."""
    monkeypatch.setattr(worker.Worker, "hand_over", lambda *_: False)
    one = worker.Worker.__new__(worker.Worker)
    one.waiting = deque()
    for since, connection in ((2, "b"), (1, "a"), (3, "c")):
        one.wait(since, connection)
    assert [connection for _, connection in one.waiting] == ["a", "b", "c"]


def test_a_stop_loses_nothing_that_is_handed_over(start, pool):
    server = start(2)
    wait_until(lambda: workers(server) == 2, 10, "both workers")
    # Accepted already: what still waits for that when gunicorn stops, nginx sends elsewhere.
    kept = [keep(server) for _ in range(20)]
    occupy(server, pool, "/diagnostics/work?ms=1500", threads=3)
    answers = [pool.submit(again, connection) for connection in kept]
    server.process.send_signal(signal.SIGTERM)
    for answer in answers:
        answer.result()


def test_a_silent_connection_takes_no_busy_workers_thread(server, pool):
    occupy(server, pool, "/diagnostics/work?ms=1000")
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(4)]
    status, seconds, _, _ = request(server, "/diagnostics/echo")
    for connection in silent:
        connection.close()
    assert status == 200
    assert seconds < 1.5


def test_a_worker_with_stuck_threads_is_replaced(server, pool):
    begin = time.monotonic()
    occupied = occupy(server, pool, "/diagnostics/work?ms=20000")
    assert [future.result()[0] for future in occupied] == [0, 0]
    assert STUCK <= time.monotonic() - begin < STUCK + 4
    wait_until(lambda: request(server, "/diagnostics/echo")[0] == 200, 10, "a new worker")
    assert workers(server) == 2
    (line,) = (line for line in server.lines() if "are stuck" in line["message"])
    assert line["log"]["level"] == "critical"
    assert line["message"].count("in work") == 2


@pytest.mark.parametrize(
    ("path", "others"),
    [
        # A stream of events, which is in the view's code nearly all of the time.
        (f"/diagnostics/stream?parts={(STUCK + 6) * 5}&ms=200", 503),
        # A download whose reader stands still.
        ("/diagnostics/stream?parts=2000&bytes=65536", 200),
        ("/diagnostics/file?mb=100", 200),
    ],
)
def test_streams_and_slow_readers_are_not_stuck(server, path, others):
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in "12"]
    for connection in slow:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    # Both have begun, and go on for longer than is stuck.
    assert all(connection.recv(1) == b"H" for connection in slow)
    time.sleep(STUCK + 2)
    assert request(server, "/diagnostics/echo")[0] == others
    for connection in slow:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        rest = b""
        while part := connection.recv(1 << 20):
            rest = rest[-10:] + part
        assert rest.endswith(b"\r\n\r\nok\n")
        connection.close()
    assert workers(server) == 1


def test_a_slow_body_is_not_stuck(server):
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in "12"]
    for connection in slow:
        connection.sendall(
            b"POST /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na"
        )
    wait_until(lambda: in_flight(server) == 2, 10, "both requests to begin")
    time.sleep(STUCK + 2)
    for connection in slow:
        connection.sendall(b"b")
        assert b" 200 OK" in connection.recv(4096)
        connection.close()
    assert workers(server) == 1


def test_a_stop_at_once_leaves_no_worker(server):
    """While connections come in: a signal handler must not wait for a lock of its own thread."""
    children = f"/proc/{server.process.pid}/task/{server.process.pid}/children"
    (worker,) = Path(children).read_text().split()
    connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    for connection in connections:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
    server.process.send_signal(signal.SIGINT)
    server.process.wait(timeout=10)
    wait_until(lambda: not Path("/proc", worker).exists(), 10, "the worker's end")
    for connection in connections:
        connection.close()


def test_a_worker_says_that_it_is_alive_and_what_time_it_is(serve):
    """Both are done less often than gunicorn does; idle and busy for longer than its timeout."""
    server = serve("--timeout", "2", WEB_CONCURRENCY="1")
    server.wait()
    for seconds in (3, 0):
        time.sleep(seconds)
        deadline = time.monotonic() + 3 - seconds
        while True:
            begin = int(time.time())
            date = request(server, "/livez")[2]["Date"]
            assert begin <= parsedate_to_datetime(date).timestamp() <= time.time()
            if time.monotonic() > deadline:
                break
    assert workers(server) == 1
