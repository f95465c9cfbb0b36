"""How many workers and threads the container's limit of processes allows.

Beyond it no thread can be started, and gunicorn's workers end with "can't start new thread" when
they are busiest.
"""

from pathlib import Path

# Threads of a worker beside those for requests: its own, the one that writes access lines
# (logs.py), and two spare ones (worker.py).
BESIDE = 4
# Threads of a worker that may wait for slow readers (worker.py), as far as the limit allows. Two
# workers have more of them than one client may hold (CONNECTION_LIMIT, 100).
SENDERS = 64
# gunicorn's master, health checks, and commands that somebody runs in the container.
OTHERS = 9


def needed(workers, threads):
    """Processes and threads, since the kernel counts both."""
    return workers * (threads + BESIDE) + OTHERS


def limit(cgroup="/sys/fs/cgroup"):
    """The container's limit; None without one or outside a container."""
    # cgroup v2, v1 (Linux, Documentation/admin-guide/cgroup-v1/pids); "max" is no limit
    for name in ("pids.max", "pids/pids.max"):
        try:
            return int(Path(cgroup, name).read_text())
        except (OSError, ValueError):
            continue
    return None


def senders(workers, threads, most):
    """For each worker: SENDERS, or what is left of the limit `most`."""
    return SENDERS if most is None else min(SENDERS, (most - needed(workers, threads)) // workers)


def problem(workers, threads, most):
    """One line when so many do not fit, otherwise None."""
    if most is None or needed(workers, threads) <= most:
        return None
    fitting = (most - OTHERS) // workers - BESIDE
    fix = f"set WEB_THREADS={fitting}" if fitting > 0 else "set WEB_CONCURRENCY=1"
    return (
        f"webapp: WEB_THREADS: {workers} workers of {threads} threads need"
        f" {needed(workers, threads)} processes and threads, and this container may have {most};"
        f" {fix}, or raise its limit (APP_PIDS, docker run --pids-limit)"
    )
