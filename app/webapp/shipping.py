"""Ships log lines to Logstash, beside stdout; imported only where LOGSTASH_HOST is set.

A request pays for putting a line that is already formatted into a queue. One thread a worker sends,
over python-logstash's TCP handler. Nothing is lost silently:

- Logstash's TCP input does not acknowledge lines. But it closes a connection only after it has read
  all of it (logstash-input-tcp, InputLoop.java: Netty decodes and enqueues in the thread that
  reads, and without ALLOW_HALF_CLOSURE it closes at the end). So we end each connection after
  LOGSTASH_RESEND_SIZE bytes or LASTS seconds: half-close, and wait for Logstash to close too. Until
  then the lines are kept, and when the connection breaks they are sent again on the next one, with
  the same event.id, by which Elasticsearch knows them. (How much the other side's kernel takes in
  unread cannot be seen from here: 2.9 MB on loopback. A window that is merely trimmed loses it.)
- When the queue is full, the oldest lines of the lowest level are dropped, counted, and reported on
  stdout, where all of them are.

One gap is left: what Logstash has read in the instant it is killed may not be in its queue. What
waits when a process of ours is killed is on stdout alone, and so are the reports of this module:
those that were shipped could cause others.
"""

import collections
import contextlib
import logging
import os
import random
import socket
import ssl
import threading
import time

from logstash import TCPLogstashHandler
from prometheus_client import Counter, Gauge

from . import logs

BATCH = 16_384  # bytes that are sent at once: a line at least (logs.LONGEST_LINE)
OVERHEAD = 64  # bytes of a Python string and its place in the queue, beside its characters
DELAY = 0.1  # seconds in which lines gather; longer than stdout's, which then is never behind
LASTS = 10  # seconds for which a connection is used
CONNECT_TIMEOUT = 2
PATIENCE = 1  # seconds after which a connection on which nothing moves is looked at
UNANSWERED = 5  # retransmissions after which the peer is taken for dead: 6 s at least
# For a peer that has taken everything and then vanishes: 25 s (tcp(7)).
KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
# Seconds at the end of the process, after its last request: less if that was long, since gunicorn's
# graceful_timeout is for both.
DRAIN = 5
REPORTS = 60  # seconds between two reports on stdout
TCP_CLOSE = 7  # include/net/tcp_states.h

log = logging.getLogger(__name__)

queued = Gauge(
    "app_log_lines_queued", "Log lines waiting for Logstash.", multiprocess_mode="livesum"
)
sent = Counter("app_log_lines_sent_total", "Log lines sent to Logstash.")
resent = Counter("app_log_lines_resent_total", "Log lines sent again: a connection broke.")
dropped = Counter(
    "app_log_lines_dropped_total",
    "Log lines given up, which are on stdout alone (at the end of a process: perhaps arrived).",
    ["level"],
)
reconnects = Counter("app_logstash_reconnects_total", "Connections that broke or were refused.")
DROPPED = {level: dropped.labels(name) for level, name in sorted(logs.LEVELS.items())}

Batch = collections.namedtuple("Batch", "level count data")


class Queue:
    """Lines by level, at most `most` bytes in all."""

    def __init__(self, most):
        self.most = most
        self.size = self.dropped = 0
        self.levels = {level: collections.deque() for level in DROPPED}
        # Reentrant: what the garbage collector or a signal calls may log in the middle of put().
        self.lock = threading.RLock()

    def __len__(self):
        return sum(map(len, self.levels.values()))

    def put(self, level, line):
        with self.lock:
            self.levels[level].append(line)
            self.size += len(line) + OVERHEAD
            while self.size > self.most:
                lowest = next(level for level, lines in self.levels.items() if lines)
                self.size -= len(self.levels[lowest].popleft()) + OVERHEAD
                self.drop(lowest, 1)

    def drop(self, level, count):
        self.dropped += count
        DROPPED[level].inc(count)

    def take(self):
        """The oldest lines of the highest level, or None."""
        taken, size = [], 0
        with self.lock:
            for level in reversed(self.levels):
                lines = self.levels[level]
                while lines and (not taken or size + len(lines[0]) < BATCH):
                    taken.append(lines.popleft())
                    size += len(taken[-1]) + 1
                if taken:
                    self.size -= size - len(taken) + OVERHEAD * len(taken)
                    return Batch(level, len(taken), "\n".join([*taken, ""]).encode())
        return None


