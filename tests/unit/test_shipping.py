"""Shipping to a real TCP receiver, in each state it can be in: no call waits, no line is lost
without being counted.
"""

import json
import logging
import os
import re
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import threading
import time
import tracemalloc

import pytest
import receiver as receivers
from clone import wait_until
from conftest import APP, KEY, end, free_port
from prometheus_client import REGISTRY
from scrape import total
from webapp import config, shipping

# Seconds that no call that logs may take: less than any wait for the network here (CONNECT_TIMEOUT
# is 1 s, as a plain SocketHandler's), more than a busy machine lets a thread wait for its turn.
LONGEST_CALL = 0.5

pytestmark = pytest.mark.usefixtures("hurry")

LEVELS = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)


@pytest.fixture
def black_hole():
    with socket.socket() as sock:
        try:
            receivers.black_hole(sock)
        except PermissionError:
            pytest.skip("only root can make a socket drop packets")
    return receivers.black_hole


@pytest.fixture
def ship():
    """ship(port, NAME="value"): a handler with a logger of its own that sends there."""
    made = []

    def start(port, **variables):
        variables = {"LOGSTASH_HOST": "localhost", "LOGSTASH_PORT": str(port)} | variables
        shipper = shipping.Shipper(config.load({"SECRET_KEY": KEY} | variables))
        shipper.retryStart, shipper.retryMax = 0.02, 0.2
        shipper.serve()
        made.append(shipper)
        return shipper

    yield start
    for shipper in made:
        end(shipper)


def log(shipper, count, levels=(logging.INFO,), text="x" * 200):
    """Log and give back the ids by level; no call may have taken long."""
    ids, took = {level: [] for level in levels}, []
    for number in range(count):
        level = levels[number % len(levels)]
        record = logging.makeLogRecord(
            {"name": "webapp", "levelno": level, "levelname": "any", "msg": text}
        )
        shipper.formatter.format(record)
        begin = time.perf_counter()
        shipper.handle(record)
        took.append(time.perf_counter() - begin)
        ids[level].append(re.search(r'"event":\{"id":"([^"]+)"', record.json_line)[1])
    assert max(took) < LONGEST_CALL
    assert statistics.median(took) < LONGEST_CALL / 500
    return ids


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels)


def all_arrived(receiver, ids, shipper):
    """Every line arrived, but for those that are counted as dropped."""
    missing = set(ids) - set(receiver.ids)
    return len(missing) == shipper.queue.dropped


def wait_for(receiver, ids, shipper, seconds=10):
    wait_until(lambda: all_arrived(receiver, ids, shipper), seconds, "all lines")


# Off


def test_off_nothing_is_imported_started_or_connected():
    code = f"""
import sys, threading
sys.addaudithook(lambda event, args: event == "socket.connect" and sys.exit("connects"))
from webapp import create_app
app = create_app({{"SECRET_KEY": "{KEY}"}})
app.logger.error("a line")
assert not {{"logstash", "webapp.shipping"}} & set(sys.modules)
assert threading.active_count() == 1
assert "app_log_lines" not in app.test_client().get("/metrics").text
"""
    subprocess.run([sys.executable, "-c", code], cwd=APP, check=True)


# The receiver's states


def test_lines_arrive_as_they_are_on_stdout(make_app, receive, stdout):
    receiver = receive()
    app = make_app(LOGSTASH_HOST="localhost", LOGSTASH_PORT=str(receiver.port))
    app.logger.warning("hello %s", "Logstash", extra={"order": 7})
    wait_until(lambda: receiver.entries, 5, "the line")
    assert receiver.entries == stdout()
    assert receiver.entries[0]["labels"] == {"order": 7}


def test_text_on_stdout_is_shipped_as_json(make_app, receive):
    receiver = receive()
    variables = {"LOGSTASH_HOST": "localhost", "LOGSTASH_PORT": str(receiver.port)}
    make_app(LOG_FORMAT="text", **variables).logger.warning("hello")
    wait_until(lambda: receiver.entries, 5, "the line")
    assert receiver.entries[0]["message"] == "hello"


