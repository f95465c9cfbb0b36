"""Sends lines to Logstash over python-logstash's TCP handler, until each has arrived.

Logstash's TCP input does not acknowledge lines. But it closes a connection only after it has read
all of it (logstash-input-tcp, InputLoop.java: Netty decodes and enqueues in the thread that reads,
and without ALLOW_HALF_CLOSURE it closes at the end). So the sender ends each connection after SHARE
bytes or LASTS seconds: half-close, then wait until Logstash closes, too. Until then the lines stay.
When the connection breaks, they are sent again on the next one, with the same event.id, by which
Elasticsearch recognizes them. (What the other side's kernel holds unread is invisible from here:
2.9 MB on loopback. A window that is merely trimmed loses it.)

Two gaps are left: what Logstash has read in the instant it is killed may not be in its queue, and
Logstash closes in the ordinary way, too, when it cannot queue a line because its disk is full.
"""

import contextlib
import os
import random
import socket
import ssl
import sys
import threading
import time

from logstash import TCPLogstashHandler
from prometheus_client import Counter, Gauge

BATCH = 16384  # bytes sent at once: a line at least
SHARE = 1048576  # bytes of one connection, which are sent again when it breaks
LASTS = 10  # seconds for which a connection is used
CONNECT_TIMEOUT = 2
PATIENCE = 1  # seconds after which a connection on which nothing moves is looked at
UNANSWERED = 5  # retransmissions after which the peer is taken for dead: 6 s at least
# For a peer that has taken everything and then vanishes: 25 s (tcp(7)).
KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
RETRY = 5  # seconds between two attempts at most: as long, nobody looks at the files
DRAIN = 5  # seconds for what waits, when the container is stopped
REPORTS = 60  # seconds between two reports on stderr
TCP_CLOSE = 7  # include/net/tcp_states.h

queued = Gauge("log_forwarder_lines_queued", "Log lines waiting for Logstash.")
sent = Counter("log_forwarder_lines_sent_total", "Log lines sent to Logstash.")
resent = Counter("log_forwarder_lines_resent_total", "Log lines sent again: a connection broke.")
dropped = Counter(
    "log_forwarder_lines_dropped_total", "Log lines dropped, which are on stdout alone.", ["level"]
)
reconnects = Counter("log_forwarder_reconnects_total", "Connections that broke or were refused.")


class Sender(TCPLogstashHandler):
    """Sends what `lines` gives out.

    lines: take() returns a batch (level, count, data: bytes) or None; len() is how many lines
    wait; look() finds new ones; arrived(batches, kept) is called when Logstash has read batches
    while those in kept are on their way; dropped is how many were lost so far.
    """

    def __init__(self, settings, lines):
        super().__init__(settings.host, settings.port)
        self.tls = None
        if settings.tls:
            self.tls = ssl.create_default_context(cafile=settings.ca_file)
        self.lines = lines
        self.retryMax = RETRY
        self.share = SHARE  # bytes that the next connection may carry
        self.window = []  # batches that are not known to have arrived
        self.tried = 0  # of them, sent before
        self.reported = (0, -REPORTS)  # how many were dropped, when
        self.stopping = threading.Event()
        self.deadline = float("inf")

    def ship(self):
        """Send until stopped, then what waits, until the deadline."""
        failures = 0
        while self.window or self.wait() or not self.stopping.is_set():
            try:
                self.exchange()
                failures = 0
            except Exception as error:
                self.disconnect()
                reconnects.inc()
                self.failed(error)
                self.observe()
                # A peer that closes soon still gets on: less is to arrive at once.
                self.share = max(self.share // 2, BATCH)
                if failures and self.stopping.is_set():
                    return
                pause = self.retryStart * self.retryFactor ** min(failures, 9)
                self.stopping.wait(min(pause, self.retryMax) * random.uniform(0.5, 1))  # noqa: S311
                failures += 1

    def stop(self, *_):
        """As a signal handler."""
        self.deadline = time.monotonic() + DRAIN
        self.stopping.set()

    def wait(self, seconds=None):
        """For lines; False when there are none, which without a limit is at the end."""
        raise NotImplementedError

    def observe(self):
        self.lines.look()
        queued.set(len(self.lines))
        if self.lines.dropped > self.reported[0]:
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
                if not (batch := self.lines.take()):
                    continue
                self.window.append(batch)
            batch = self.window[number]
            self.send(batch.data)
            (resent if number < self.tried else sent).inc(batch.count)
            number += 1
            size += len(batch.data)
            self.tried = max(self.tried, number)
        self.finish()
        self.lines.arrived(self.window[:number], self.window[number:])
        del self.window[:number]
        self.tried -= number
        self.share = min(self.share * 2, SHARE)

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
        """Wait until the other side has read everything.

        Raises OSError if it has not: a connection that broke before, which the first send() after
        does not tell, is found here at the latest.
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

    def failed(self, error):
        """An attempt to send ended with this exception."""
        self.report(error)

    def report(self, problem):
        if (now := time.monotonic()) - self.reported[1] >= REPORTS:
            self.reported = (self.lines.dropped, now)
            print(
                f"Logstash at {self.host}:{self.port}: {problem}; lines waiting:"
                f" {len(self.lines)}, dropped since the start: {self.lines.dropped}",
                file=sys.stderr,
                flush=True,
            )