class Shipper(TCPLogstashHandler):
    """On the root logger. The process that makes an application sends; gunicorn's master does not,
    since it forks: each worker takes over what has waited there.
    """

    def __init__(self, settings):
        super().__init__(settings["LOGSTASH_HOST"], settings["LOGSTASH_PORT"])
        # The line of stdout: it is on the record already.
        self.setFormatter(logs.JSONFormatter(settings["SERVICE_NAME"], settings["APP_VERSION"]))
        self.tls = None
        if settings["LOGSTASH_TLS"] == "on":
            self.tls = ssl.create_default_context(cafile=settings["LOGSTASH_CA_FILE"])
        self.queue_size = settings["LOGSTASH_QUEUE_SIZE"]
        self.resend_size = settings["LOGSTASH_RESEND_SIZE"]
        self.serving = False
        self.sender_of = None  # the process: threads do not survive fork()
        self.begin()
        os.register_at_fork(after_in_parent=self.hand_over)

    def begin(self):
        self.queue = Queue(self.queue_size)
        self.share = self.resend_size  # bytes that the next connection may carry
        self.window = []  # batches taken from the queue that are not known to have arrived
        self.tried = 0  # of them, sent before
        self.reported = (0, -REPORTS)  # how many were dropped, when
        self.filled, self.stopping = threading.Event(), threading.Event()

    def hand_over(self):
        if not self.serving:
            self.begin()

    def serve(self):
        self.serving = True
        if self.queue:
            self.start()

    def start(self):
        with self.lock:  # logging makes a new one in a child
            if not self.serving or self.sender_of == os.getpid():
                return
            if self.sender_of:
                # In a child of a worker, which itself sends what has waited.
                self.disconnect()
                self.begin()
            self.sender = threading.Thread(target=self.ship, name="shipping", daemon=True)
            self.sender.start()
            self.sender_of = os.getpid()

    # In the thread that logs

    def handle(self, record):
        # Without logging's lock, and never raising.
        if record.name != __name__ and self.filter(record):
            with contextlib.suppress(Exception):
                self.emit(record)

    def emit(self, record):
        if self.sender_of != os.getpid():
            self.start()
        self.queue.put(min(max(record.levelno // 10, 1), 5) * 10, self.format(record))
        if not self.filled.is_set():
            self.filled.set()

    # In the sender's thread

    def ship(self):
        failures = 0
        while self.window or self.wait() or not self.stopping.is_set():
            try:
                self.exchange()
                failures = 0
            except Exception as error:
                self.disconnect()
                reconnects.inc()
                self.report(error)
                self.observe()
                # A peer that closes soon still gets on: less is to arrive at once.
                self.share = max(self.share // 2, BATCH)
                if failures and self.stopping.is_set():
                    return
                pause = self.retryStart * self.retryFactor ** min(failures, 9)
                self.stopping.wait(min(pause, self.retryMax) * random.uniform(0.5, 1))  # noqa: S311
                failures += 1

    def wait(self, seconds=None):
        """For lines; False when there are none, which without a limit is at the process's end."""
        self.observe()
        if not self.queue:
            self.filled.clear()
            if not self.queue and not self.stopping.is_set():
                self.filled.wait(seconds)
                self.stopping.wait(DELAY)
        return bool(self.queue)

    def observe(self):
        queued.set(len(self.queue))
        if self.queue.dropped > self.reported[0]:
            self.report("does not keep up")

    def exchange(self):
        """Send on one connection, and see all of it arrive."""
        self.sock = self.makeSocket(CONNECT_TIMEOUT)
        end = time.monotonic() + LASTS
        number = size = 0
        while size + BATCH <= self.share and (rest := end - time.monotonic()) > 0:
            if number == len(self.window):
                if not self.wait(rest):
                    break
                if not (batch := self.queue.take()):
                    continue
                self.window.append(batch)
            batch = self.window[number]
            self.send(batch.data)
            (resent if number < self.tried else sent).inc(batch.count)
            number += 1
            size += len(batch.data)
            self.tried = max(self.tried, number)
        self.finish()
        self.arrived(self.window[:number])
        del self.window[:number]
        self.tried -= number
        self.share = min(self.share * 2, self.resend_size)

    def arrived(self, batches):
        """For those who keep the lines elsewhere (forwarder.py)."""

    def makeSocket(self, timeout=CONNECT_TIMEOUT):  # noqa: N802 (the base class's)
        sock = super().makeSocket(timeout)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        if self.tls:
            sock = self.tls.wrap_socket(sock, server_hostname=self.host)
        sock.settimeout(PATIENCE)
        return sock

    def send(self, data):
        rest = memoryview(data)
        while rest:
            rest = rest[self.patiently(self.sock.send, rest) :]

    def patiently(self, call, argument):
        """The call's result, however slow Logstash is: to connect again would not speed it up."""
        while True:
            try:
                return call(argument)
            except TimeoutError as error:
                if error.errno:  # the kernel's, after keep-alive
                    raise
                self.check()

    def check(self):
        self.observe()
        # Not TCP_USER_TIMEOUT, which also ends a connection whose peer answers and does not read.
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 4)
        if info[2] + info[3] >= UNANSWERED:  # tcpi_retransmits and tcpi_probes
            raise TimeoutError("does not answer any more")
        if self.stopping.is_set() and time.monotonic() > self.deadline:
            raise TimeoutError("no time left")

    def finish(self):
        """Until the other side has read everything. Raise if it has not: a connection that broke
        before, which the first send() after does not tell, is found here at the latest.
        """
        if self.tls:
            self.sock.settimeout(0)
            with contextlib.suppress(ssl.SSLError):
                self.sock.unwrap()
            self.sock.settimeout(PATIENCE)
        self.sock.shutdown(socket.SHUT_WR)
        while self.patiently(self.sock.recv, BATCH):
            pass
        # The other side may have closed just before our last bytes came, which it then resets.
        while self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != TCP_CLOSE:
            self.check()
            time.sleep(0.01)
        if error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))
        self.disconnect()

    def disconnect(self):
        if self.sock:
            self.sock.close()
            self.sock = None

    def report(self, problem):
        queued.set(len(self.queue))
        if (now := time.monotonic()) - self.reported[1] >= REPORTS:
            self.reported = (self.queue.dropped, now)
            log.warning(
                "Logstash at %s:%d: %s; lines waiting: %d, dropped since the start: %d",
                self.host, self.port, problem, len(self.queue), self.queue.dropped,
            )  # fmt: skip

    # At the end of the process

    def close(self):
        """Send what waits, but not for long. logging calls this when the process ends."""
        if self.stopping.is_set():
            return
        self.deadline = time.monotonic() + DRAIN
        self.stopping.set()
        self.filled.set()
        if self.sender_of == os.getpid():
            self.sender.join(DRAIN + 1)
        elif not self.serving:
            self.ship()
        else:
            return
        batches = [*self.window, *iter(self.queue.take, None)]
        for batch in batches:
            self.queue.drop(batch.level, batch.count)
        if batches:
            self.reported = (0, -REPORTS)
            self.report("not reached at the end of the process")


def configure(settings, serving):
    """Add the handler to the root logger, or let a worker go on with that of the master."""
    root = logging.getLogger()
    shippers = [handler for handler in root.handlers if isinstance(handler, Shipper)]
    if not shippers:
        root.addHandler(shipper := Shipper(settings))
        shippers.append(shipper)
    if serving:
        shippers[0].serve()
