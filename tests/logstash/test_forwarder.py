"""Log lines on their way from two files to a real TCP receiver, in each state it can be in: every
line arrives or is counted as dropped.
"""

import io
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx
import pytest
import receiver as receivers
from clone import ROOT, wait_until
from prometheus_client import REGISTRY
from receiver import Receiver
from scrape import total

FORWARDER = ROOT / "logstash/forwarder"
sys.path.insert(0, str(FORWARDER))

import files  # noqa: E402
import forwarder  # noqa: E402
import sender  # noqa: E402

pytestmark = pytest.mark.usefixtures("hurry")

ERROR = (
    b"2026/01/31 12:00:00 [error] 23#24: *17 connect() failed (111: Connection refused) while"
    b' connecting to upstream, client: 192.0.2.7, server: localhost, request: "GET / HTTP/1.1"'
)


@pytest.fixture
def hurry(monkeypatch):
    """Waits of the sender, shortened."""
    monkeypatch.setattr(sender, "CONNECT_TIMEOUT", 1)
    monkeypatch.setattr(sender, "PATIENCE", 0.1)
    monkeypatch.setattr(sender, "UNANSWERED", 3)
    monkeypatch.setattr(sender, "LASTS", 0.5)
    monkeypatch.setattr(sender, "KEEPALIVE", dict.fromkeys(sender.KEEPALIVE, 1))
    monkeypatch.setattr(forwarder, "PAUSE", 0.02)


@pytest.fixture
def receive():
    """receive(behaviour, port): a receiver that is killed at the end."""
    made = []

    def start(*args, **kwargs):
        made.append(Receiver(*args, **kwargs))
        return made[-1]

    yield start
    for receiver in made:
        receiver.kill()


@pytest.fixture
def black_hole():
    with socket.socket() as sock:
        try:
            receivers.black_hole(sock)
        except PermissionError:
            pytest.skip("only root can make a socket drop packets")
    return receivers.black_hole


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def value(name, **labels):
    return REGISTRY.get_sample_value(f"log_forwarder_{name}", labels) or 0


def lines(begin, end):
    numbers = range(begin, end)
    return b"".join(b'{"event":{"id":"%d"},"message":"%s"}\n' % (n, b"x" * 300) for n in numbers)


def ids(begin, end):
    return {str(number) for number in range(begin, end)}


class Writer:
    """Appends to its files, which it keeps open."""

    def __init__(self, folder):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.info, self.error = (
            os.open(folder / name, flags, 0o644) for name in ("info.log", "error.log")
        )

    def used(self):
        """Bytes that the file takes; its size goes on growing."""
        return os.fstat(self.info).st_blocks * 512