@pytest.mark.parametrize("behaviour", ["whole", "unread", "slow", "short", "leaving", "vanishing"])
def test_every_line_arrives_or_is_counted(receive, ship, behaviour, request):
    if behaviour == "vanishing":
        request.getfixturevalue("black_hole")
    receiver = receive(getattr(receivers, behaviour))
    shipper = ship(receiver.port, LOGSTASH_QUEUE_SIZE="512k", LOGSTASH_RESEND_SIZE="128k")
    ids = []
    for _ in range(10):
        ids += log(shipper, 500)[logging.INFO]
        time.sleep(0.05)
    if behaviour in ("unread", "slow"):
        receiver.mended.set()
    wait_for(receiver, ids, shipper)
    assert len(set(receiver.ids)) > 500
    if behaviour == "whole":
        assert sorted(receiver.ids) == sorted(ids)


def test_refused_at_first(receive, ship):
    port = free_port()
    before = value("app_logstash_reconnects_total")
    shipper = ship(port)
    ids = log(shipper, 1000)[logging.INFO]
    wait_until(lambda: value("app_logstash_reconnects_total") >= before + 2, 5, "attempts")
    wait_until(lambda: value("app_log_lines_queued") == 1000, 5, "the number that wait")
    wait_for(receive(port=port), ids, shipper)
    wait_until(lambda: value("app_log_lines_queued") == 0, 5, "an empty queue")
    assert shipper.queue.dropped == 0


def test_syns_dropped(receive, ship, black_hole):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        black_hole(listener)
        port = listener.getsockname()[1]
        before = value("app_logstash_reconnects_total")
        shipper = ship(port)
        ids = log(shipper, 1000)[logging.INFO]
        wait_until(lambda: value("app_logstash_reconnects_total") > before, 5, "a time-out")
        ids += log(shipper, 1000)[logging.INFO]
    wait_for(receive(port=port), ids, shipper)


def test_restarting_again_and_again(receive, ship):
    receiver = receive(receivers.slow)
    shipper = ship(receiver.port, LOGSTASH_RESEND_SIZE="128k")
    ids, before = [], value("app_log_lines_resent_total")
    for _ in range(10):
        ids += log(shipper, 300)[logging.INFO]
        time.sleep(0.1)
        receiver.kill()
        receiver = receive(receivers.slow, receiver.port, entries=receiver.entries)
    receiver.mended.set()
    wait_for(receiver, ids, shipper)
    assert shipper.queue.dropped == 0
    assert value("app_log_lines_resent_total") > before


def test_a_peer_that_vanishes_after_it_has_taken_all(receive, ship, black_hole):
    """Its kernel has acknowledged everything, so that nothing is sent again by ours."""

    def take_all(receiver, connection):
        if receiver.connections > 1:
            yield from receivers.whole(receiver, connection)
            return
        time.sleep(2 * shipping.LASTS)
        black_hole(connection)
        receiver.mended.wait()

    receiver = receive(take_all)
    shipper = ship(receiver.port)
    wait_for(receiver, log(shipper, 10)[logging.INFO], shipper)


def test_a_reset_that_comes_after_the_end(receive, ship, black_hole, monkeypatch):
    """As from a host further away: the other side has closed while lines were on their way."""

    def resign(receiver, connection):
        if receiver.connections > 1:
            yield from receivers.whole(receiver, connection)

    receiver = receive(resign)
    shipper = ship(receiver.port)
    monkeypatch.setattr(shipping, "UNANSWERED", 100)
    make_socket = shipper.makeSocket

    def make_slow_socket(timeout):
        shipper.makeSocket = make_socket
        sock = make_socket(timeout)
        wait_until(lambda: sock.recv(1, socket.MSG_PEEK) == b"", 5, "the other side's end")
        black_hole(sock)
        threading.Timer(2 * shipping.LASTS, receivers.lift, [sock]).start()
        return sock

    shipper.makeSocket = make_slow_socket
    wait_for(receiver, log(shipper, 10)[logging.INFO], shipper)


def test_a_line_of_any_length_and_what_comes_after_it(receive, ship):
    receiver = receive()
    shipper = ship(receiver.port)
    for number, size in enumerate((10, 5 * shipping.BATCH, 10)):
        line = {"event": {"id": str(number)}, "message": "x" * size}
        shipper.queue.put(logging.INFO, json.dumps(line))
    shipper.start()
    shipper.filled.set()
    wait_until(lambda: {*receiver.ids} == {"0", "1", "2"}, 5, "all three")


def test_what_is_called_in_the_middle_of_a_put_may_log():
    queue = shipping.Queue(1000)
    with queue.lock:
        queue.put(logging.INFO, "a line")
    assert len(queue) == 1


