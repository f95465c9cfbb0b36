"""Real gunicorn with the real configuration, as a process on loopback."""

import json
import re
import resource
import signal
import socket
import threading
import time
import urllib.error
import uuid
from contextlib import ExitStack

import pytest
from conftest import APP, KEY


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def server(serve):
    server = serve(WEB_CONCURRENCY="2", PROXY_COUNT="0")
    server.wait()
    return server


def test_each_kind_of_line_once_and_nothing_else_on_stdout(server):
    word = uuid.uuid4().hex
    server.get(f"/diagnostics/log?message={word}")
    server.get("/livez")
    assert server.stop() == 0
    lines = server.lines()
    found = [(line["log"]["logger"], line["message"]) for line in lines if word in str(line)]
    assert found == [
        ("webapp", word),
        ("stdout", f"printed {word}"),
        ("gunicorn.access", "GET /diagnostics/log 200"),
    ]
    messages = [line["message"] for line in lines if line["log"]["logger"] == "gunicorn.error"]
    assert len([text for text in messages if text.startswith("Listening at")]) == 1
    assert len([text for text in messages if text.startswith("Booting worker")]) == 2
    assert not any("/livez" in str(line) for line in lines)
    assert server.err.read_text() == ""


def test_forwarded_headers_are_ignored_without_a_proxy(server):
    spoofed = {
        "X-Forwarded-For": "6.6.6.6",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Ssl": "on",
        "X-Forwarded-Protocol": "ssl",
        "X-Forwarded-Host": "evil.example",
        "Script_Name": "/evil",
        "Path_Info": "/evil",
    }
    echo = json.loads(server.get("/diagnostics/echo", **spoofed))
    assert echo["remote_addr"] == "127.0.0.1"
    assert echo["scheme"] == "http"
    assert echo["host"] == f"127.0.0.1:{server.port}"
    assert echo["path"] == "/diagnostics/echo"


def test_the_access_line_has_the_address_the_proxy_saw(serve):
    server = serve(PROXY_COUNT="1")
    server.wait()
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/nowhere", **{"X-Forwarded-For": "203.0.113.9", "X-Request-ID": "mine"})
    caught.value.close()
    server.stop()
    (line,) = (line for line in server.lines() if line["message"] == "GET /nowhere 404")
    assert line["client"]["address"] == "203.0.113.9"
    assert line["http"]["request"]["id"] == "mine"


def test_sigterm_lets_a_slow_request_finish(server):
    answers = []
    slow = threading.Thread(
        target=lambda: answers.append(json.loads(server.get("/diagnostics/work?ms=1200")))
    )
    slow.start()
    wait_for(lambda: "working for 1200 ms" in server.out.read_text())
    assert server.stop() == 0
    slow.join()
    assert [answer["ms"] for answer in answers] == [1200]


@pytest.mark.parametrize(
    "variables",
    [
        {"SECRET_KEY": "changeme"},
        {"SECRET_KEY": ""},
        {"WEB_CONCURRENCY": "many"},
        {"WEB_CONCURRENCY": "2", "WEB_THREADS": "0"},
        {"PORT": "eighty"},
        {"FLASK_DEBUG": "1"},
        {"SECRET_KEY": "", "SECRET_KEY_FILE": "/nowhere/key"},
    ],
    ids=lambda variables: list(variables)[-1],
)
def test_bad_settings_are_one_line_and_exit_code_78(serve, variables):
    server = serve(**variables)
    assert server.process.wait(timeout=60) == 78
    (line,) = server.err.read_text().splitlines()
    assert line.startswith(f"webapp: {list(variables)[-1]}: ")
    assert server.out.read_text() == ""


def test_an_empty_number_of_workers_is_no_number(serve):
    server = serve(WEB_CONCURRENCY="", SECRET_KEY_FALLBACKS=KEY[::-1])
    assert server.wait() == b"ok\n"


def test_below_a_prefix_probes_stay_at_the_root(serve):
    """gunicorn itself answers them with 500; also after SIGHUP, which reads the settings again."""
    server = serve(SCRIPT_NAME="/shop", WEB_CONCURRENCY="1")

    def worker():
        assert server.wait() == b"ok\n"
        return json.loads(server.get("/shop/diagnostics/echo"))["worker"]

    before = worker()
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: worker() != before)


def test_few_open_files_are_raised_to_what_connections_need(serve):
    """Docker 29 begins with 1024; without a file to open, a worker ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        server = serve(WEB_CONCURRENCY="1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    server.wait()
    with ExitStack() as connections:
        for _ in range(200):
            address = ("127.0.0.1", server.port)
            connection = connections.enter_context(socket.create_connection(address, 10))
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200 OK" in connection.recv(1000)
    assert "Too many open files" not in server.out.read_text()


def test_gunicorn_keeps_connections_longer_than_nginx():
    """Or nginx sends a POST on one that gunicorn is just closing."""
    upstream = (APP.parent / "nginx/templates/upstream.conf.template").read_text()
    of_nginx = int(re.search(r"^ +keepalive_timeout (\d+)s;", upstream, re.MULTILINE)[1])
    settings = (APP / "gunicorn.conf.py").read_text()
    of_gunicorn = int(re.search(r"^keepalive = (\d+)$", settings, re.MULTILINE)[1])
    assert of_gunicorn > of_nginx + 5


@pytest.mark.parametrize("name", ["max_requests", "max_requests_jitter"])
def test_workers_are_replaced_and_not_all_at_once(name):
    settings = (APP / "gunicorn.conf.py").read_text()
    assert int(re.search(rf"^{name} = ([0-9_]+)$", settings, re.MULTILINE)[1]) >= 1000