@pytest.fixture
def folder():
    """In memory, as in the add-on: how full this machine's disk is must not matter."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def writer(folder):
    writer = Writer(folder)
    yield writer
    os.close(writer.info)
    os.close(writer.error)


@pytest.fixture
def forward(folder):
    """forward(port): a forwarder of the folder, in a thread."""
    made = []

    def start(port, **settings):
        to = forwarder.Settings("localhost", port, **settings)
        one = forwarder.Forwarder(to, files.Files(folder))
        one.retryStart, one.retryMax = 0.02, 0.2
        one.thread = threading.Thread(target=one.ship)
        one.thread.start()
        made.append(one)
        return one

    yield start
    for one in made:
        one.stop()
        one.deadline = 0
        one.thread.join()


def wait_for(receiver, wanted, seconds=10):
    wait_until(lambda: wanted <= set(receiver.ids), seconds, "all lines")


def dropped(level="info"):
    return value("lines_dropped_total", level=level)


def test_lines_arrive_as_they_are_and_leave_no_bytes_behind(writer, receive, forward):
    receiver = receive()
    forward(receiver.port)
    for begin in range(0, 5000, 100):
        os.write(writer.info, lines(begin, begin + 100))
    wait_for(receiver, ids(0, 5000))
    assert receiver.entries[0] == json.loads(lines(0, 1))
    assert len(receiver.ids) == 5000
    # The last page, which is half full.
    wait_until(lambda: writer.used() <= os.sysconf("SC_PAGE_SIZE"), 10, "the file to be empty")
    assert os.fstat(writer.info).st_size == len(lines(0, 5000))


def test_a_line_of_the_error_log(writer, receive, forward):
    receiver = receive()
    forward(receiver.port)
    os.write(writer.error, ERROR + b"\n")
    wait_until(lambda: receiver.entries, 10, "the line")
    (entry,) = receiver.entries
    assert entry.pop("message").startswith("*17 connect() failed (111: Connection refused)")
    assert len(entry["event"].pop("id")) == 32
    assert entry == {
        "@timestamp": "2026-01-31T12:00:00Z",
        "log": {"level": "error"},
        "ecs": {"version": "8.11.0"},
        "service": {"name": "nginx", "type": "nginx"},
        "process": {"pid": 23, "thread": {"id": 24}},
        "event": {"dataset": "nginx.error"},
        "nginx": {"connection": 17},
        "client": {"address": "192.0.2.7", "ip": "192.0.2.7"},
    }


def test_what_is_no_line_is_counted(writer, receive, forward):
    receiver = receive()
    before = dropped(), dropped("error")
    os.write(writer.info, b"x" * 40_000 + b"\n" + lines(0, 1) + b'{"no":"id"}\n' + lines(1, 2))
    os.write(writer.error, b"nonsense\n" + ERROR + b"\n")
    forward(receiver.port)
    wait_for(receiver, ids(0, 2))
    assert len(receiver.entries) == 3
    assert (dropped() - before[0], dropped("error") - before[1]) == (2, 1)


def test_what_comes_after_nothing_but_nonsense_arrives(writer, receive, forward):
    receiver = receive()
    before = dropped()
    os.write(writer.info, b"nonsense\n")
    forward(receiver.port)
    wait_until(lambda: dropped() > before, 10, "nonsense to be counted")
    os.write(writer.info, lines(0, 1))
    wait_for(receiver, ids(0, 1))


def test_half_a_line_waits_for_its_rest(writer, receive, forward):
    receiver = receive()
    line = lines(1, 2)
    os.write(writer.info, lines(0, 1) + line[:100])
    forward(receiver.port)
    wait_for(receiver, ids(0, 1))
    os.write(writer.info, line[100:])
    wait_for(receiver, ids(1, 2))
    assert len(receiver.ids) == 2


def test_files_that_are_not_there_yet_or_emptied(folder, receive, forward):
    receiver = receive()
    one = forward(receiver.port)
    writer = Writer(folder)
    os.write(writer.info, lines(0, 10))
    wait_for(receiver, ids(0, 10))
    # Until then it may take from the file what it knows to have arrived, whatever stands there now.
    wait_until(lambda: not one.window, 10, "all known to have arrived")
    os.ftruncate(writer.info, 0)
    os.write(writer.info, lines(10, 11))
    wait_for(receiver, ids(10, 11))


def test_another_forwarder_goes_on_where_the_first_was(writer, receive, forward):
    receiver = receive(receivers.whole)
    first = forward(receiver.port)
    os.write(writer.info, lines(0, 1000))
    wait_for(receiver, ids(0, 1000))
    wait_until(lambda: not first.window, 10, "all known to have arrived")
    receiver.kill()
    os.write(writer.info, lines(1000, 2000))
    first.stop()
    first.deadline = 0
    first.thread.join()
    after = receive()
    forward(after.port)
    wait_for(after, ids(1000, 2000))
    assert set(after.ids) == ids(1000, 2000)


def test_a_receiver_that_is_killed_again_and_again(writer, receive, forward, monkeypatch):
    receiver = receive(receivers.slow)
    monkeypatch.setattr(sender, "SHARE", 131_072)
    forward(receiver.port)
    for begin in range(0, 5000, 500):
        os.write(writer.info, lines(begin, begin + 500))
        time.sleep(0.1)
        receiver.kill()
        receiver = receive(receivers.slow, receiver.port, entries=receiver.entries)
    receiver.fixed.set()
    wait_for(receiver, ids(0, 5000), 30)


def test_without_space_the_oldest_are_given_up(writer, receive, forward, monkeypatch):
    before = dropped()
    one = forward(free_port())
    os.write(writer.info, lines(0, 1000))
    wait_until(lambda: len(one.lines) == 1000, 10, "lines that wait")
    # More than all that is free.
    monkeypatch.setattr(files, "RESERVE", 2)
    wait_until(lambda: not one.lines, 10, "no lines")
    monkeypatch.undo()
    assert dropped() - before == 1000
    wait_until(lambda: writer.used() <= 2 * os.sysconf("SC_PAGE_SIZE"), 10, "free space")


def test_files_are_emptied_while_a_broken_connection_is_made_again(
    writer, receive, forward, monkeypatch
):
    """Lines of it wait to be sent again, and others may have to be given up meanwhile."""

    def deaf(receiver, connection):
        receiver.fixed.wait()
        yield from ()

    receiver = receive(deaf)
    before = dropped()
    one = forward(receiver.port)
    os.write(writer.info, lines(0, 100))
    wait_until(lambda: one.window, 10, "lines on their way")
    broken = value("reconnects_total")
    receiver.kill()
    wait_until(
        lambda: value("reconnects_total") > broken + 1,
        10,
        "attempts",
    )
    os.write(writer.info, lines(100, 1100))
    monkeypatch.setattr(files, "RESERVE", 2)
    wait_until(lambda: dropped() - before >= 1000, 10, "lines given up")
    monkeypatch.undo()
    assert one.window


@pytest.fixture
def replay(monkeypatch, capfd):
    """replay(text, port): what it says, and its exit code."""

    def run(text, port):
        monkeypatch.setenv("LOGSTASH_HOST", "localhost")
        monkeypatch.setenv("LOGSTASH_PORT", str(port))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        monkeypatch.setattr(sys, "argv", ["forwarder.py", "-"])
        code = forwarder.main()
        return capfd.readouterr(), code

    return run


def test_replay(receive, replay):
    receiver = receive()
    text = lines(0, 3000) + ERROR + b"\n/docker-entrypoint.sh: hello\n{broken}\n\n"
    said, code = replay(text, receiver.port)
    assert said.out == "3001 lines sent, 2 without an event.id left out\n"
    assert not code, said.err
    assert {entry["tags"][0] for entry in receiver.entries} == {"replay"}
    assert ids(0, 3000) < set(receiver.ids)
    # The same id each time.
    first = {entry["event"]["id"] for entry in receiver.entries}
    replay(text, receiver.port)
    assert set(receiver.ids) == first


def test_a_replay_of_a_line_of_any_length(receive, replay):
    receiver = receive()
    text = b'{"event":{"id":"a"},"message":"%s"}\n' % (b"x" * 100_000)
    assert not replay(text, receiver.port)[1]
    assert receiver.ids == ["a"]


def test_a_replay_that_reaches_nobody_ends_and_says_so(replay):
    said, code = replay(lines(0, 10), free_port())
    assert code == 1
    assert "Connection refused" in said.err
    assert said.out.startswith("0 lines sent")


def test_the_process_serves_metrics_and_stops_in_time(folder, writer, receive):
    receiver, port = receive(), free_port()
    program = f"import forwarder; forwarder.METRICS_PORT = {port}; forwarder.forward(" + (
        f"forwarder.settings(dict(LOGSTASH_HOST='localhost', LOGSTASH_PORT='{receiver.port}')),"
        f"'{folder}')"
    )
    with subprocess.Popen((sys.executable, "-c", program), cwd=FORWARDER) as process:
        try:
            os.write(writer.info, lines(0, 10))
            wait_for(receiver, ids(0, 10), 30)
            text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            assert total(text, "log_forwarder_lines_sent_total") == 10
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(("LOGSTASH_HOST", text) for text in ("", "a b", "http://logstash")),
        *(("LOGSTASH_PORT", text) for text in ("x", "0", "65536", "59 59")),
        ("LOGSTASH_TLS", "yes"),
        *(("LOGSTASH_CA_FILE", text) for text in ("/nowhere", str(ROOT / "README.md"))),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(name, given, monkeypatch, capfd):
    for variable in [name for name in os.environ if name.startswith("LOGSTASH_")]:
        monkeypatch.delenv(variable)
    for variable, text in {"LOGSTASH_HOST": "logstash", "LOGSTASH_TLS": "on", name: given}.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setattr(sys, "argv", ["forwarder.py"])
    assert forwarder.main() == 78
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}")
    assert " -> " in line


def test_a_forwarder_of_files_that_are_empty_but_for_a_hole(writer, folder, receive, forward):
    # Whole pages, or the last would stay.
    os.write(writer.info, lines(0, 10).ljust(8191, b"x") + b"\n")
    tail = files.Tail(folder / "info.log", "info")
    tail.look()
    tail.punch(0, tail.end)
    receiver = receive()
    forward(receiver.port)
    wait_until(lambda: not os.fstat(writer.info).st_blocks, 5, "nothing but a hole")
    os.write(writer.info, lines(100, 101))
    wait_for(receiver, ids(100, 101))
    assert len(receiver.ids) == 1


def test_a_line_written_during_the_first_look_is_found(writer, folder, monkeypatch):
    """After the search for data has found none."""
    lseek = os.lseek

    def then_write(*where):
        patch.undo()
        try:
            return lseek(*where)
        finally:
            os.write(writer.info, lines(0, 1))

    tail = files.Tail(folder / "info.log", "info")
    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", then_write)
        tail.look()
    tail.look()
    assert tail.lines == 1


def test_what_is_given_up_takes_no_space(writer, folder):
    """Though it ends within pages, again and again."""
    os.write(writer.info, lines(0, 20_000))
    tail = files.Tail(folder / "info.log", "info")
    for _ in range(20):
        tail.look()
    assert tail.lines == 20_000
    while tail.lines:
        tail.give_up()
    assert writer.used() <= 2 * os.sysconf("SC_PAGE_SIZE")


# What a full volume or a killed writer cut short


JSON = b'{"@timestamp":"2026-01-31T12:00:00Z","event":{"id":"%d"},"message":"%s"}\n'


@pytest.mark.parametrize("cut", [1, 20, 45, 70])
def test_a_torn_line_costs_only_itself(cut, writer, receive, forward):
    """Whoever writes next appends a whole line behind the beginning of one."""
    receiver, before = receive(), dropped()
    os.write(writer.info, (JSON % (1, b"whole")) + (JSON % (2, b"torn" * 10))[:cut])
    os.write(writer.info, (JSON % (3, b"behind")) + (JSON % (4, b"whole")))
    forward(receiver.port)
    wait_for(receiver, {"1", "3", "4"})
    assert sorted(receiver.ids) == ["1", "3", "4"]
    assert dropped() - before == 1


def test_a_line_that_contains_the_beginning_of_one_is_whole(writer, receive, forward):
    receiver = receive()
    inner = b'{"event":{"id":"1"},"labels":{"copy":{"@timestamp":"now"}},"message":"x"}\n'
    os.write(writer.info, inner)
    forward(receiver.port)
    wait_for(receiver, {"1"})
    assert receiver.entries == [json.loads(inner)]


# The receiver's states


@pytest.mark.parametrize("behaviour", ["whole", "unread", "slow", "short", "leaving", "vanishing"])
def test_every_line_arrives(writer, receive, forward, behaviour, request, monkeypatch):
    if behaviour == "vanishing":
        request.getfixturevalue("black_hole")
    monkeypatch.setattr(sender, "SHARE", 131_072)
    receiver = receive(getattr(receivers, behaviour))
    forward(receiver.port)
    for begin in range(0, 5000, 500):
        os.write(writer.info, lines(begin, begin + 500))
        time.sleep(0.05)
    if behaviour in ("unread", "slow"):
        receiver.fixed.set()
    wait_for(receiver, ids(0, 5000), 30)
    if behaviour == "whole":
        assert len(receiver.ids) == 5000


def test_refused_at_first(writer, receive, forward):
    port, before = free_port(), value("reconnects_total")
    forward(port)
    os.write(writer.info, lines(0, 1000))
    wait_until(lambda: value("reconnects_total") >= before + 2, 5, "attempts")
    wait_until(lambda: value("lines_queued") == 1000, 5, "the number that wait")
    wait_for(receive(port=port), ids(0, 1000))
    wait_until(lambda: value("lines_queued") == 0, 5, "no line that waits")


def test_syns_dropped(writer, receive, forward, black_hole):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        black_hole(listener)
        port, before = listener.getsockname()[1], value("reconnects_total")
        forward(port)
        os.write(writer.info, lines(0, 1000))
        wait_until(lambda: value("reconnects_total") > before, 5, "a time-out")
    wait_for(receive(port=port), ids(0, 1000))


def test_a_peer_that_vanishes_after_it_has_taken_all(writer, receive, forward, black_hole):
    """Its kernel has acknowledged everything, so that nothing is sent again by ours."""

    def take_all(receiver, connection):
        if receiver.connections > 1:
            yield from receivers.whole(receiver, connection)
            return
        time.sleep(2 * sender.LASTS)
        black_hole(connection)
        receiver.fixed.wait()

    receiver = receive(take_all)
    forward(receiver.port)
    os.write(writer.info, lines(0, 10))
    wait_for(receiver, ids(0, 10))


def test_a_reset_that_comes_after_the_end(writer, receive, forward, black_hole, monkeypatch):
    """As from a host further away: the other side has closed while lines were on their way."""

    def resign(receiver, connection):
        if receiver.connections > 1:
            yield from receivers.whole(receiver, connection)

    receiver = receive(resign)
    monkeypatch.setattr(sender, "UNANSWERED", 100)
    make_socket = forwarder.Forwarder.makeSocket

    def make_slow_socket(self, timeout):
        monkeypatch.setattr(forwarder.Forwarder, "makeSocket", make_socket)
        sock = make_socket(self, timeout)
        wait_until(lambda: sock.recv(1, socket.MSG_PEEK) == b"", 5, "the other side's end")
        black_hole(sock)
        threading.Timer(2 * sender.LASTS, receivers.lift, [sock]).start()
        return sock

    monkeypatch.setattr(forwarder.Forwarder, "makeSocket", make_slow_socket)
    os.write(writer.info, lines(0, 10))
    forward(receiver.port)
    wait_for(receiver, ids(0, 10))


def test_errors_are_sent_first_and_dropped_last(writer, receive, forward, monkeypatch):
    port, before = free_port(), (dropped(), dropped("error"))
    one = forward(port)
    os.write(writer.info, lines(0, 1000))
    os.write(writer.error, lines(1000, 1100))
    wait_until(lambda: len(one.lines) == 1100, 10, "lines that wait")
    # Space for the errors alone.
    info = one.lines.tails[1]
    monkeypatch.setattr(files, "RESERVE", 2)
    wait_until(lambda: not info.lines, 10, "no line of information")
    monkeypatch.undo()
    assert dropped() - before[0] == 1000
    os.write(writer.info, lines(2000, 2001))
    kept = 100 - int(dropped("error") - before[1])
    receiver = receive(port=port)
    wait_for(receiver, {"2000"})
    assert len(receiver.ids) == kept + 1
    assert receiver.ids[-1] == "2000"


def test_what_waits_is_reported_once_and_sent_at_the_end(writer, receive, forward, capfd):
    one = forward(free_port())
    os.write(writer.info, lines(0, 1000))
    wait_until(lambda: value("lines_queued") == 1000, 5, "lines that wait")
    before = value("reconnects_total")
    wait_until(lambda: value("reconnects_total") > before + 2, 5, "attempts")
    (said,) = capfd.readouterr().err.splitlines()
    assert said.startswith(f"Logstash at localhost:{one.port}: ")
    receiver = receive(port=one.port)
    one.stop()
    one.thread.join()
    assert set(receiver.ids) == ids(0, 1000)


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
def test_tls_verifies(writer, receive, forward, certificates, served, trusted):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates / f"{served}.pem", certificates / f"{served}.key")
    receiver, before = receive(tls=tls), value("reconnects_total")
    one = forward(receiver.port, tls=True, ca_file=str(certificates / f"{trusted}.pem"))
    os.write(writer.info, lines(0, 1000))
    if served == trusted == "localhost":
        wait_for(receiver, ids(0, 1000))
        wait_until(lambda: not one.window, 5, "the end of the connection")
        assert len(receiver.ids) == 1000
        assert value("reconnects_total") == before
    else:
        wait_until(lambda: value("reconnects_total") > before, 5, "a refusal")
        assert receiver.entries == []


# What others put in the way


def test_no_client_forges_a_line_by_nginxs_error_log(writer, receive, forward):
    """nginx quotes what a client sent, and cuts its line at 2,047 bytes: here behind an object."""
    receiver, before = receive(), dropped("error")
    object_ = b'{"@timestamp":"x","service":{"name":"webapp"},"event":{"id":"forged"}}'
    for end in (b"", b' HTTP/1.1", host: "localhost"'):
        os.write(writer.error, ERROR[:-10] + b' "GET /' + object_ + end + b"\n")
    forward(receiver.port)
    wait_until(lambda: len(receiver.entries) == 2, 10, "both lines")
    assert "forged" not in receiver.ids
    assert {entry["service"]["name"] for entry in receiver.entries} == {"nginx"}
    assert dropped("error") == before


def test_a_line_longer_than_a_read_stops_nothing(writer, receive, forward):
    receiver, before = receive(), dropped()
    os.write(writer.info, b"x" * (2 * files.MOST_AT_ONCE) + b"\n" + lines(0, 1))
    forward(receiver.port)
    wait_for(receiver, ids(0, 1))
    assert dropped() - before == 1


def test_a_hole_larger_than_a_read_stops_no_later_forwarder(folder, writer, receive, forward):
    """Behind lines that a forwarder before had on their way, and dropped what came after them."""
    page = os.sysconf("SC_PAGE_SIZE")
    os.write(writer.info, lines(0, 1).ljust(page - 1) + b"\n")
    os.write(writer.info, b"x" * (3 * files.MOST_AT_ONCE // page * page - 1) + b"\n")
    tail = files.Tail(folder / "info.log", "info")
    tail.file = os.open(tail.path, os.O_RDWR)
    tail.punch(page, os.fstat(writer.info).st_size)
    os.write(writer.info, lines(1, 2))
    receiver = receive()
    forward(receiver.port)
    wait_for(receiver, {"1"})