# What is bounded


@pytest.mark.parametrize("reachable", [True, False])
def test_memory_is_bounded_in_bytes(receive, ship, reachable):
    port = receive(receivers.unread).port if reachable else free_port()
    # Beyond what the kernel takes in unread.
    settings = {"LOGSTASH_QUEUE_SIZE": "1m", "LOGSTASH_RESEND_SIZE": "6m"}
    shipper = ship(port, **settings)
    bound = shipper.queue_size + shipper.resend_size
    tracemalloc.start()
    try:
        for _ in range(40):
            log(shipper, 200, text="x" * 4000)
            size, _ = tracemalloc.get_traced_memory()
            # Plus the ids of this function, the batch in hand, and what Python keeps for itself.
            assert size < 1.1 * bound + 500_000
            assert shipper.queue.size <= shipper.queue_size
            assert sum(len(batch.data) for batch in shipper.window) <= shipper.resend_size
    finally:
        tracemalloc.stop()
    assert shipper.queue.dropped > 4000


def test_the_lowest_level_is_dropped_first_and_the_highest_sent_first(receive, ship):
    names = ["debug", "info", "warning", "error"]
    before = [value("app_log_lines_dropped_total", level=name) for name in names]
    port = free_port()
    shipper = ship(port, LOGSTASH_QUEUE_SIZE="512k")
    ids = log(shipper, 1500, LEVELS)
    after = [value("app_log_lines_dropped_total", level=name) for name in names]
    dropped = [b - a for a, b in zip(before, after, strict=True)]
    assert dropped[0] == 375
    assert 0 < dropped[1] < 375
    assert dropped[2:] == [0, 0]
    receiver = receive(port=port)
    every = [one for of_level in ids.values() for one in of_level]
    wait_for(receiver, every, shipper)
    assert set(receiver.ids) == {
        *ids[logging.ERROR],
        *ids[logging.WARNING],
        *ids[logging.INFO][int(dropped[1]) :],
    }
    assert receiver.ids[:375] == ids[logging.ERROR]


def test_reports_are_on_stdout_once_and_are_not_shipped(make_app, receive, stdout):
    port = free_port()
    app = make_app(LOGSTASH_HOST="localhost", LOGSTASH_PORT=str(port))
    before = value("app_logstash_reconnects_total")
    app.logger.warning("one line")
    wait_until(lambda: value("app_logstash_reconnects_total") >= before + 2, 10, "attempts")
    lines = []

    def reports():
        lines.extend(line for line in stdout() if line["log"]["logger"] == "webapp.shipping")
        return lines

    # On a busy machine a thread of its own writes it later.
    wait_until(reports, 10, "a report")
    assert len(reports()) == 1
    assert f"localhost:{port}" in lines[0]["message"]
    receiver = receive(port=port)
    (shipper,) = (h for h in logging.getLogger().handlers if isinstance(h, shipping.Shipper))
    wait_until(lambda: not shipper.queue and not shipper.window, 10, "an empty queue")
    assert {entry["log"]["logger"] for entry in receiver.entries} == {"webapp"}


# The end of the process


def test_what_waits_is_sent_at_the_end(receive, ship):
    receiver = receive(receivers.slow)
    shipper = ship(receiver.port)
    ids = log(shipper, 1000)[logging.INFO]
    shipper.close()
    assert sorted(set(receiver.ids)) == sorted(ids)
    assert shipper.queue.dropped == 0


@pytest.mark.parametrize("reachable", [True, False])
def test_the_end_is_not_late_and_says_what_was_not_sent(
    receive, ship, monkeypatch, caplog, reachable
):
    monkeypatch.setattr(shipping, "DRAIN", 1)
    port = receive(receivers.unread).port if reachable else free_port()
    shipper = ship(port)
    log(shipper, 1000)
    begin = time.monotonic()
    shipper.close()
    assert time.monotonic() - begin < 3
    assert shipper.queue.dropped == 1000
    assert "dropped since the start: 1000" in caplog.text


# TLS


@pytest.fixture
def certificates(tmp_path):
    """A self-signed certificate for localhost, and one for another name."""
    for name in ("localhost", "elsewhere"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
             "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=tmp_path, check=True, capture_output=True,
        )  # fmt: skip
    return tmp_path


