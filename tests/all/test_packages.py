"""Recipes of docs/fork.md on packages, proxies and jobs, word for word, in one build."""

import base64
import http.server
import re
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import ClassVar

import pytest
from clone import ROOT, wait_until
from recipes import blocks, recipe, with_lines

# With a compiler to install and another stack beside it.
pytestmark = pytest.mark.timeout(1800)

PASSWORD = base64.b64encode(b"reader:of-the-index").decode()
CHANGED = (
    *("app/Dockerfile", "app/requirements.in", "app/requirements.txt", "app/webapp/__init__.py"),
    *("tests/requirements.txt", "docker-compose.yml"),
)


def package(folder: Path, name: str) -> Path:
    """The source of a package, as people have it in libs/."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"NAME = {name!r}\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        f'[project]\nname = "{name}"\nversion = "1.0"\n'
    )
    return folder


def wheel(folder: Path, name: str) -> None:
    files = {
        f"{name}.py": f"NAME = {name!r}\n",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as file:
        for path, text in files.items():
            file.writestr(path, text)


class Index(http.server.SimpleHTTPRequestHandler):
    """A package index with a password."""

    def do_GET(self):
        if self.headers.get("Authorization") != f"Basic {PASSWORD}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *args):
        pass


class Proxy(http.server.BaseHTTPRequestHandler):
    """Passes on what is sent to it, and remembers to which hosts."""

    hosts: ClassVar[set[str]] = set()

    def do_CONNECT(self):
        host, _, port = self.path.partition(":")
        self.hosts.add(host)
        with socket.create_connection((host, int(port))) as server:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=copy, args=(server, self.connection))
            back.start()
            copy(self.connection, server)
            back.join()

    def do_GET(self):
        host, _, path = self.path.removeprefix("http://").partition("/")
        self.hosts.add(host)
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port or 80))) as server:
            lines = [f"GET /{path} HTTP/1.1", "Connection: close"]
            kept = [f"{key}: {value}" for key, value in self.headers.items()
                    if key.lower() not in ("connection", "proxy-connection")]  # fmt: skip
            server.sendall("\r\n".join([*lines, *kept, "", ""]).encode())
            copy(server, self.connection)
        self.close_connection = True

    def log_message(self, *args):
        pass


def copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while part := source.recv(65536):
            target.sendall(part)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture(scope="module")
def gateway():
    """This machine's address for containers of a build."""
    format_ = "--format={{(index .IPAM.Config 0).Gateway}}"
    command = ["docker", "network", "inspect", "bridge", format_]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def serve(gateway):
    servers = []

    def start(handler):
        servers.append(http.server.ThreadingHTTPServer((gateway, 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"{gateway}:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()


@pytest.fixture(scope="module")
def built(stack, gateway, serve, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    folder = outside / "simple/site-private"
    folder.mkdir(parents=True)
    wheel(folder, "site_private")
    index = serve(lambda *args: Index(*args, directory=str(outside)))
    address = f"http://{base64.b64decode(PASSWORD).decode()}@{index}/simple"
    config = outside / "pip.conf"
    config.write_text(f"[global]\nextra-index-url = {address}\ntrusted-host = {gateway}\n")

    (stack.folder / ".venv").symlink_to(sys.prefix)
    package(stack.folder / "libs/site_local", "site_local")
    repository = package(outside / "site_git", "site_git")
    git = ("git", "-C", str(repository), "-c", "user.name=a", "-c", "user.email=a@b.example")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("commit", "--quiet", "-m", "a"),
        ("tag", "v1.0"),
    ):
        subprocess.run([*git, *command], check=True)

    file = stack.folder / "app/Dockerfile"
    compiler, library = blocks(recipe("A package that has to be compiled"))
    text = file.read_text().replace("WORKDIR /build\n", f"WORKDIR /build\n{compiler}", 1)
    last = "COPY --from=build /opt/venv"
    file.write_text(text.replace(last, f"{library}{last}", 1))

    job, service = blocks(recipe("A job in the background"))
    file = stack.folder / "app/webapp/__init__.py"
    place = "    # WSGI middleware"
    job = "".join(f"    {line}\n" if line else "\n" for line in job.splitlines())
    text = file.read_text().replace(place, f"{job}\n{place}", 1)
    file.write_text(text.replace("from flask", "import time\n\nfrom flask", 1))
    file = stack.folder / "docker-compose.yml"
    file.write_text(with_lines(file.read_text(), service))

    file = stack.folder / "app/requirements.in"
    file.write_text(f"{file.read_text()}site-private\npsycopg2\n")
    commands = blocks(recipe("A package that no index has"))[0]
    commands = commands.replace("https://github.com/OWNER/site_git", f"file://{repository}")
    proxy = f"http://{serve(Proxy)}"
    environment = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": "localhost,127.0.0.1"}
    stack.write_settings(PIP_CONFIG=str(config))
    try:
        stack.run("sh", "-ec", commands, UV_INDEX=address, **environment)
        yield stack
    finally:
        del stack.settings["PIP_CONFIG"]
        stack.write_settings()
        for name in CHANGED:
            shutil.copy2(ROOT / name, stack.folder / name)
        shutil.rmtree(stack.folder / "libs")
        shutil.rmtree(stack.folder / "app/wheels", ignore_errors=True)
        (stack.folder / ".venv").unlink()
        stack.make("up")


def test_packages_are_there_wherever_they_came_from(built):
    script = (
        "import site_local, site_git, site_private, psycopg2; print(psycopg2.__libpq_version__)"
    )
    assert int(built.execute("app", "python", "-c", script)) > 100_000


def test_the_build_went_through_the_proxy(built):
    """By HTTPS for pip and by HTTP for apt."""
    assert len(Proxy.hosts) >= 2, Proxy.hosts


def test_no_image_knows_the_proxy_or_the_password(built):
    image = built.inspect("app")[0]["Image"]
    for command in (("history", "--no-trunc"), ("inspect",)):
        text = built.run("docker", *command, image).stdout
        assert not re.search(r"of-the-index|http_proxy=http", text)


def test_the_job_runs_once(built):
    wait_until(lambda: built.containers("jobs"), 5, "a container of the job")
    (container,) = built.containers("jobs")
    lines = [line for line in built.stdout(container) if "the job has run" in line]
    assert len(lines) == 1
    assert len(built.children("app")) >= 2
