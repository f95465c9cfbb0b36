"""Log lines: one valid JSON object each, whatever is in them."""

import json
import logging
import os
import subprocess
import sys
import time
import warnings
from datetime import timedelta
from types import SimpleNamespace

import pytest
from conftest import APP
from hypothesis import given
from hypothesis import strategies as st
from webapp import access_log, config, logs
from webapp.logs import JSONFormatter, TextFormatter

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FORMATTER = JSONFormatter("shop", "1.2")


def strict(line):
    """Parse as a strict reader would: one line, ASCII, no NaN, no lone surrogates."""
    assert "\n" not in line
    assert line.isascii()
    assert len(line) <= logs.LONGEST_LINE

    def refuse(constant):
        raise AssertionError(constant)

    entry = json.loads(line, parse_constant=refuse)
    json.dumps(entry, ensure_ascii=False).encode()
    return entry


def record(message="hello", *args, level=logging.INFO, exc_info=None, **extra):
    made = logging.makeLogRecord(
        {"name": "webapp", "levelno": level, "levelname": logging.getLevelName(level)}
    )
    made.msg, made.args, made.exc_info = message, args, exc_info
    made.__dict__.update(extra)
    return made


def line(*args, **kwargs):
    return strict(FORMATTER.format(record(*args, **kwargs)))


def test_the_common_fields():
    made = record("hello %s", "world", level=logging.WARNING)
    made.created = 1_700_000_000.0425
    entry = strict(FORMATTER.format(made))
    assert entry["@timestamp"] == "2023-11-14T22:13:20.042Z"
    assert entry["log"] == {"level": "warning", "logger": "webapp"}
    assert entry["message"] == "hello world"
    assert entry["service"] == {"name": "shop", "version": "1.2"}
    assert entry["process"]["pid"] == made.process
    assert entry["event"]["dataset"] == "app"
    assert "labels" not in entry


def test_a_record_is_formatted_once():
    made = record()
    first = FORMATTER.format(made)
    made.msg = "something else"
    assert FORMATTER.format(made) is first


def test_extras_become_labels_and_secrets_are_masked():
    extras = {"order": 7, "user_password": "p", "api-key": "k", "items": ["a", 1.5, None]}
    entry = line(**extras, nested={"Authorization": "Bearer x", "fine": True})
    assert entry["labels"] == {
        "order": 7,
        "user_password": "***",
        "api-key": "***",
        "items": ["a", 1.5, None],
        "nested": {"Authorization": "***", "fine": True},
    }


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def-ghi", "Authorization: Bearer ***"),
        ("Authorization: Basic YTpi", "Authorization: Basic ***"),
        ("got bearer abcdefgh from anna", "got bearer *** from anna"),
        ("/login?user=anna&password=hunter2&next=/", "/login?user=anna&password=***&next=/"),
        ("postgres://anna:hunter2@db/shop", "postgres://anna:***@db/shop"),
        ('{"api_key": "hunter2", "user": "anna"}', '{"api_key": ***, "user": "anna"}'),
        (r"{\"token\": \"hunter2\"}", r"{\"token\": ***}"),
        ("1234 tokens were used", "1234 tokens were used"),
        ("https://example.org:8443/path?at=@", "https://example.org:8443/path?at=@"),
    ],
)
def test_secrets_in_texts_are_masked_wherever_they_are(text, masked):
    try:
        raise ValueError(text)
    except ValueError:
        error = sys.exc_info()
    ecs = {"user": {"name": text, "password": "hunter2"}}
    entry = line("%s", text, exc_info=error, note=[text], ecs=ecs)
    assert entry["message"] == masked
    assert entry["labels"]["note"] == [masked]
    assert entry["user"] == {"name": masked, "password": "***"}
    assert entry["error"]["message"] == masked
    assert entry["error"]["stack_trace"].endswith(f"ValueError: {masked}\n")


def test_secrets_in_a_query_are_masked():
    fields = logs.request_fields({"RAW_URI": "/a?token=abc&b=1"})
    assert fields["url"] == {"path": "/a", "query": "token=***&b=1"}


@pytest.mark.parametrize(
    "text", ["token" * 2000, "token " + " " * 8000, "a://" * 2000, "bearer " * 1000]
)
def test_no_text_takes_long_to_mask(text):
    begin = time.thread_time()
    logs.mask(text)
    assert time.thread_time() - begin < 0.1


