"""Lines that nginx or the application appends to two files in memory, read and cut out from here.

What has arrived is cut out of the files: a hole takes no space (fallocate(2),
FALLOC_FL_PUNCH_HOLE), the writer has to be told nothing, and after a restart what is left is what
has not arrived. When Logstash is away for so long that the file system fills up, the oldest lines
of info.log are dropped first, counted and reported.
"""

import collections
import ctypes
import errno
import hashlib
import json
import os
import re

from sender import BATCH, dropped

FOLDER = "/var/log/shipping"
# What is sent first stands first; levels, by which drops are counted. Written by
# app/webapp/logs.py and nginx/entrypoint/05-settings.envsh.
FILES = {"error.log": "error", "info.log": "info"}
RESERVE = 0.25  # of the file system: what may be written before the next look
MOST_AT_ONCE = 1000000  # bytes read at a look
# include/uapi/linux/falloc.h
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2
# How each line of JSON begins, and nothing else in one: quotes in its values are escaped. (In one
# of nginx's error log they are not, and it quotes what clients sent.)
BEGINNING = b'{"@timestamp":"'

# nginx, src/core/ngx_log.c: "%4d/%02d/%02d %02d:%02d:%02d [level] pid#tid: *connection message"
ERROR_LINE = re.compile(
    r"(?P<time>\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) \[(?P<level>[a-z]+)\] (?P<pid>\d+)#(?P<thread>\d+): "
    r"(?P<message>(?:\*(?P<connection>\d+) )?.*)",
    re.DOTALL,
)
ERROR_LINE_BEGINS = re.compile(rb"\d{4}/\d\d/\d\d ")
CLIENT = re.compile(r", client: ([0-9a-f.:]+)")

libc = ctypes.CDLL(None, use_errno=True)
libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)

Batch = collections.namedtuple("Batch", "level count data tail begin")


def event(line):
    """A line of nginx's or the application's log as JSON with an event.id, or None.

    Behind what a full volume or a kill cut short stands, in the same line, the next whole one. Not
    in one of nginx's error log, where a client could have written it.
    """
    if is_torn(line):
        line = line[line.rfind(BEGINNING) :]
    if line.startswith(b"{"):
        return line if line.endswith(b"}") and b'"event":{"id":"' in line else None
    text = line.decode("utf-8", "replace")
    if not (match := ERROR_LINE.fullmatch(text)):
        return None
    fields = {
        "@timestamp": match["time"].replace("/", "-").replace(" ", "T") + "Z",
        "log": {"level": match["level"]},
        "message": match["message"],
        "ecs": {"version": "8.11.0"},
        "service": {"name": "nginx", "type": "nginx"},
        "process": {"pid": int(match["pid"]), "thread": {"id": int(match["thread"])}},
        # The same whether it comes from the file or, later, from Docker's log.
        "event": {"id": hashlib.sha256(line).hexdigest()[:32], "dataset": "nginx.error"},
    }
    if match["connection"]:
        fields["nginx"] = {"connection": int(match["connection"])}
    if client := CLIENT.search(text):
        fields["client"] = {"address": client[1], "ip": client[1]}
    return json.dumps(fields, separators=(",", ":")).encode()


def is_torn(line):
    """Does a line begin within it?"""
    if line.rfind(BEGINNING) <= 0 or ERROR_LINE_BEGINS.match(line):
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


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
                # Before the search for data: what is written after that comes behind it.
                self.begin = self.end = os.fstat(self.file).st_size
                self.begin = self.end = os.lseek(self.file, 0, os.SEEK_DATA)
            except FileNotFoundError:
                return  # nobody has written yet
            except OSError as error:
                if error.errno != errno.ENXIO:  # nothing but a hole
                    raise
        if os.fstat(self.file).st_size < self.end:  # emptied by somebody
            self.begin = self.end = self.lines = 0
        data = os.pread(self.file, MOST_AT_ONCE, self.end)
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) == MOST_AT_ONCE:
            # A hole, of lines dropped before this process began; or what is no line of ours.
            whole = len(data) - len(data.lstrip(b"\0"))
            if not whole and (whole := self.length_of_line()):
                self.lines += 1
        self.end += whole
        self.lines += data.count(b"\n", 0, whole)

    def length_of_line(self):
        with open(self.path, "rb") as file:
            file.seek(self.end)
            line = file.readline()
        return len(line) if line.endswith(b"\n") else 0

    def take(self):
        """The oldest lines, as many as are sent at once, and where they begin."""
        self.begin = os.lseek(self.file, self.begin, os.SEEK_DATA)
        data = os.pread(self.file, min(BATCH, self.end - self.begin), self.begin)
        whole = data.rfind(b"\n") + 1
        if not whole:  # no line of ours
            data = self.line_of_any_length()
            whole = len(data)
        begin = self.begin
        self.begin += whole
        self.lines -= data.count(b"\n", 0, whole)
        return begin, data[:whole]

    def give_up(self):
        """Drop the oldest lines, and return how many."""
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
    """The lines of both files, for sender.Sender."""

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
                lines = [line.lstrip(b"\0") for line in data[:-1].split(b"\n")]
                events = [found for line in lines if (found := event(line))]
                if lost := sum(map(bool, lines)) - len(events) + sum(map(is_torn, lines)):
                    self.drop(tail.level, lost)
                if events:
                    text = b"\n".join([*events, b""])
                    return Batch(tail.level, len(events), text, tail, begin)
        return None

    def arrived(self, batches, kept):
        for tail in {batch.tail for batch in batches}:
            tail.punch(0, next((b.begin for b in kept if b.tail is tail), tail.begin))

    def drop(self, level, count):
        self.dropped += count
        dropped.labels(level).inc(count)
