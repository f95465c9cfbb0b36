"""gunicorn's settings, each with its reason. Written for gunicorn 27.

The settings of the application are read and checked here, in the master and before it forks: a
mistake is one line and exit code 78, not a worker that dies again and again.
"""

import os
import resource
import signal
import socket
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)

import worker_slots  # noqa: E402
from webapp import cpus, peer_files, pids  # noqa: E402
from webapp.config import EX_CONFIG, from_environment  # noqa: E402

# The file runs again on SIGHUP, and so the settings are read again.
from_environment.cache_clear()
settings = from_environment()

# webapp/prefix.py applies the prefix. With the variable set, gunicorn fails all requests outside of
# it, the health check's included (gunicorn 27.0.1, http/wsgi.py). Only workers get the empty value,
# so that SIGHUP reads the setting again.
raw_env = ["SCRIPT_NAME="]

chdir = here
wsgi_app = "wsgi:app"

# All addresses, because the proxy is another container. Nothing but the proxy may reach this port.
bind = f"0.0.0.0:{settings['PORT']}"

# Threads keep nginx's connections open; a sync worker closes after every answer, and at SIGTERM it
# resets what waits behind the current request. worker.py adds to gthread what happens when all
# threads are busy.
worker_class = "worker.Worker"

# A process a CPU. At least two, because a recycled worker takes about two seconds to come back;
# at most four, because each holds the whole application in memory: with WEB_CONCURRENCY you
# decide otherwise.
workers = settings["WEB_CONCURRENCY"] or min(max(cpus.available(), 2), 4)

# Requests that wait for a database or another service at the same time, in each process.
threads = settings["WEB_THREADS"]
if problem := pids.problem(workers, threads, pids.limit()):
    sys.stderr.write(f"{problem}\n")
    raise SystemExit(EX_CONFIG)

# Connections of nginx that a worker holds open, those of busy threads included: gunicorn keeps none
# alive when there are not more than threads (gthread.py, max_keepalived; its default is 1000).
worker_connections = 1000 + threads

# A file for each of them, and two more for a busy thread (gthread's selector, an upload). Without a
# file to open the worker ends, and Docker 29 lets a container begin with 1024.
files = worker_connections + 2 * threads + 100
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if soft < files:
    most = files if hard == resource.RLIM_INFINITY else min(files, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

# Longer than nginx keeps idle connections (60 s, keepalive_timeout in its upstream): otherwise
# gunicorn closes one just as nginx sends a POST on it, which nginx must not repeat: 502.
keepalive = 75

# From the inside out, each waits longer than what it waits for:
#
#     25 s  graceful_timeout    requests in progress when SIGTERM arrives
#     28 s  timeout             heartbeat of a worker; in gthread not a limit for a request
#     30 s  proxy_read_timeout  nginx answers 504
#     40 s  stop_grace_period   the engine sends SIGKILL
#
# An application that needs a request to end in time sets a time-out where it waits: in its
# database driver, in its HTTP client, below 25 s.
timeout = 28
graceful_timeout = 25

# A worker that leaks is replaced in time; the jitter keeps all from being replaced at once.
max_requests = 10_000
max_requests_jitter = 1_000

# The heartbeat is a file whose times are set: on a disk that can block the worker (gunicorn's
# FAQ, "How do I avoid Gunicorn excessively blocking in os.fchmod?"). Elsewhere than on Linux there
# is no such folder.
memory = "/dev/shm"  # noqa: S108 (the files in it are made with mkstemp)
worker_tmp_dir = memory if os.path.isdir(memory) else None

# Each worker makes its own application, so that no lock, thread or connection of an extension is
# shared across fork(), and SIGHUP starts workers with new settings.
preload_app = False

# With SO_REUSEPORT each worker has a queue of its own, and what waits there dies with the worker.
reuse_port = False

# Nobody asks it, and it wants a writable home directory.
control_socket_disable = True

# gunicorn interprets no header about the client: PROXY_COUNT and ProxyFix do (webapp/hosts.py).
# The lists are empty as well, because peers on a unix socket are trusted whatever the addresses.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers = {}
header_map = "drop"

# nginx refuses first (clients.conf), at 8 kB or, compressed by HTTP/2, 13 kB. 8190 is the most that
# gunicorn allows for the request line; the fields leave space for those that nginx adds.
limit_request_line = 8190
limit_request_fields = 120
limit_request_field_size = 16380

# JSON, in one place for everything. There is no access_log_format on purpose: see the class.
logger_class = "webapp.access_log.AccessLogger"


def on_starting(server):
    if settings["PEERS"]:
        peer_files.fetch(settings["PEERS"], settings["PORT"], settings["SCRIPT_NAME"], server.log)


def when_ready(server):
    """nginx logs the address of the replica to which it passed a request, this line its name."""
    name = socket.gethostname()
    try:
        found = socket.getaddrinfo(name, settings["PORT"], type=socket.SOCK_STREAM)
    except OSError:  # a machine that does not resolve its own name
        found = []
    addresses = " and ".join(sorted({entry[4][0] for entry in found})) or "an unknown address"
    server.log.info("replica %s serves at %s, port %d", name, addresses, settings["PORT"])


def on_exit(server):
    peer_files.remove()


def pre_fork(server, worker):
    worker_slots.choose(server, worker)


def post_fork(server, worker):
    hear_sigterm(server)
    worker_slots.take(worker)


def child_exit(server, worker):
    worker_slots.forget(worker)


def hear_sigterm(server):
    """Let a worker that has just been forked be stopped.

    Until it sets handlers of its own it has the master's, which put signals into a queue that in
    this process nobody reads: a stop at that moment takes all of graceful_timeout (seen in 1 of 40
    stops within 0.2 s of the start; gunicorn 27.0.1, Arbiter.spawn_worker).
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while not server.SIG_QUEUE.empty():
        if server.SIG_QUEUE.get_nowait() == signal.SIGTERM:
            sys.exit(0)