@pytest.mark.parametrize(
    ("served", "trusted"),
    [("localhost", "localhost"), ("localhost", "elsewhere"), ("elsewhere", "elsewhere")],
)
def test_tls_verifies(receive, ship, certificates, served, trusted):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / f"{served}.pem", certificates / f"{served}.key")
    receiver = receive(tls=tls)
    before = value("app_logstash_reconnects_total")
    shipper = ship(
        receiver.port, LOGSTASH_TLS="on", LOGSTASH_CA_FILE=str(certificates / f"{trusted}.pem")
    )
    ids = log(shipper, 1000)[logging.INFO]
    if served == trusted == "localhost":
        wait_for(receiver, ids, shipper)
        wait_until(lambda: not shipper.window, 5, "the end of the connection")
        assert sorted(receiver.ids) == sorted(ids)
        assert value("app_logstash_reconnects_total") == before
    else:
        wait_until(lambda: value("app_logstash_reconnects_total") > before, 5, "a refusal")
        assert receiver.entries == []


# Processes


def test_a_forked_process_has_a_sender_of_its_own(receive):
    """Also when the fork comes while another thread has the lock."""
    receiver = receive()
    code = f"""
import os, sys, threading, time
from webapp import create_app, logs
def hold():
    with shipper.queue.lock:
        held.set()
        time.sleep(0.5)
app = create_app({{"SECRET_KEY": "{KEY}", "LOGSTASH_HOST": "localhost",
                  "LOGSTASH_PORT": "{receiver.port}"}})
app.logger.warning("parent 1")
(shipper,) = (h for h in logs.logging.getLogger().handlers if hasattr(h, "queue"))
held = threading.Event()
threading.Thread(target=hold).start()
held.wait()
child = os.fork()
if not child:
    app.logger.warning("child 2")
    sys.exit()
app.logger.warning("parent 3")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], cwd=APP, check=True, timeout=30)
    # Newer Pythons also log a warning: fork() with threads.
    lines = [entry for entry in receiver.entries if entry["log"]["logger"] == "webapp"]
    assert sorted(line["message"] for line in lines) == ["child 2", "parent 1", "parent 3"]


def shipped(line):
    return line["log"]["logger"] != "webapp.shipping"


@pytest.fixture
def server(serve, receive):
    receiver = receive()
    server = serve(WEB_CONCURRENCY="2", LOGSTASH_HOST="localhost", LOGSTASH_PORT=str(receiver.port))
    server.wait()
    server.receiver = receiver
    return server


def children(server):
    pid = server.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_gunicorn_ships_every_line_of_stdout_through_reload_and_stop(server):
    for number in range(50):
        server.get(f"/diagnostics/log?message=first-{number}")
    old = children(server)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not set(old) & set(children(server)), 20, "new workers")
    for number in range(50):
        server.get(f"/diagnostics/log?message=second-{number}")
    assert total(server.get("/metrics").decode(), "app_log_lines_dropped_total") == 0
    assert server.stop() == 0
    on_stdout = [line["event"]["id"] for line in server.lines()]
    assert len(on_stdout) > 300
    assert sorted(server.receiver.ids) == sorted(on_stdout)


def test_gunicorn_whose_worker_is_killed_loses_only_what_waited_there(server):
    for number in range(50):
        server.get(f"/diagnostics/log?message=first-{number}")
    victim = children(server)[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(set(children(server)) - {victim}) == 2, 10, "another worker")
    for number in range(50):
        server.get(f"/diagnostics/log?message=second-{number}")
    # Of the first, those may be missing that waited in the killed worker.
    wait_until(
        lambda: total(server.get("/metrics").decode(), "app_log_lines_sent_total") >= 100,
        10,
        "lines sent",
    )
    assert server.stop() == 0
    arrived = set(server.receiver.ids)
    missing = [line for line in server.lines() if line["event"]["id"] not in arrived]
    assert {line["process"]["pid"] for line in missing} <= {victim}
    assert any("SIGKILL" in entry["message"] for entry in server.receiver.entries)


def test_gunicorn_without_logstash_serves_and_stops_in_time(serve):
    server = serve(WEB_CONCURRENCY="1", LOGSTASH_HOST="localhost", LOGSTASH_PORT=str(free_port()))
    server.wait()
    for _ in range(20):
        server.get("/diagnostics/log?message=x")
    assert server.stop() == 0
    texts = [line["message"] for line in server.lines() if not shipped(line)]
    assert any("not reached at the end of the process" in text for text in texts)
