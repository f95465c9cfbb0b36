"""The container's health check: exit code 0 when /readyz answers 200, else 1.

It also ends a container that is not alive. When /livez has failed for a minute without a break,
it stops gunicorn, and the restart policy starts the container anew. Nothing else would:

- Compose and `docker run` never restart a container for being unhealthy.
- gunicorn's gthread workers send their heartbeat from the main thread, so that the master does not
  notice when all request threads are stuck.
- SIGKILL for PID 1 from inside its own PID namespace is ignored (pid_namespaces(7)). So: SIGTERM
  to the master, after which it replaces no worker; then SIGKILL to everybody else, because stuck
  workers would use up graceful_timeout. kill(-1) spares PID 1 and the caller (kill(2)).

Only the standard library, and quick to start: `python -I -S healthcheck.py`.
"""

import contextlib
import http.client
import os
import signal
import sys
import time

# Two questions and the interpreter's start, on a loaded machine too, stay below the health check's
# time-out (Dockerfile), after which the engine would kill this program before it has counted.
TIMEOUT = 1.2
PATIENCE = 60
# Failures further apart than this are not one outage: the container was paused in between.
BREAK = 30
# Not tempfile.gettempdir(), which fails when the folder is full.
TEMPORARY = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 (the container's own)


def ask(port, path):
    """The status and the first line of the answer; 0 and the reason when there is none."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(200).decode("utf-8", "replace").partition("\n")[0]
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def failing_for(path, now):
    """Note a failure at `now` in the file; return for how many seconds it has been failing."""
    try:
        with open(path) as file:
            first, last = map(float, file.read().split())
    except (OSError, ValueError):
        first = last = now
    if not 0 <= now - last <= BREAK:
        first = now
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(f"{first} {now}")
    return now - first


def remove(path):
    with contextlib.suppress(OSError):
        os.unlink(path)


def is_our_container(proc="/proc"):
    """Whether PID 1 is our server, or an init that was given it to run: on a host it is not."""
    try:
        with open(f"{proc}/1/cmdline", "rb") as file:
            command = file.read()
    except OSError:
        return False
    return os.getpid() != 1 and (b"serve.py" in command or b"gunicorn" in command)


def end_container(kill=os.kill):
    kill(1, signal.SIGTERM)
    kill(-1, signal.SIGKILL)


def state_file(proc="/proc"):
    """A name that changes when the container starts again: its /tmp may survive that."""
    try:
        with open(f"{proc}/1/stat") as file:
            started = file.read().rpartition(")")[2].split()[19]  # proc_pid_stat(5), starttime
    except (OSError, IndexError):
        started = "unknown"
    return os.path.join(TEMPORARY, f"livez-failing-since-{started}")


def check(ask, state, now, may_kill, kill, say):
    """Return the exit code; see the module's docstring. The arguments are for the tests."""
    status, text = ask("/readyz")
    if status == 200:
        remove(state)
        return 0
    say(f"/readyz: {status or 'no answer'} {text}")

    status, text = ask("/livez")
    if status == 200:
        remove(state)
        return 1
    seconds = failing_for(state, now)
    say(f"/livez: {status or 'no answer'} {text}, for {seconds:.0f} s")

    if seconds >= PATIENCE and may_kill():
        say("ending the container")
        kill()
    return 1


def main():
    port = int(os.environ.get("PORT", "").strip() or 8000)
    sys.exit(
        check(
            ask=lambda path: ask(port, path),
            state=state_file(),
            now=time.monotonic(),
            may_kill=is_our_container,
            kill=end_container,
            say=lambda line: sys.stdout.write(line + "\n"),
        )
    )


if __name__ == "__main__":
    main()