def test_parts_of_ecs_do_not_make_a_line_too_long():
    huge = {f"key {number}": ["x" * 500] * 20 for number in range(20)}
    assert line("hello", ecs={"error": huge, "log": huge, "event": {}})["message"] == "hello"


class Hostile:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def cycle():
    value = {}
    value["self"] = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"), float("inf"), b"\xff\x00", {(1, 2): 3}, {1, 2}, cycle(), Hostile(),
        {"key": Hostile(), Hostile(): 1}, "\ud800", "x" * 100_000, list(range(10_000)), 10**5000,
        object, "\x00\x1b[31m\u2028", {"deep": {"a": {"b": {"c": {"d": {"e": {"f": 1}}}}}}},
        [[["é" * 5000] * 50] * 50], {f"key{n}": "é" * 3000 for n in range(100)},
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_no_value_breaks_a_line(value):
    line(value=value)
    line("%s", value)
    line(value)
    line(ecs={"http": {"odd": value}})


def test_a_record_that_cannot_be_formatted_still_leaves_a_line(monkeypatch):
    monkeypatch.setattr(FORMATTER, "timestamp", lambda created: 1 / 0)
    entry = line()
    assert entry["event"]["id"]
    assert entry["message"] == "log record lost: ZeroDivisionError"


def test_wrong_arguments_are_shown_and_not_raised():
    assert line("%d items", "three")["message"] == "%d items ('three',)"
    assert line("%s")["message"] == "%s"


def test_emoji_stay_and_lone_surrogates_go():
    assert line("🏠")["message"] == "🏠"
    assert line("🏠\ud83c")["message"] == "🏠?"


def test_exceptions():
    try:
        raise ValueError("bad")
    except ValueError:
        entry = line(exc_info=sys.exc_info())
    assert entry["error"]["type"] == "ValueError"
    assert entry["error"]["message"] == "bad"
    assert entry["error"]["stack_trace"].rstrip().endswith("ValueError: bad")
    assert "error" not in line(exc_info=(None, None, None))


def test_a_huge_stack_trace_keeps_its_end():
    try:
        raise ValueError("ü" * 50_000 + "the end")
    except ValueError:
        entry = line(exc_info=sys.exc_info())
    assert entry["error"]["stack_trace"].rstrip().endswith("the end")


@given(st.text(), st.dictionaries(st.text(), st.text() | st.floats() | st.binary()))
def test_any_text_is_one_valid_line(text, extra):
    extra = {key: value for key, value in extra.items() if key not in logs.STANDARD}
    assert line("%s", text, **extra)
    shown = TextFormatter().format(record("%s", text))
    assert len(shown.splitlines()) == 1


# Access lines


def environ(**more):
    return {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/a%20b?c=d",
        "PATH_INFO": "/a b",
        "REMOTE_ADDR": "203.0.113.9",
        "HTTP_USER_AGENT": "a test",
        "webapp.request_id": "mine",
        "webapp.route": "/<path:name>",
        "HTTP_TRACEPARENT": TRACE,
        **more,
    }


@pytest.fixture
def access(monkeypatch, capfd):
    """access(environ, status): the lines that gunicorn's logger writes for it."""
    settings = config.load({"APP_ENV": "development", "LOG_LEVEL": "info"})
    monkeypatch.setattr(logs, "capture_prints", lambda: None)

    def write(environ, status="200 OK", **changed):
        monkeypatch.setattr(config, "from_environment", lambda: settings | changed)
        logger = access_log.AccessLogger(SimpleNamespace())
        answer = SimpleNamespace(status=status, sent=1234)
        capfd.readouterr()
        logger.access(answer, None, environ, timedelta(seconds=1, microseconds=5))
        for handler in logging.getLogger().handlers:
            handler.flush()
        return [strict(line) for line in capfd.readouterr().out.splitlines()]

    return write


def test_access_lines_are_information_and_follow_the_level(access):
    assert access(environ(), LOG_LEVEL="warning") == []


def test_access_lines_can_be_left_to_nginx(access):
    assert access(environ(), ACCESS_LOG=False) == []


