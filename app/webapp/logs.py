"""Logging: one JSON object a line on stdout, in Elastic Common Schema names.

Everything passes through the root logger's one handler: the application's lines, gunicorn's own
messages and its access lines (access_log.py), warnings, and what is printed. Call loggers as
always; `extra={...}` becomes `labels`, and `extra={"ecs": {...}}` is merged in as it stands.
"""

import contextlib
import fcntl
import io
import itertools
import json
import logging
import math
import os
import re
import secrets
import sys
import threading
import time
import traceback

from flask import has_request_context, request

from . import config, request_id
from .masking import is_sensitive, mask

ACCESS = "gunicorn.access"
ECS_VERSION = "8.11.0"

LONGEST_VALUE = 2048
LONGEST_TEXT = 8192  # a message or a stack trace
SHORT = 512  # any of these, in a line that is too long otherwise
# Docker cuts lines in pieces of 16 kB (moby, daemon/logger/copier.go).
LONGEST_LINE = 16_000
ESSENTIAL = ("@timestamp", "log", "message", "ecs", "service", "process", "event", "error")
DEEPEST = 6

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}", re.ASCII)
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
ORDINARY = frozenset(vars(logging.makeLogRecord({})))  # the attributes of a record without `extra`
STANDARD = ORDINARY | {"message", "asctime", "taskName", "ecs", "json_line"}

# Of event.id, by which a line that is sent twice is known: of this process, and of the line.
process_id = secrets.token_hex(8)
numbers = itertools.count(1)

encode = json.JSONEncoder(
    ensure_ascii=True,
    allow_nan=False,
    separators=(",", ":"),
    default=lambda value: safe(value),  # noqa: PLW0108 (defined below)
).encode


def encode_any(fields):
    """encode() for what it refuses, at a cost that ordinary lines do not pay."""
    try:
        line = encode(fields)
    except (TypeError, ValueError, RecursionError):
        return encode(safe(fields, longest=2 * LONGEST_TEXT))
    # An escaped surrogate: half of an emoji, or alone and no Unicode text.
    return encode(safe(fields, longest=2 * LONGEST_TEXT)) if r"\ud" in line else line


def event_id():
    return f"{process_id}-{next(numbers)}"


def be_another():
    global process_id  # noqa: PLW0603 (one a process)
    process_id = secrets.token_hex(8)


os.register_at_fork(after_in_child=be_another)


def clip(value, longest=LONGEST_VALUE):
    return value if len(value) <= longest else f"{value[:longest]}[{len(value)} characters]"


