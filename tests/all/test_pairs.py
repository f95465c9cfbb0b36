"""Limits that depend on each other, reached in real containers (scripts/limits.py has the sums)."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

from scripts import limits


def numbers(stack):
    return limits.numbers(json.loads(stack.compose("config", "--format", "json").stdout))


def test_an_upload_in_each_thread_at_once_succeeds(stack):
    """Of MAX_BODY_SIZE, at default limits; all of them in /tmp at the same time."""
    n = numbers(stack)
    uploads = n["WEB_CONCURRENCY"] * n["WEB_THREADS"]
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    tail = b"\r\n--x--\r\n"
    # Less one: Werkzeug refuses a body of exactly that length (LimitedStream.on_exhausted).
    body = head + b"\0" * (n["MAX_BODY_SIZE"] - 1 - len(head) - len(tail)) + tail
    together = threading.Barrier(uploads)

    def upload(_):
        with stack.client(timeout=60) as client:
            together.wait()
            return client.post(
                "/diagnostics/upload?ms=10000",
                headers={"Content-Type": "multipart/form-data; boundary=x"},
                content=body,
            ).status_code

    with ThreadPoolExecutor(uploads) as pool:
        assert [*pool.map(upload, range(uploads))] == [200] * uploads


# In the container, where 500 connections cost nothing: waits until every thread is busy.
BUSY = """
import select, socket, sys
number, ms = int(sys.argv[1]), sys.argv[2]
def processes():
    for name in ("pids.current", "pids/pids.current"):
        try:
            return int(open(f"/sys/fs/cgroup/{name}").read())
        except FileNotFoundError:
            pass
open_, most, statuses = {}, 0, []
for _ in range(number):
    connection = socket.create_connection(("127.0.0.1", 8000))
    line = f"GET /diagnostics/work?ms={ms} HTTP/1.1"
    connection.sendall(f"{line}\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n".encode())
    open_[connection.fileno()] = connection
poll = select.poll()
for number in open_:
    poll.register(number, select.POLLIN)
while open_:
    for number, _ in poll.poll(60_000):
        statuses.append(open_[number].recv(12)[9:].decode())
        poll.unregister(number)
        open_.pop(number).close()
    most = max(most, processes())
print(most, *sorted(set(statuses)))
"""


def test_as_many_threads_as_are_allowed_are_busy_at_once(stack):
    n = numbers(stack)
    workers = n["WEB_CONCURRENCY"]
    threads = (n["APP_PIDS"] - limits.OTHERS) // workers - limits.BESIDE
    settings = {"WEB_THREADS": str(threads), "MAX_BODY_SIZE": "64k"}
    more = settings | {"WEB_THREADS": str(threads + 1)}
    assert "APP_PIDS=" in stack.make("up", check=False, **more).stderr
    with stack.changed(**settings):
        before = stack.children("app")
        # Twice as many: one worker may have taken more than its half.
        script = [*("python", "-c", BUSY), str(4 * threads), "4000"]
        most, *statuses = stack.execute("app", *script).split()
        assert statuses == ["200"]
        assert int(most) > workers * threads
        assert stack.children("app")[: len(before)] == before
        log = [line["message"] for line in stack.log("app") if "message" in line]
        assert not [text for text in log if "new thread" in text or "exited" in text]
