"""Ships nginx's lines to Logstash, from files in memory: `python -m webapp.forwarder [FOLDER]`.

A container of its own beside nginx, which writes its log a second time into a small file system in
memory that both have mounted (the logging room's tmpfs volume). So nginx starts and serves whoever
reads, and needs no Docker socket, no name and no network for it. What has arrived is cut out of the
files: a hole takes no space (fallocate(2), FALLOC_FL_PUNCH_HOLE), nobody has to be told, and after
a restart what is left is what has not arrived. When Logstash is away for so long that the file
system fills up, the oldest lines are given up, counted and reported, as in shipping.py.

`python -m webapp.forwarder -` sends what it reads, with a tag for lines that may be there already:
`make replay`. Exit code 1: not all has arrived.
"""

import collections
import ctypes
import errno
import hashlib
import json
import logging
import os
import re
import signal
import sys
import time

from prometheus_client import start_http_server

from . import config, logs, shipping

FOLDER = "/var/log/shipping"
# What is sent first stands first. Levels of webapp/logs.py, by which drops are counted.
FILES = {"error.log": logging.ERROR, "access.log": logging.INFO}
PAUSE = 0.2  # seconds between two looks at the files
RESERVE = 0.25  # of the file system: what nginx may write before the next look
MOST_AT_ONCE = 1_000_000  # bytes read at a look
RETRY = 5  # seconds between two attempts at most: as long, nobody looks at the files
ATTEMPTS = 5  # before a replay is given up
# include/uapi/linux/falloc.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

# nginx, src/core/ngx_log.c: "%4d/%02d/%02d %02d:%02d:%02d [level] pid#tid: *connection message"
ERROR_LINE = re.compile(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]+)\] (?P<pid>\d+)#(?P<thread>\d+): "
    r"(?P<message>(?:\*(?P<connection>\d+) )?.*)",
    re.DOTALL,
)
CLIENT = re.compile(r", client: ([0-9a-f.:]+)")

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

Batch = collections.namedtuple("Batch", [*shipping.Batch._fields, "tail", "begin"])


def event(line):
    """A line of nginx's or the application's log as JSON with an event.id, or None."""
    if line.startswith(b"{"):
        return line if b'"event":{"id":"' in line else None
    text = line.decode("utf-8", "replace")
    if not (match := ERROR_LINE.fullmatch(text)):
        return None
    fields = {
        "@timestamp": match["time"].replace("/", "-").replace(" ", "T") + "Z",
        "log": {"level": match["level"]},
        "message": logs.mask(match["message"]),
        "ecs": {"version": logs.ECS_VERSION},
        "service": {"name": "nginx", "type": "nginx"},
        "process": {"pid": int(match["pid"]), "thread": {"id": int(match["thread"])}},
        # The same whether it comes from the file or, later, from Docker's log.
        "event": {"id": hashlib.sha256(line).hexdigest()[:32], "dataset": "nginx.error"},
    }
    if match["connection"]:
        fields["nginx"] = {"connection": int(match["connection"])}
    if client := CLIENT.search(text):
        fields["client"] = {"address": client[1], "ip": client[1]}
    return logs.encode_any(fields).encode()


class Tail:
    """One growing file: what has not been taken of it, in whole lines."""

    def __init__(self, path, level):
        self.path, self.level = path, level
        self.file = None
        self.begin = self.end = self.lines = 0
        self.given_up = (0, 0)  # from where to where, last

    def look(self):
        """Find what has been added."""
        if self.file is None:
            try:
                self.file = os.open(self.path, os.O_RDWR)
                # Before the search for data: what nginx writes after that comes behind it.
                self.begin = self.end = os.fstat(self.file).st_size
                self.begin = self.end = os.lseek(self.file, 0, os.SEEK_DATA)
            except FileNotFoundError:
                return  # nginx has not been there yet
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole
                    raise
        if os.fstat(self.file).st_size < self.end:  # emptied by somebody
            self.begin = self.end = self.lines = 0
        data = os.pread(self.file, MOST_AT_ONCE, self.end)
        whole = data.rfind(b"\n") + 1
        self.end += whole
        self.lines += data.count(b"\n")

    def take(self):
        """The oldest lines, as many as are sent at once, and where they begin."""
        self.begin = os.lseek(self.file, self.begin, os.SEEK_DATA)
        data = os.pread(self.file, min(shipping.BATCH, self.end - self.begin), self.begin)
        whole = data.rfind(b"\n") + 1
        if not whole:  # no log of nginx
            data = self.line_of_any_length()
            whole = len(data)
        begin = self.begin
        self.begin += whole
        self.lines -= data.count(b"\n", 0, whole)
        return begin, data[:whole]

    def give_up(self):
        """The oldest lines: how many."""
        begin, data = self.take()
        # From where the last began: only whole pages are given back, and lines end within them.
        first = self.given_up[0] if begin == self.given_up[1] else begin
        self.given_up = (first, self.begin)
        self.punch(*self.given_up)
        return data.count(b"\n")

    def punch(self, begin, end):
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
        if end > begin and libc.fallocate(self.file, mode, begin, end - begin):
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), self.path)

    def line_of_any_length(self):
        with open(self.path, "rb") as file:
            file.seek(self.begin)
            return file.readline()


