"""Numbers for gunicorn's workers, by which prometheus_client keeps their metrics apart.

Each worker writes files of its own, and /metrics adds them up. prometheus_client names them by
process id and keeps those of dead workers, since counters must not go back: with every recycled
worker /metrics gets slower (client_python, issue 568). Here a new worker goes on with the files of
a dead one, so that there are as many as there are workers (docs/performance.md).

Imported before anything that makes a metric: by serve.py and gunicorn.conf.py.
"""

import atexit
import os
import shutil
import tempfile

# In memory, and not in /tmp: a write to a mapped file on a full file system ends the process
# (mmap(2), SIGBUS), and uploads fill /tmp.
MEMORY = "/dev/shm"  # noqa: S108 (the folder in it is made with mkdtemp)
FOLDER = tempfile.mkdtemp(prefix="metrics-", dir=MEMORY if os.path.isdir(MEMORY) else None)
MAKER = os.getpid()
os.environ["PROMETHEUS_MULTIPROC_DIR"] = FOLDER

from prometheus_client import multiprocess, values  # noqa: E402 (looks at the variable)

# Of this process. prometheus_client asks for it at each write, and changes files when it changes.
slot = "master"
values.ValueClass = values.MultiProcessValue(lambda: slot)


def choose(server, worker):
    """Give a worker that is about to be forked the lowest number that no living one has."""
    taken = {other.slot for other in server.WORKERS.values()}
    worker.slot = next(number for number in range(len(taken) + 1) if number not in taken)
    forget(worker)


def take(worker):
    """In the worker: write to its files, and leave its process id to webapp/metrics.py.

    As a link's target, because that is there as a whole or not at all.
    """
    global slot  # noqa: PLW0603 (one a process, set once)
    slot = worker.slot
    os.symlink(str(os.getpid()), pid_link(slot))


def forget(worker):
    """In the master: drop what a dead worker was doing, its gauges, and not its counters."""
    multiprocess.mark_process_dead(worker.slot)
    if os.path.lexists(link := pid_link(worker.slot)):
        os.remove(link)


def pid_link(number):
    return os.path.join(FOLDER, f"{number}.pid")


@atexit.register
def remove():
    """At the end of the process that made it, which its children are not."""
    if os.getpid() == MAKER:
        shutil.rmtree(FOLDER, ignore_errors=True)


def be_another():
    """In a process that a worker forks: two may not write to the same files.

    Those of such children stay until the container ends: few and long-lived ones are what fits.
    """
    global slot  # noqa: PLW0603
    slot = f"{slot}-child-{os.getpid()}"


os.register_at_fork(after_in_child=be_another)
