"""Ships log lines to Logstash: `python forwarder.py`.

A container beside each writer, nginx and the application, which append their lines to two files in
memory (files.py) that both have mounted. So they start and serve whoever reads, and the forwarder
needs no Docker socket.

`python forwarder.py -` sends what it reads on stdin, with a tag for lines that may be there
already: `make replay`. Exit code 1: not all has arrived.
"""

import json
import os
import re
import signal
import ssl
import sys
import time
from typing import NamedTuple

from files import FOLDER, Batch, Files, event
from prometheus_client import start_http_server
from sender import BATCH, Sender

PAUSE = 0.2  # seconds between two looks at the files
ATTEMPTS = 5  # before a replay fails
METRICS_PORT = 8000
EX_CONFIG = 78  # sysexits(3)


class Settings(NamedTuple):
    host: str
    port: int = 5959
    tls: bool = False
    ca_file: str | None = None


def settings(environ):
    """Read from LOGSTASH_HOST, LOGSTASH_PORT, LOGSTASH_TLS and LOGSTASH_CA_FILE.

    Raises ValueError with one line that says what is wrong and what to set.
    """
    host, port, tls = (
        environ.get(f"LOGSTASH_{name}", "").strip() for name in ("HOST", "PORT", "TLS")
    )
    if not re.fullmatch(r"[A-Za-z0-9._-]+", host):
        raise ValueError(f"LOGSTASH_HOST is {host!r} -> set it to the host name of Logstash")
    if not re.fullmatch(r"[0-9]{1,5}", port or "5959") or not 0 < int(port or 5959) < 65536:
        raise ValueError(f"LOGSTASH_PORT is {port!r} -> set it to a number from 1 to 65535")
    if tls not in ("", "on", "off"):
        raise ValueError(f"LOGSTASH_TLS is {tls!r} -> set it to on or off")
    ca_file = environ.get("LOGSTASH_CA_FILE", "").strip() or None
    if ca_file and tls == "on":
        try:
            ssl.create_default_context(cafile=ca_file)
        except OSError as error:  # ssl.SSLError is one
            raise ValueError(
                f"LOGSTASH_CA_FILE: cannot load {ca_file} ({error.strerror})"
                f" -> a file of PEM certificates, readable by uid {os.getuid()}"
            ) from None
    return Settings(host, int(port or 5959), tls == "on", ca_file)


class Forwarder(Sender):
    def wait(self, seconds=None):
        until = time.monotonic() + seconds if seconds else None
        while True:
            self.observe()
            if self.stopping.is_set() and time.monotonic() > self.deadline:
                return False
            if self.lines or self.stopping.is_set() or (until and time.monotonic() > until):
                return bool(self.lines)
            self.stopping.wait(PAUSE)


class Given:
    """The lines of a file that is read once, in the place of Files."""

    def __init__(self, file):
        self.events = self.found(file)
        self.dropped = self.taken = self.unknown = 0
        self.next = next(self.events, None)

    def __len__(self):
        return self.next is not None

    def found(self, file):
        for line in file:
            try:
                fields = json.loads(event(line.rstrip(b"\n")) or b"")
            except ValueError:
                self.unknown += bool(line.strip())
            else:
                yield json.dumps(fields | {"tags": ["replay"]}, separators=(",", ":")).encode()

    def look(self):
        """Nothing is added."""

    def take(self):
        lines, size = [], 0
        while self and (not lines or size + len(self.next) < BATCH):
            lines.append(self.next)
            size += len(self.next) + 1
            self.next = next(self.events, None)
        self.taken += len(lines)
        return Batch("info", len(lines), b"\n".join([*lines, b""]), None, 0)

    def arrived(self, batches, kept):
        """They are kept elsewhere."""


class Replay(Sender):
    failures = 0  # one after the other

    def exchange(self):
        super().exchange()
        self.failures = 0

    def wait(self, seconds=None):
        if not self.lines:
            self.stopping.set()
        return bool(self.lines)

    def failed(self, error):
        self.failures += 1
        if self.failures == ATTEMPTS:
            print(f"Logstash at {self.host}:{self.port}: {error}", file=sys.stderr)
            self.deadline = 0
            self.stopping.set()


def replay(settings):
    sender = Replay(settings, given := Given(sys.stdin.buffer))
    sender.ship()
    missing = sum(batch.count for batch in sender.window)
    print(f"{given.taken - missing} lines sent, {given.unknown} without an event.id left out")
    return bool(missing or given)


def forward(settings, folder=FOLDER):
    if not os.access(folder, os.W_OK):
        sys.exit(f"error: {folder} cannot be written -> mount the writer's volume, with its user")
    forwarder = Forwarder(settings, Files(folder))
    signal.signal(signal.SIGTERM, forwarder.stop)
    start_http_server(METRICS_PORT)
    forwarder.ship()


def main():
    try:
        found = settings(os.environ)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EX_CONFIG
    return replay(found) if sys.argv[1:] == ["-"] else forward(found)


if __name__ == "__main__":
    sys.exit(main())