def test_access_line_has_everything(access):
    (entry,) = access(environ())
    for name in ("@timestamp", "service", "process", "ecs"):
        assert entry.pop(name)
    assert entry["event"].pop("id")
    assert entry == {
        "log": {"level": "info", "logger": "gunicorn.access"},
        "message": "GET /a%20b 200",
        "http": {
            "request": {"method": "GET", "id": "mine"},
            "route": "/<path:name>",
            "response": {"status_code": 200, "body": {"bytes": 1234}},
        },
        "url": {"path": "/a%20b", "query": "c=d"},
        "client": {"address": "203.0.113.9"},
        "trace": {"id": "0af7651916cd43dd8448eb211c80319c"},
        "user_agent": {"original": "a test"},
        "event": {"dataset": "app.access", "duration": 1_000_005_000},
    }


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_probes_are_not_logged(access, path):
    assert access(environ(PATH_INFO=path, RAW_URI=path)) == []


def test_requests_that_never_reached_the_application_are_logged(access):
    (entry,) = access({"REQUEST_METHOD": "GET", "RAW_URI": "/bad"}, "400 Bad Request")
    assert entry["http"]["response"]["status_code"] == 400
    (entry,) = access({}, None)
    assert entry["http"]["response"]["status_code"] == 500


@given(st.text(), st.binary())
def test_no_client_breaks_or_forges_a_line(text, binary):
    """What gunicorn hands on is bytes decoded as Latin-1, and less than that in paths."""
    wild = environ(
        RAW_URI=f"/{text}?{binary.decode('latin-1')}",
        HTTP_USER_AGENT=binary.decode("latin-1"),
        REQUEST_METHOD=text,
        REMOTE_ADDR=text,
    )
    fields = logs.request_fields(wild)
    entry = line("%s", f"{text} {binary!r}", ecs=fields)
    assert entry["log"] == {"level": "info", "logger": "webapp"}


def test_long_values_are_clipped(access):
    (entry,) = access(environ(RAW_URI="/" + "é" * 9000, HTTP_USER_AGENT="x" * 9000))
    assert len(entry["url"]["path"]) < 2100
    assert len(entry["user_agent"]["original"]) < 2100


@pytest.mark.parametrize(
    "header",
    [
        "", "x", TRACE.upper(), TRACE + "-00", "ff" + TRACE[2:], TRACE.replace("b7ad", "b7aX"),
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{'a' * 32}-{'0' * 16}-01", f"{TRACE}\n",
    ],
)  # fmt: skip
def test_an_invalid_traceparent_is_ignored(header):
    assert "trace" not in logs.request_fields({"HTTP_TRACEPARENT": header})


# event.id


def test_every_line_has_an_id_of_its_own():
    access = {"event": {"dataset": "app.access", "id": "the client's"}}
    huge = {"event": {f"key{n}": "x" * 3000 for n in range(100)}}
    entries = [line(), line(ecs=access), line(ecs=huge), line(a=["é" * 5000] * 50)]
    assert len({entry["event"]["id"] for entry in entries} - {"the client's"}) == 4
    assert access["event"]["id"] == "the client's"


