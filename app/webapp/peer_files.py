"""Hashed static files of the other versions that run, so that a page always finds its files.

When the last container of a version has stopped, browsers and nginx's cache still have its pages.
So a new container, which a release starts beside the old ones, first copies their hashed files:
gunicorn.conf.py calls fetch() before it listens. docs/edge.md has the whole.

The copying is a program of its own (`python -I -S peer_files.py HOST PORT PREFIX FOLDER`): a time
limit on a process also covers DNS and a peer that sends a byte a second. Only the standard library.
"""

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

# Not passed by nginx (internals.conf). A JSON object: for each hashed name, how many seconds ago a
# container had it from its image. 0: this one has.
PATH = "/hashed-files"
# Copies older than this are not copied again: each version would have the files of all before it.
# Pages are used for about two minutes after the switch, which may come three after the copying
# (READY_WITHIN in scripts/release.py, stop_grace_period); and as much again for a busy machine.
LIFETIME = 600  # seconds
PEER_TIMEOUT = 1  # seconds, for each read
TIMEOUT = 5  # seconds, for all peers; the health check's start-period is 30 (Dockerfile)
LARGEST_FILE = 1_000_000  # bytes, as in nginx's cache (cache.conf)
ALL_FILES = 16 * 1024**2  # bytes; Docker's /dev/shm has 64 MB, for metrics as well
PAGE = 4096  # bytes, the least that a file in memory takes
# flask-static-digest: NAME-<MD5 of the content>.EXTENSION; no part of the path begins with a dot.
NAME = re.compile(r"(?:[^/.\0][^/\0]*/)*[^/.\0][^/\0]*-([0-9a-f]{32})\.[^/.\0]+")

MEMORY = "/dev/shm"  # noqa: S108 (the folder in it is made with mkdtemp)
IMAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "static")

# Where the copies are: set in gunicorn's master, inherited by its workers.
folder = None


def fetch(host, port, prefix, log):
    """Copy the files of all containers behind the name. Whatever fails, the application starts."""
    global folder  # noqa: PLW0603 (set once)
    try:
        made = tempfile.mkdtemp(prefix="peers-", dir=MEMORY if os.path.isdir(MEMORY) else None)
        folder = os.path.join(made, "static")
        command = [sys.executable, "-I", "-S", __file__, host, str(port), prefix, folder]
        done = subprocess.run(  # noqa: S603
            command, check=True, timeout=TIMEOUT, capture_output=True, text=True
        )
        problem = done.stderr.strip()
    except (OSError, subprocess.SubprocessError) as error:
        problem = error
    if problem:
        log.warning("hashed files of other versions may be missing: %s", problem)


def remove():
    if folder:
        shutil.rmtree(os.path.dirname(folder), ignore_errors=True)


def ages():
    """Each copy's name, and how many seconds ago a container had it from its image."""
    now, found = time.time(), {}
    for root, _, files in os.walk(folder or ""):
        for path in (os.path.join(root, file) for file in files):
            found[os.path.relpath(path, folder)] = now - os.stat(path).st_mtime
    return found


def main(host, port, prefix, folder):
    # At the first start of all, the name does not exist.
    with contextlib.suppress(socket.gaierror):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        left = ALL_FILES
        for address in {entry[4][0] for entry in found}:
            connection = http.client.HTTPConnection(address, port, timeout=PEER_TIMEOUT)
            try:
                for size in copy(connection, prefix, folder):
                    left -= size
                    if left < LARGEST_FILE + PAGE:
                        return
            except ConnectionRefusedError:
                pass  # This container does not listen yet, another one may be stopping.
            except Exception as error:
                sys.stderr.write(f"{address}: {error!r}\n")
            connection.close()


def copy(connection, prefix, folder):
    """Copy one peer's files; yield how many bytes of memory each takes."""
    listed = json.loads(get(connection, PATH))
    for name, age in sorted(listed.items(), key=lambda item: item[1]):
        match, path, seen = NAME.fullmatch(name), os.path.join(folder, name), time.time() - age
        if not match or age > LIFETIME or os.path.exists(os.path.join(IMAGE, name)):
            continue
        if not os.path.exists(path):
            content = get(connection, f"{prefix}/static/{urllib.parse.quote(name)}")
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != match[1]:
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # Whole or not at all, because fetch() may kill this process.
            with open(f"{folder}.part", "wb") as file:
                file.write(content)
            os.replace(f"{folder}.part", path)
            os.utime(path, (seen, seen))
            yield len(content) + PAGE
        elif os.stat(path).st_mtime < seen:
            os.utime(path, (seen, seen))


def get(connection, path):
    """The content; empty when there is none, or too much."""
    connection.request("GET", path)
    response = connection.getresponse()
    if response.status == 200 and (response.length or 0) <= LARGEST_FILE:
        return response.read(LARGEST_FILE)
    connection.close()
    return b""


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
