"""Hashed files copied from containers that run another version: which ones, and how many.

The peer is a socket; two containers of the image: tests/stack/test_release.py.
"""

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from webapp import peer_files


def named(content, name="page", extension="css"):
    return f"{name}-{hashlib.md5(content).hexdigest()}.{extension}"  # noqa: S324 (as in file names)


class Peer(ThreadingHTTPServer):
    """It lists `ages` and serves `files`, both by name; `asked`: the paths so far.

    Of what is no file, it closes the connection.
    """

    daemon_threads = True

    def __init__(self, files, ages=None, address=("127.0.0.1", 0)):
        self.files, self.asked = files, []
        self.ages = dict.fromkeys(files, 0) if ages is None else ages
        super().__init__(address, Handler)
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == peer_files.PATH:
            content = json.dumps(self.server.ages).encode()
        elif (name := self.path.removeprefix("/static/")) in self.server.files:
            content = self.server.files[name]
        else:
            self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Length", len(content))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

    def handle(self):
        with contextlib.suppress(ConnectionError):
            super().handle()


@pytest.fixture
def peer():
    """peer(files, ages): one on a free port of loopback."""
    peers = []

    def start(*arguments):
        peers.append(Peer(*arguments))
        return peers[-1]

    yield start
    for peer in peers:
        peer.shutdown()
        peer.server_close()


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """copies(peer): what a container that starts has of it afterwards, by name."""
    monkeypatch.setattr(peer_files, "folder", str(tmp_path / "static"))

    def copied(peer):
        peer_files.main("127.0.0.1", peer.server_port, "", peer_files.folder)
        return {name: (tmp_path / "static" / name).read_bytes() for name in peer_files.ages()}

    return copied


def test_a_peers_files_are_copied(peer, copies):
    files = {named(b"a"): b"a", f"fonts/{named(b'', extension='woff2')}": b""}
    assert copies(peer(files)) == files


def test_content_that_does_not_match_its_name_is_refused(peer, copies):
    good = named(b"good")
    assert copies(peer({named(b"other"): b"evil", good: b"good"})) == {good: b"good"}


@pytest.mark.parametrize(
    "name",
    [
        "page.css",
        "../{}",
        "/{}",
        "a/../../{}",
        ".{}",
        ".hidden/{}",
        "a//{}",
        "{}.gz",
        "{}/x",
        "\0{}",
    ],
)
def test_a_name_that_leads_elsewhere_or_has_no_hash_is_refused(peer, copies, tmp_path, name):
    asked = peer({}, {name.format(named(b"x")): 0})
    assert copies(asked) == {}
    assert asked.asked == [peer_files.PATH]
    assert list(tmp_path.iterdir()) == []


def test_what_the_image_has_is_not_copied(peer, copies, tmp_path, monkeypatch):
    files = {named(b"own"): b"own", named(b"other"): b"other"}
    (tmp_path / named(b"own")).touch()
    monkeypatch.setattr(peer_files, "IMAGE", str(tmp_path))
    assert copies(peer(files)) == {named(b"other"): b"other"}


def test_a_copy_is_passed_on_for_ten_minutes(peer, copies):
    """From its last container's end on, however many versions have copied it."""
    young, old = named(b"young"), named(b"old")
    files = {young: b"young", old: b"old"}
    first = peer(files, {young: 590, old: 601})
    assert copies(first) == {young: b"young"}
    assert 590 <= peer_files.ages()[young] < 600
    # Another one has it from its image, and yet another one has not.
    copies(peer(files, {young: 10}))
    copies(peer(files, {young: 200}))
    assert 10 <= peer_files.ages()[young] < 20


def test_size_of_each_and_of_all_is_bounded(peer, copies, monkeypatch):
    large = b"x" * (peer_files.LARGEST_FILE + 1)
    files = {named(large): large, named(b"small"): b"small"}
    assert list(copies(peer(files))) == [named(b"small")]
    monkeypatch.setattr(peer_files, "LARGEST_FILE", 10_000)
    monkeypatch.setattr(peer_files, "ALL_FILES", 50_000)
    many = {named(b"%5000d" % n): b"%5000d" % n for n in range(20)}
    ages = {name: 20 - n for n, name in enumerate(many)}
    # Those seen last. The others might be large, so they would not fit.
    assert copies(peer(many, ages)).keys() - files.keys() == {*[*many][-4:]}


