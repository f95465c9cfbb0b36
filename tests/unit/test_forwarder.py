"""nginx's lines on their way from its files to a real TCP receiver."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import receiver as receivers
from clone import wait_until
from conftest import APP, free_port
from prometheus_client import REGISTRY
from webapp import config, forwarder

pytestmark = pytest.mark.usefixtures("hurry")

ERROR = (
    b"2026/01/31 12:00:00 [error] 23#24: *17 connect() failed (111: Connection refused) while"
    b' connecting to upstream, client: 192.0.2.7, server: localhost, request: "GET / HTTP/1.1"'
)


def lines(begin, end):
    numbers = range(begin, end)
    return b"".join(b'{"event":{"id":"%d"},"message":"%s"}\n' % (n, b"x" * 300) for n in numbers)


def ids(begin, end):
    return {str(number) for number in range(begin, end)}


class Nginx:
    """Appends to its files, which it keeps open."""

    def __init__(self, folder):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.access, self.error = (
            os.open(folder / name, flags, 0o644) for name in ("access.log", "error.log")
        )

    def used(self):
        """Bytes that the file takes; its size goes on growing."""
        return os.fstat(self.access).st_blocks * 512


@pytest.fixture
def folder():
    """In memory, as in the room: how full this machine's disk is must not matter."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.fixture
def nginx(folder):
    nginx = Nginx(folder)
    yield nginx
    os.close(nginx.access)
    os.close(nginx.error)


@pytest.fixture
def forward(folder):
    """forward(port): a forwarder of the folder, in a thread."""
    made = []

    def start(port, **variables):
        variables |= {"APP_ENV": "development", "LOGSTASH_HOST": "localhost"}
        settings = config.load(variables | {"LOGSTASH_PORT": str(port)})
        sender = forwarder.Forwarder(settings, forwarder.Files(folder))
        sender.retryStart, sender.retryMax = 0.02, 0.2
        sender.thread = threading.Thread(target=sender.ship)
        sender.thread.start()
        made.append(sender)
        return sender

    yield start
    for sender in made:
        sender.stop()
        sender.deadline = 0
        sender.thread.join()


def wait_for(receiver, wanted, seconds=10):
    wait_until(lambda: wanted <= set(receiver.ids), seconds, "all lines")


def dropped(level="info"):
    return REGISTRY.get_sample_value("app_log_lines_dropped_total", {"level": level})


def test_lines_arrive_as_they_are_and_leave_no_bytes_behind(nginx, receive, forward):
    receiver = receive()
    forward(receiver.port)
    for begin in range(0, 5000, 100):
        os.write(nginx.access, lines(begin, begin + 100))
    wait_for(receiver, ids(0, 5000))
    assert receiver.entries[0] == json.loads(lines(0, 1))
    assert len(receiver.ids) == 5000
    # The last page, which is half full.
    wait_until(lambda: nginx.used() <= os.sysconf("SC_PAGE_SIZE"), 10, "the file to be empty")
    assert os.fstat(nginx.access).st_size == len(lines(0, 5000))


def test_a_line_of_the_error_log(nginx, receive, forward):
    receiver = receive()
    forward(receiver.port)
    os.write(nginx.error, ERROR + b"\n")
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


def test_what_is_no_line_of_nginx_is_counted(nginx, receive, forward):
    receiver = receive()
    before = dropped(), dropped("error")
    os.write(nginx.access, b"x" * 40_000 + b"\n" + lines(0, 1) + b'{"no":"id"}\n' + lines(1, 2))
    os.write(nginx.error, b"nonsense\n" + ERROR + b"\n")
    forward(receiver.port)
    wait_for(receiver, ids(0, 2))
    assert len(receiver.entries) == 3
    assert (dropped() - before[0], dropped("error") - before[1]) == (2, 1)


def test_what_comes_after_nothing_but_nonsense_arrives(nginx, receive, forward):
    receiver = receive()
    before = dropped()
    os.write(nginx.access, b"nonsense\n")
    forward(receiver.port)
    wait_until(lambda: dropped() > before, 10, "nonsense to be counted")
    os.write(nginx.access, lines(0, 1))
    wait_for(receiver, ids(0, 1))


def test_half_a_line_waits_for_its_rest(nginx, receive, forward):
    receiver = receive()
    line = lines(1, 2)
    os.write(nginx.access, lines(0, 1) + line[:100])
    forward(receiver.port)
    wait_for(receiver, ids(0, 1))
    os.write(nginx.access, line[100:])
    wait_for(receiver, ids(1, 2))
    assert len(receiver.ids) == 2


def test_files_that_are_not_there_yet_or_emptied(folder, receive, forward):
    receiver = receive()
    sender = forward(receiver.port)
    nginx = Nginx(folder)
    os.write(nginx.access, lines(0, 10))
    wait_for(receiver, ids(0, 10))
    # Until then it may take from the file what it knows to have arrived, whatever stands there now.
    wait_until(lambda: not sender.window, 10, "all known to have arrived")
    os.ftruncate(nginx.access, 0)
    os.write(nginx.access, lines(10, 11))
    wait_for(receiver, ids(10, 11))