def test_a_forked_process_has_other_ids():
    code = """
import os
from webapp import logs
print(logs.event_id(), flush=True)
if child := os.fork():
    os.waitpid(child, 0)
print(logs.event_id(), flush=True)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=APP, check=True, capture_output=True, text=True
    )
    first, of_child, of_parent = (text.partition("-")[0] for text in answer.stdout.split())
    assert first == of_parent != of_child


# In the application


def test_lines_within_a_request_carry_it(app, stdout):
    @app.get("/item/<int:number>")
    def item(number):
        app.logger.info("item %d", number, extra={"number": number})
        return ""

    headers = {"X-Request-ID": "mine", "traceparent": TRACE}
    app.test_client().get("/item/7?a=b", headers=headers)
    (entry,) = stdout()
    assert entry["message"] == "item 7"
    assert entry["http"]["request"] == {"method": "GET", "id": "mine"}
    assert entry["http"]["route"] == "/item/<int:number>"
    assert entry["url"]["path"] == "/item/7"
    assert entry["client"]["address"] == "127.0.0.1"
    assert entry["trace"]["id"] in TRACE
    assert entry["labels"] == {"number": 7}


def test_two_applications_do_not_double_the_lines(make_app, stdout):
    make_app()
    make_app().logger.warning("once")
    assert len(stdout()) == 1


def test_levels(make_app, stdout):
    make_app(LOG_LEVEL="warning").logger.info("quiet")
    logging.getLogger("library").error("loud")
    assert [entry["message"] for entry in stdout()] == ["loud"]


def test_warnings_are_logged(make_app, stdout):
    make_app()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old api", DeprecationWarning, stacklevel=1)
    (entry,) = stdout()
    assert entry["log"] == {"level": "warning", "logger": "py.warnings"}
    assert "old api" in entry["message"]


def test_a_broken_stdout_stops_nothing(app, monkeypatch):
    monkeypatch.setattr(logs.Stdout, "fd", 987)
    app.logger.error("nobody reads this")
    assert app.test_client().get("/diagnostics/error").status_code == 500


def test_a_full_disk_stops_nothing(app, monkeypatch):
    with open("/dev/full", "wb") as full:
        monkeypatch.setattr(logs.Stdout, "fd", full.fileno())
        app.logger.error("nobody reads this")


def test_a_line_is_one_write(app, monkeypatch):
    writes = []
    monkeypatch.setattr(logs.os, "write", lambda fd, data: writes.append(data) or len(data))
    app.logger.info("one\ntwo")
    assert len(writes) == 1
    assert writes[0].endswith(b"}\n")


def test_a_short_write_is_completed(app, monkeypatch):
    written = bytearray()

    def write(fd, data):
        written.extend(data[:7])
        return len(data[:7])

    monkeypatch.setattr(logs.os, "write", write)
    app.logger.info("hello")
    assert strict(written.decode().rstrip("\n"))["message"] == "hello"


def test_workers_that_share_a_pipe_do_not_mix_their_lines():
    """Lines longer than PIPE_BUF, which the kernel alone does not keep whole."""
    script = """
import logging, sys
from webapp import logs
handler = logs.Stdout()
for _ in range(200):
    handler.handle(logging.makeLogRecord({"name": "webapp", "msg": sys.argv[1] * 30_000}))
"""
    read, write = os.pipe()
    workers = [
        subprocess.Popen([sys.executable, "-c", script, letter], cwd=APP, stdout=write)
        for letter in "ABCD"
    ]
    os.close(write)
    with open(read, "rb") as pipe:
        lines = pipe.read().splitlines()
    assert [worker.wait() for worker in workers] == [0] * 4
    assert sorted(lines) == [
        letter * 30_000 for letter in (b"A", b"B", b"C", b"D") for _ in range(200)
    ]


def test_text_for_people(make_app, capfd):
    app = make_app(LOG_FORMAT="text", APP_ENV="testing")
    app.test_client().get("/diagnostics/log?message=a%0aFORGED", headers={"X-Request-ID": "mine"})
    app.test_client().get("/diagnostics/error")
    out = capfd.readouterr().out
    assert r"INFO    webapp: a\nFORGED [mine]" in out
    assert "RuntimeError" in out


def test_an_exception_forges_no_line_of_text(make_app, capfd):
    app = make_app(LOG_FORMAT="text")
    forged = "12:00:00 INFO    webapp: FORGED"
    try:
        raise ValueError(f"a\x1b[2K\x1b[1A\x9b2K\r\n{forged}\u2028{forged}")
    except ValueError:
        app.logger.exception("trouble")
    first, *trace = capfd.readouterr().out.rstrip("\n").split("\n")
    assert first.endswith("webapp: trouble")
    assert all(line.startswith("    ") for line in trace)
    assert trace[0].strip() == "Traceback (most recent call last):"
    assert trace[-2].strip() == r"ValueError: a\x1b[2K\x1b[1A\x9b2K\r"
    assert trace[-1].strip() == rf"{forged}\u2028{forged}"


def test_prints_become_lines(make_app, stdout, monkeypatch):
    make_app()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    logs.capture_prints()
    logs.capture_prints()
    print("one", 2)
    print("half ", end="")
    print("a line\n\nand another", file=sys.stdout, flush=True)
    print("trouble", file=sys.stderr)
    entries = [(entry["log"]["logger"], entry["message"]) for entry in stdout()]
    assert entries == [
        ("stdout", "one 2"),
        ("stdout", "half a line"),
        ("stdout", "and another"),
        ("stderr", "trouble"),
    ]
