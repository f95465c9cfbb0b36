"""The container's health check: exit code 0 when a worker answers GET /readyz with 200.

Two more states are healthy, since nobody should be replaced for them:

- draining: `touch /tmp/draining` takes a container out of rotation on purpose (webapp/health.py).
- busy: no answer in time, and the last one is less than a minute old. Spare threads answer even
  when all others are busy (worker.py), so this takes a machine that has hardly any time for us.

What is stuck for real is not this program's job: worker.py and gunicorn's master replace workers.

Only the standard library, and quick to start: `python -I -S healthcheck.py`.
"""

import contextlib
import os
import socket
import sys
import time

# The answer's, and the interpreter's start on a loaded machine too, stay below the health check's
# time-out (Dockerfile), after which the engine would kill this program and count a failure.
TIMEOUT = 5
PATIENCE = 60
# Empty at each start of the container, as /tmp may not be; and uploads do not fill it.
ANSWERED = "/dev/shm/readyz-answered"  # noqa: S108 (nobody else is in the container)


def ask(port):
    """The status and the first line of the answer; None when there is none in time."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\n\r\n")
            answer = b""
            while len(answer) < 65536 and (part := connection.recv(4096)):
                answer += part
    except TimeoutError:
        return None
    except OSError as error:
        return 0, f"{type(error).__name__}: {error}"
    head, _, body = answer.decode("utf-8", "replace").partition("\r\n\r\n")
    status = head.split(" ", 2)[1:2]
    return int(status[0]) if status else 0, body.partition("\n")[0][:200] or "no answer"


def seconds_since_answer(path):
    with contextlib.suppress(OSError):
        return time.time() - os.stat(path).st_mtime
    return None


def remember(path):
    with contextlib.suppress(OSError):
        with open(path, "a"):
            pass
        os.utime(path)


def check(answer, answered=ANSWERED):
    """(exit code, line that says why); answer: what `ask` gave; answered: a file of ours."""
    if answer is None:
        seconds = seconds_since_answer(answered)
        if seconds is None:
            return 1, f"/readyz: no answer within {TIMEOUT} s"
        line = f"/readyz: no answer within {TIMEOUT} s, the last one {seconds:.0f} s ago"
        return int(not 0 <= seconds < PATIENCE), line
    status, text = answer
    if status == 200 or (status, text) == (503, "draining"):
        remember(answered)
        return 0, f"/readyz: {status} {text}"
    return 1, f"/readyz: {status} {text}"


def main():
    code, line = check(ask(int(os.environ.get("PORT", "").strip() or 8000)))
    sys.stdout.write(line + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