class Files:
    """In the place of shipping.Queue: lines wait where nginx has written them."""

    def __init__(self, folder):
        self.folder = folder
        self.tails = [Tail(os.path.join(folder, name), level) for name, level in FILES.items()]
        self.dropped = 0

    def __len__(self):
        return sum(tail.lines for tail in self.tails)

    def look(self):
        for tail in self.tails:
            tail.look()
        disk = os.statvfs(self.folder)
        while disk.f_bavail < RESERVE * disk.f_blocks and len(self):
            tail = next(tail for tail in reversed(self.tails) if tail.lines)
            self.drop(tail.level, tail.give_up())
            disk = os.statvfs(self.folder)

    def take(self):
        for tail in self.tails:
            while tail.lines:
                begin, data = tail.take()
                # A hole reads as zeros.
                lines = [event(line.lstrip(b"\0")) for line in data[:-1].split(b"\n")]
                events = [line for line in lines if line]
                if unknown := len(lines) - len(events):
                    self.drop(tail.level, unknown)
                if events:
                    text = b"\n".join([*events, b""])
                    return Batch(tail.level, len(events), text, tail, begin)
        return None

    def drop(self, level, count):
        self.dropped += count
        shipping.DROPPED[level].inc(count)


class Sender(shipping.Shipper):
    """For lines that are no log records of this process."""

    def __init__(self, settings, queue):
        super().__init__(settings)
        self.queue = queue
        self.retryMax = RETRY

    def close(self):
        """Nothing is lost with the process: the lines stay where they came from."""


class Forwarder(Sender):
    def wait(self, seconds=None):
        until = time.monotonic() + seconds if seconds else None
        while True:
            self.observe()
            if self.stopping.is_set() and time.monotonic() > self.deadline:
                return False
            if self.queue or self.stopping.is_set() or (until and time.monotonic() > until):
                return bool(self.queue)
            self.stopping.wait(PAUSE)

    def observe(self):
        self.queue.look()
        super().observe()

    def arrived(self, batches):
        kept = self.window[len(batches) :]
        for tail in {batch.tail for batch in batches}:
            tail.punch(0, next((b.begin for b in kept if b.tail is tail), tail.begin))

    def stop(self, *_):
        self.deadline = time.monotonic() + shipping.DRAIN
        self.stopping.set()


class Given:
    """In the place of shipping.Queue: the lines of a file, as far as it has been read."""

    def __init__(self, file):
        self.lines = self.events(file)
        self.dropped = self.taken = self.unknown = 0
        self.next = next(self.lines, None)

    def __len__(self):
        return self.next is not None

    def events(self, file):
        for line in file:
            found = event(line.rstrip(b"\n"))
            try:
                fields = json.loads(found or b"")
            except ValueError:
                self.unknown += bool(line.strip())
            else:
                yield logs.encode_any(fields | {"tags": ["replay"]})

    def take(self):
        taken, size = [], 0
        while self and (not taken or size + len(self.next) < shipping.BATCH):
            taken.append(self.next)
            size += len(self.next) + 1
            self.next = next(self.lines, None)
        self.taken += len(taken)
        return shipping.Batch(logging.INFO, len(taken), "\n".join([*taken, ""]).encode())


class Replay(Sender):
    deadline = float("inf")
    failures = 0

    def wait(self, seconds=None):
        if not self.queue:
            self.stopping.set()
        return bool(self.queue)

    def report(self, problem):
        self.failures += 1
        if self.failures == ATTEMPTS:
            print(f"Logstash at {self.host}:{self.port}: {problem}", file=sys.stderr)
            self.stopping.set()


def replay(settings):
    sender = Replay(settings, given := Given(sys.stdin.buffer))
    sender.ship()
    missing = sum(batch.count for batch in sender.window)
    print(f"{given.taken - missing} lines sent, {given.unknown} without an event.id left out")
    return bool(missing or given)


def forward(settings, folder):
    forwarder = Forwarder(settings, Files(folder))
    signal.signal(signal.SIGTERM, forwarder.stop)
    start_http_server(settings["PORT"])
    forwarder.ship()


def main(folder=FOLDER):
    # It signs nothing, and what it says about Logstash is on stdout alone.
    settings = config.load({**os.environ, "APP_ENV": "development"})
    logs.configure(settings | {"LOGSTASH_HOST": None})
    if not settings["LOGSTASH_HOST"]:
        sys.exit("webapp: LOGSTASH_HOST: is missing; set it to the host name of Logstash")
    return replay(settings) if folder == "-" else forward(settings, folder)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