def test_peers_that_fail_halfway_share_the_bound(peer, monkeypatch, tmp_path):
    monkeypatch.setattr(peer_files, "LARGEST_FILE", 10_000)
    monkeypatch.setattr(peer_files, "ALL_FILES", 50_000)
    port, addresses = 0, ("127.0.0.1", "127.0.0.2")
    for address in addresses:
        files = {
            named(content): content
            for content in (b"%s%5000d" % (address.encode(), n) for n in range(3))
        }
        ages = dict.fromkeys(files, 0) | {named(b"missing"): 1}
        port = peer(files, ages, (address, port)).server_port
    found = [socket.getaddrinfo(address, port)[0] for address in addresses]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *of, **how: found if of[0] == "app" else real(*of, **how)
    )
    peer_files.main("app", port, "", str(tmp_path))
    assert len([*tmp_path.iterdir()]) == 4


def test_a_peer_that_is_no_peer_is_passed_over(peer, copies):
    for ages in (None, [], "", {"x": "y"}, {named(b"x"): None}):
        assert copies(peer({}, ages)) == {}


def test_a_peer_that_hangs_is_left_after_a_second(copies):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begin = time.monotonic()
        peer_files.main("127.0.0.1", silent.getsockname()[1], "", peer_files.folder)
    # And a busy machine.
    assert time.monotonic() - begin < 5


def test_a_peer_that_sends_slowly_is_left_in_time(monkeypatch, caplog):
    """Each read has its byte in time."""

    def send():
        # On a busy machine the second is over before anybody connects.
        with contextlib.suppress(OSError), slow.accept()[0] as connection:
            while not stop.wait(0.1):
                connection.send(b"H")

    monkeypatch.setattr(peer_files, "TIMEOUT", 1)
    monkeypatch.setattr(peer_files, "folder", None)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as slow:
        slow.settimeout(5)
        thread = threading.Thread(target=send)
        thread.start()
        begin = time.monotonic()
        peer_files.fetch("127.0.0.1", slow.getsockname()[1], "", logging.getLogger("test"))
        taken = time.monotonic() - begin
    stop.set()
    thread.join()
    peer_files.remove()
    assert 1 <= taken < 5
    assert "hashed files of other versions may be missing" in caplog.text


def test_a_peer_that_fails_is_in_the_log(peer, monkeypatch, caplog):
    """One that does not listen is this container itself, most likely."""
    monkeypatch.setattr(peer_files, "folder", None)
    log, missing = logging.getLogger("test"), named(b"missing")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    peer_files.fetch("127.0.0.1", port, "", log)
    peer_files.remove()
    assert caplog.text == ""
    peer_files.fetch("127.0.0.1", peer({}, {missing: 0}).server_port, "", log)
    peer_files.remove()
    assert "127.0.0.1: RemoteDisconnected" in caplog.text


def test_gunicorn_serves_the_copies_as_its_own_and_lists_them(peer, serve):
    name, content = f"css/{named(b'x' * 2000, 'größe 1')}", b"x" * 2000
    asked = peer({urllib.parse.quote(name): content}, {name: 10})
    server = serve(PEERS="127.0.0.1", PORT=str(asked.server_port), SERVER_NAME="localhost")
    server.wait()
    with server.open(f"/static/{urllib.parse.quote(name)}") as answer:
        assert answer.read() == content
        assert answer.headers["Content-Type"] == 'text/css; charset="utf-8"'
        assert answer.headers["Cache-Control"] == "max-age=31536000, public, immutable"
        # Opened as a page, it runs no script: the peer may be compromised.
        assert answer.headers["Content-Security-Policy"] == "sandbox"
    # To whatever address, as a peer asks it.
    assert 10 <= json.loads(server.get(peer_files.PATH, Host="192.0.2.1"))[name] < 60
    made = os.listdir(peer_files.MEMORY)
    assert server.stop() == 0
    assert any(name.startswith("peers-") for name in {*made} - {*os.listdir(peer_files.MEMORY)})


def test_an_image_without_peers_lists_nothing(client):
    assert client.get(peer_files.PATH).status_code == 404
