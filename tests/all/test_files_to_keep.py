"""The recipes "Files to keep" and "Large downloads" of docs/fork.md, word for word in a clone."""

import hashlib
import random
import re
import subprocess
from contextlib import ExitStack

import headers
import load
import pytest
from browser import chromium
from clone import Clone, leftovers, require
from raw import connect
from recipes import blocks, recipe, with_lines

RECIPE, DOWNLOADS = recipe("Files to keep"), recipe("Large downloads")

WRITE = """
import sqlite3
open("/data/upload.txt", "w").write("kept")
with sqlite3.connect("/data/site.db") as database:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE orders (item TEXT)")
    database.execute("INSERT INTO orders VALUES ('kept')")
"""
READ = """
import sqlite3
print(open("/data/upload.txt").read(), *sqlite3.connect("/data/site.db").execute(
    "SELECT item FROM orders").fetchone())
"""


@pytest.fixture
def clone(tmp_path):
    require("app/webapp/pages.py")
    clone = Clone(tmp_path / "clone", **load.LIMITS)
    file = clone.folder / "docker-compose.yml"
    for text in (RECIPE, DOWNLOADS):
        file.write_text(with_lines(file.read_text(), blocks(text)[0]))
    view = clone.folder / "app/webapp/pages.py"
    view.write_text(f"{view.read_text()}\n\n{blocks(DOWNLOADS)[1]}")
    try:
        clone.make("up")
        yield clone
    finally:
        clone.remove()
    assert leftovers(clone.name) == []


def volumes(name: str) -> str:
    command = ["docker", "volume", "ls", "--quiet", "--filter", f"name={name}_data"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_files_and_sqlite_are_kept_by_everything_but_clean(clone):
    clone.execute("app", "python", "-c", WRITE)
    first = clone.containers("app")
    view = clone.folder / "app/webapp/__init__.py"
    for target in ("up", "release"):
        view.write_text(f"{view.read_text()}# {target}\n")
        clone.make(target)
        assert not {*first} & {*clone.containers("app")}
        first = clone.containers("app")
        assert clone.execute("app", "python", "-c", READ) == "kept kept\n"
    # The backups of the recipe: the database's copy first, so that it is in the other.
    commands = re.findall(r"`(docker compose exec --no-TTY [^`]+)`", RECIPE)
    tar, copy = (" ".join(command.split()) for command in commands)
    for command in (copy, tar):
        clone.run("sh", "-c", command)
    listed = clone.run("tar", "-tzf", "data.tar.gz").stdout.split()
    assert {"./upload.txt", "./site.db", "./copy.db"} <= {*listed}
    clone.make("down")
    # As an image without the folder made it: owned by root, until the recipe's command.
    everything = "chown -R 0:0 /data"
    root = "docker compose run --rm --no-deps --user 0 --cap-add CHOWN app"
    clone.run("sh", "-c", f"{root} {everything}")
    command = next(line for line in re.findall(r"`([^`]+)`", RECIPE) if root in line)
    clone.run("sh", "-c", command)
    clone.make("up")
    assert clone.execute("app", "python", "-c", READ) == "kept kept\n"
    clone.execute("app", "touch", "/data/another")
    assert volumes(clone.name)
    clone.make("clean")
    assert not volumes(clone.name)


SIZE = 30_000_000
LARGE = f"""
import random
open("/data/downloads/a b.bin", "wb").write(random.Random(1).randbytes({SIZE}))
open("/data/secret", "w").write("secret")
"""


def test_nginx_sends_large_downloads(clone):
    clone.execute("app", "python", "-c", LARGE)
    path, whole = "/reports/a%20b.bin", random.Random(1).randbytes(SIZE)
    with clone.client() as client:
        answer = client.get(path)
        assert answer.status_code == 200
        assert hashlib.sha256(answer.content).digest() == hashlib.sha256(whole).digest()
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a b.bin"'
        assert "X-Accel-Redirect" not in answer.headers
        headers.check(answer)
        part = client.get(path, headers={"Range": "bytes=1000000-1000009"})
        assert (part.status_code, part.content) == (206, whole[1_000_000:1_000_010])
        headers.check(part)
        beyond = client.get(path, headers={"Range": "bytes=99999999-"})
        assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{SIZE}")
        headers.check(beyond)
        assert "Content-Disposition" not in beyond.headers
        unchanged = client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
        assert unchanged.status_code == 304
        for other in ("none.bin", "..%2fsecret", "%2e%2e/secret", ""):
            assert client.get(f"/reports/{other}").status_code == 404
        # Not for clients.
        assert client.get("/x-accel/a%20b.bin").status_code == 404
        # More readers that stop than threads and those in their place.
        with ExitStack() as readers:
            tls, request = clone.tls(), f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
            for _ in range(200):
                reader = readers.enter_context(connect(clone, tls))
                reader.sendall(request)
                assert reader.recv(15) == b"HTTP/1.1 200 OK"
            answer = client.get("/api/request")
            assert answer.status_code == 200
            assert answer.elapsed.total_seconds() < 1


# A minute of silence.
SOUND = """
import wave
with wave.open("/data/downloads/sound.wav", "wb") as sound:
    sound.setparams((1, 2, 48_000, 0, "NONE", ""))
    sound.writeframes(bytes(2 * 48_000 * 60))
"""
# Resolves with the position that the player reached, or with the error it met.
SEEK = """
(path) => new Promise(resolve => {
  const sound = document.createElement('audio');
  sound.onerror = () => resolve(sound.error.message);
  sound.onloadedmetadata = () => { sound.currentTime = 50; };
  sound.onseeked = () => resolve(sound.currentTime);
  sound.src = path;
  document.body.append(sound);
})
"""


def test_a_browser_plays_and_seeks_media(clone, tmp_path):
    """Media of the page's own host pass the Content-Security-Policy, those of another do not."""
    clone.execute("app", "python", "-c", SOUND)
    with chromium(clone, tmp_path) as browser:
        page = browser.new_context(base_url=clone.url).new_page()
        parts = []
        page.on("response", lambda answer: parts.append((answer.url, answer.status)))
        page.goto("/")
        assert page.evaluate(SEEK, "/reports/sound.wav") == 50
        assert {status for url, status in parts if url.endswith(".wav")} == {206}
        refused = page.evaluate(SEEK, "https://media.example/sound.wav")
        assert "URL safety check" in refused