def safe(value, depth=0, longest=LONGEST_VALUE, most=100):
    """The value in a form that json encodes whatever it was: cycles, NaN, bytes, odd keys."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() < 64:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dict) and depth < DEEPEST:
        items = list(value.items())[:most]
        return {clip(show(k)): masked(k, v, depth + 1, longest, most) for k, v in items}
    if isinstance(value, (list, tuple, set, frozenset)) and depth < DEEPEST:
        return [safe(item, depth + 1, longest, most) for item in list(value)[:most]]
    return mask(clip(show(value), longest))


def masked(key, value, *limits):
    return "***" if is_sensitive(show(key), value) else safe(value, *limits)


def show(value):
    """str() that cannot fail, without lone surrogates: strict readers refuse a line with one."""
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:
        text = f"<{type(value).__name__} without str()>"
    return text.encode("utf-8", "replace").decode()


def trace_id(environ):
    """The trace id of a valid W3C traceparent header, or None."""
    match = TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    if match and match[1].strip("0") and match[2].strip("0"):
        return match[1]
    return None


def request_fields(environ):
    """What is known about a request from its WSGI environ, as ECS objects."""
    # RAW_URI is what the client sent, still percent-encoded; only gunicorn and Werkzeug have it.
    path, _, query = (environ.get("RAW_URI") or environ.get("PATH_INFO", "")).partition("?")
    http = {"request": {"method": clip(environ.get("REQUEST_METHOD", ""), 32)}}
    if key := environ.get(request_id.KEY):
        http["request"]["id"] = key
    if route := environ.get(request_id.ROUTE):
        http["route"] = route
    fields = {
        "http": http,
        "url": {"path": clip(path)},
        "client": {"address": environ.get("REMOTE_ADDR", "")},
    }
    if query:
        fields["url"]["query"] = mask(clip(query))
    if trace := trace_id(environ):
        fields["trace"] = {"id": trace}
    return fields


class JSONFormatter(logging.Formatter):
    """Makes a record one line of JSON; never raises."""

    def __init__(self, service_name, service_version):
        super().__init__()
        self.service = {"name": service_name, "version": service_version}
        self.second = (0, "")

    def format(self, record):
        # Kept on the record: the copy for a log forwarder is the same line, with the same event.id.
        if "json_line" not in record.__dict__:
            try:
                record.json_line = self.line(record)
            except Exception as error:
                text = f"log record lost: {type(error).__name__}"
                record.json_line = encode({"message": text, "event": {"id": event_id()}})
        return record.json_line

    def line(self, record):
        fields = self.fields(record)
        line = encode_any(fields)
        if len(line) > LONGEST_LINE:
            fields = safe(self.fields(record, SHORT), longest=SHORT + 64, most=20)
            line = encode(fields)
        if len(line) > LONGEST_LINE:
            fields["event"] = {"id": fields["event"]["id"]}
            line = encode({name: fields[name] for name in ESSENTIAL if name in fields})
        if len(line) > LONGEST_LINE:
            # By `ecs`, of which parts are in the place of these.
            line = self.line(logging.makeLogRecord({**record.__dict__, "ecs": None}))
        return line

    def fields(self, record, longest=LONGEST_TEXT):
        level = LEVELS.get(record.levelno) or record.levelname.lower()
        # On all lines: any of them may be copied to a central log later.
        event = {"id": event_id(), "dataset": "app"}
        fields = {
            "@timestamp": self.timestamp(record.created),
            "log": {"level": level, "logger": record.name},
            "message": clip(message(record), longest),
            "ecs": {"version": ECS_VERSION},
            "service": self.service,
            "process": {"pid": record.process},
            "event": event,
        }
        if ecs := record.__dict__.get("ecs"):
            # Ours are built of text that is safe.
            fields.update(ecs if record.name == ACCESS else safe(ecs))
            fields["event"] = event | fields["event"] | {"id": event["id"]}
        elif has_request_context():
            fields.update(request_fields(request.environ))
        if record.exc_info and record.exc_info[0]:
            fields["error"] = error_fields(record.exc_info, longest)
        if len(record.__dict__) > len(ORDINARY):
            labels = {k: masked(k, v) for k, v in record.__dict__.items() if k not in STANDARD}
            if labels:
                fields["labels"] = labels
        return fields

    def timestamp(self, created):
        second, milliseconds = divmod(int(created * 1000), 1000)
        known, text = self.second
        if second != known:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self.second = (second, text)
        return f"{text}.{milliseconds:03d}Z"


def message(record):
    if record.name == ACCESS:  # a path, and no query
        return record.msg
    try:
        text = record.getMessage()
    except Exception:
        text = f"{show(record.msg)} {show(record.args)}"
    return mask(clip(text, LONGEST_TEXT))


def error_fields(exc_info, longest=LONGEST_TEXT):
    kind, error, trace = exc_info
    stack = "".join(traceback.format_exception(kind, error, trace))
    if len(stack) > longest:
        # The end of a stack trace names the error.
        stack = f"[{len(stack)} characters]{stack[-longest:]}"
    return {
        "type": kind.__qualname__,
        "message": mask(clip(show(error))),
        "stack_trace": mask(stack),
    }


def visible(text):
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], COLOUR.sub("", text))


class TextFormatter(logging.Formatter):
    """For people: a line each, with control characters made visible; stack traces below, indented.

    Otherwise the text of an exception, which may be a client's, makes lines that look like others,
    or erases some in a terminal.
    """

    def format(self, record):
        text = visible(message(record))
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        parts = [f"{clock} {record.levelname:<8}{record.name}: {clip(text, LONGEST_TEXT)}"]
        if has_request_context():
            parts[0] += f" [{request.environ.get(request_id.KEY)}]"
        if record.exc_info and record.exc_info[0]:
            trace = error_fields(record.exc_info)["stack_trace"].rstrip()
            parts += [f"    {visible(line)}" for line in trace.split("\n")]
        return "\n".join(parts)


class Stdout(logging.Handler):
    """Writes lines to stdout, each whole.

    Workers share one pipe, where writes above PIPE_BUF may be mixed with others' (pipe(7)), so the
    writer holds a record lock (fcntl(2)), which ends with its process.

    A line that cannot be written (disk full, reader gone) is dropped: the request goes on. Where a
    log forwarder reads (log_files.py), it is copied to its files first: what is on stdout when the
    process is killed is there, too.
    """

    fd = 1
    files = of_files = None

    def handle(self, record):
        # Without logging's lock: formatting must not wait for another thread's write.
        if self.filter(record):
            self.emit(record)

    def emit(self, record):
        with contextlib.suppress(Exception):
            data = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            copy = self.files and f"{self.of_files.format(record)}\n".encode()
            with self.lock:
                if copy:
                    self.files.append(record.levelno, copy)
                with locked(self.fd):
                    while data:
                        data = data[os.write(self.fd, data) :]


@contextlib.contextmanager
def locked(fd):
    """No other worker writes meanwhile. Without a lock where the file allows none."""
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX)
    except OSError:
        yield
        return
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN)


class Printed(io.TextIOBase):
    """In place of sys.stdout and sys.stderr that logs each line printed."""

    def __init__(self, logger, level):
        self.logger = logger
        self.level = level
        self.rest = threading.local()

    def writable(self):
        return True

    def write(self, text):
        *lines, rest = (getattr(self.rest, "text", "") + text).split("\n")
        self.rest.text = rest[-LONGEST_TEXT:]
        for line in lines:
            if line.strip():
                self.logger.log(self.level, "%s", line)
        return len(text)


def capture_prints():
    """Log what is printed, so that stdout holds nothing but log lines (JSON format only)."""
    if not isinstance(sys.stdout, Printed):
        sys.stdout = Printed(logging.getLogger("stdout"), logging.INFO)
        sys.stderr = Printed(logging.getLogger("stderr"), logging.WARNING)


def configure(settings):
    """Point the root logger at stdout. Called again, it replaces what it did before."""
    json_lines = JSONFormatter(settings["SERVICE_NAME"], settings["APP_VERSION"])
    handler = Stdout()
    handler.setFormatter(json_lines if settings["LOG_FORMAT"] == "json" else TextFormatter())
    if settings["SHIP_LOGS"]:
        from . import log_files  # noqa: PLC0415 (no metric where it is off)

        handler.files, handler.of_files = log_files.opened(config.LOG_FOLDER), json_lines

    root = logging.getLogger()
    root.handlers = [old for old in root.handlers if not isinstance(old, Stdout)] + [handler]
    root.setLevel(settings["LOG_LEVEL"].upper())
    logging.captureWarnings(True)
    # Otherwise a failing handler prints a stack trace for every record.
    logging.raiseExceptions = False


def remember_route():
    """For the access line: this application's or, by a response header, nginx's."""
    if request.url_rule is not None:
        request.environ[request_id.ROUTE] = request.url_rule.rule


def init_app(app):
    configure(app.config)
    app.before_request(remember_route)