def test_another_forwarder_goes_on_where_the_first_was(nginx, receive, forward):
    receiver = receive(receivers.whole)
    first = forward(receiver.port)
    os.write(nginx.access, lines(0, 1000))
    wait_for(receiver, ids(0, 1000))
    wait_until(lambda: not first.window, 10, "all known to have arrived")
    receiver.kill()
    os.write(nginx.access, lines(1000, 2000))
    first.stop()
    first.deadline = 0
    first.thread.join()
    after = receive()
    forward(after.port)
    wait_for(after, ids(1000, 2000))
    assert set(after.ids) == ids(1000, 2000)


def test_a_receiver_that_is_killed_again_and_again(nginx, receive, forward):
    receiver = receive(receivers.slow)
    forward(receiver.port, LOGSTASH_RESEND_SIZE="128k")
    for begin in range(0, 5000, 500):
        os.write(nginx.access, lines(begin, begin + 500))
        time.sleep(0.1)
        receiver.kill()
        receiver = receive(receivers.slow, receiver.port, entries=receiver.entries)
    receiver.mended.set()
    wait_for(receiver, ids(0, 5000), 30)


def test_without_room_the_oldest_are_given_up(nginx, receive, forward, monkeypatch):
    before = dropped()
    sender = forward(free_port())
    os.write(nginx.access, lines(0, 1000))
    wait_until(lambda: len(sender.queue) == 1000, 10, "lines that wait")
    # More than all that is free.
    monkeypatch.setattr(forwarder, "RESERVE", 2)
    wait_until(lambda: not sender.queue, 10, "no lines")
    monkeypatch.undo()
    assert dropped() - before == 1000
    wait_until(lambda: nginx.used() <= 2 * os.sysconf("SC_PAGE_SIZE"), 10, "room")


def test_nginx_is_looked_after_while_a_connection_that_broke_is_made_again(
    nginx, receive, forward, monkeypatch
):
    """Lines of it wait to be sent again, and others may have to be given up meanwhile."""

    def deaf(receiver, connection):
        receiver.mended.wait()
        yield from ()

    receiver = receive(deaf)
    before = dropped()
    sender = forward(receiver.port)
    os.write(nginx.access, lines(0, 100))
    wait_until(lambda: sender.window, 10, "lines on their way")
    broken = REGISTRY.get_sample_value("app_logstash_reconnects_total")
    receiver.kill()
    wait_until(
        lambda: REGISTRY.get_sample_value("app_logstash_reconnects_total") > broken + 1,
        10,
        "attempts",
    )
    os.write(nginx.access, lines(100, 1100))
    monkeypatch.setattr(forwarder, "RESERVE", 2)
    wait_until(lambda: dropped() - before >= 1000, 10, "lines given up")
    monkeypatch.undo()
    assert sender.window


@pytest.fixture
def replay(monkeypatch, capfd):
    """replay(text, port): what it says, and its exit code."""

    def run(text, port):
        monkeypatch.setenv("LOGSTASH_HOST", "localhost")
        monkeypatch.setenv("LOGSTASH_PORT", str(port))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        code = forwarder.main("-")
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


def test_the_process_is_healthy_and_stops_in_time(folder, nginx, receive):
    receiver = receive()
    variables = {"LOGSTASH_HOST": "localhost", "LOGSTASH_PORT": str(receiver.port)}
    environment = {**os.environ, **variables, "PORT": str(free_port())}
    command = (sys.executable, "-m", "webapp.forwarder", str(folder))
    with subprocess.Popen(command, cwd=APP, env=environment) as process:
        try:
            os.write(nginx.access, lines(0, 10))
            wait_for(receiver, ids(0, 10), 30)
            check = (sys.executable, APP / "healthcheck.py")
            wait_until(
                lambda: not subprocess.run(check, env=environment, check=False).returncode,
                30,
                "a good answer",
            )
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        finally:
            process.kill()


def test_without_a_host_it_says_so():
    with pytest.raises(SystemExit, match="LOGSTASH_HOST"):
        forwarder.main()


def test_a_forwarder_of_files_that_are_empty_but_for_a_hole(nginx, folder, receive, forward):
    # Whole pages, or the last would stay.
    os.write(nginx.access, lines(0, 10).ljust(8191, b"x") + b"\n")
    tail = forwarder.Tail(folder / "access.log", 20)
    tail.look()
    tail.punch(0, tail.end)
    receiver = receive()
    forward(receiver.port)
    wait_until(lambda: not os.fstat(nginx.access).st_blocks, 5, "nothing but a hole")
    os.write(nginx.access, lines(100, 101))
    wait_for(receiver, ids(100, 101))
    assert len(receiver.ids) == 1


def test_a_line_written_during_the_first_look_is_found(nginx, folder, monkeypatch):
    """After the search for data has found none."""
    lseek = os.lseek

    def then_write(*where):
        patch.undo()
        try:
            return lseek(*where)
        finally:
            os.write(nginx.access, lines(0, 1))

    tail = forwarder.Tail(folder / "access.log", 20)
    with monkeypatch.context() as patch:
        patch.setattr(os, "lseek", then_write)
        tail.look()
    tail.look()
    assert tail.lines == 1


def test_what_is_given_up_takes_no_room(nginx, folder):
    """Though it ends within pages, again and again."""
    os.write(nginx.access, lines(0, 20_000))
    tail = forwarder.Tail(folder / "access.log", 20)
    for _ in range(20):
        tail.look()
    assert tail.lines == 20_000
    while tail.lines:
        tail.give_up()
    assert nginx.used() <= 2 * os.sysconf("SC_PAGE_SIZE")
