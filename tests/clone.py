"""A fresh clone of this project in a folder of its own, and the stack that runs from it.

The tests drive the stack as a user does: `make up` in the clone, then requests to its published
ports. A clone has its own project name and ports, so it runs beside any other stack.
"""

import functools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent

# Of the variables of the person who runs the tests, those that say how this machine gets at images
# reach the stack under test; all others would change what is tested.
OURS = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
KEPT = {"BASE_IMAGES", "CA_CERTIFICATES", "BOOTSTRAP"}
FOREIGN = ({*OURS} - KEPT) | {"WITH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"}


def project_files() -> list[Path]:
    """The files a clone would have, uncommitted ones included; relative to the root.

    git lists them through an empty repository, so that an extracted archive is listed by the same
    rules as a checkout.
    """
    with tempfile.TemporaryDirectory() as folder:
        git = ("git", f"--git-dir={folder}", f"--work-tree={ROOT}")
        subprocess.run([*git, "init", "--quiet"], check=True)
        command = [*git, "ls-files", "-z", "--others", "--exclude-standard"]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [Path(name) for name in answer.stdout.split("\0") if name]


def require(*files: str) -> None:
    """Skip what is about a part that a fork has deleted (docs/fork.md)."""
    if not all((ROOT / file).exists() for file in files):
        pytest.skip("this part was deleted")


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on just now."""
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Ask `condition` until it is true and give back what it gave; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.1)
    return value


def answers(url: str) -> bool:
    """Is there an answer, and is it 200?"""
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


@functools.cache
def engine() -> docker.APIClient:
    """The engine that the command `docker` talks to; each of its calls takes 0.1 s of a processor,
    which tests that wait for something would take from those beside them.
    """
    command = ["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"]
    host = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return docker.from_env(environment={"DOCKER_HOST": host, **os.environ}, timeout=300).api


class Clone:
    """A copy of the project, with the commands a user types in it."""

    def __init__(self, folder: Path, **settings: str):
        self.folder = folder
        self.http_port, self.https_port = free_ports(2)
        self.name = f"clone-{os.getpid()}-{self.https_port}"
        for file in project_files():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
        self.settings = {
            "COMPOSE_PROJECT_NAME": self.name,
            "HTTP_PORT": str(self.http_port),
            "HTTPS_PORT": str(self.https_port),
            **settings,
        }
        self.write_settings()

    def write_settings(self, **changes: str) -> None:
        self.settings |= changes
        lines = [f'{name}="{value}"\n' for name, value in self.settings.items()]
        (self.folder / ".env").write_text("".join(lines))

    @contextmanager
    def changed(self, **settings: str) -> Iterator["Clone"]:
        """The stack with other settings, until the end of the block."""
        before = dict(self.settings)
        self.write_settings(**settings)
        try:
            self.make("up")
            yield self
        finally:
            self.settings = before
            self.write_settings()
            self.make("up")

    def run(self, *command: str, check: bool = True, **environment: str):
        """Run a command in the clone: its completed process, output as text."""
        own = {
            name: value
            for name, value in os.environ.items()
            if name not in FOREIGN and not name.startswith("COMPOSE_")
        }
        answer = subprocess.run(
            command,
            cwd=self.folder,
            env=own | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and answer.returncode:
            said = f"{answer.stdout[-3000:]}\n{answer.stderr[-3000:]}"
            raise AssertionError(f"{' '.join(command)} exited with {answer.returncode}:\n{said}")
        return answer

    def make(self, *words: str, check: bool = True, **environment: str):
        return self.run("make", *words, check=check, **environment)

    def build_environment(self) -> dict[str, str]:
        """What plain `docker compose build` needs where no registry is, or behind a proxy."""
        script = "import json; from scripts import build; print(json.dumps(build.environment()))"
        said = self.run("python3", "-c", script).stdout
        return json.loads(said.splitlines()[-1])

    def compose(self, *words: str, check: bool = True):
        return self.run("docker", "compose", *words, check=check)

    def containers(self, service: str) -> list[str]:
        labels = [
            f"com.docker.compose.project={self.name}",
            f"com.docker.compose.service={service}",
        ]
        found = engine().containers(all=True, filters={"label": labels})
        found.sort(key=lambda one: int(one["Labels"]["com.docker.compose.container-number"]))
        return [one["Id"] for one in found]

    def inspect(self, service: str) -> list[dict]:
        """What the engine says of the service's containers."""
        return [engine().inspect_container(container) for container in self.containers(service)]

    def execute(self, service: str, *command: str, check: bool = True) -> str:
        """Run a command in the service's container and give back what it printed."""
        # Not by engine(): docker-py reads past http.client's buffer, and loses what is in there
        # when the output comes together with the head of the answer (APIClient._read_from_socket).
        return self.run("docker", "exec", self.containers(service)[0], *command, check=check).stdout

    def children(self, service: str) -> list[int]:
        """Process ids, as the container numbers them, of what its first process has started."""
        return [int(pid) for pid in self.execute(service, "cat", "/proc/1/task/1/children").split()]

    def start(self, service: str) -> None:
        """Start the service's container again, until nginx has found the application."""
        self.compose("start", service)
        self.make("up")

    @contextmanager
    def paused(self, service: str) -> Iterator[None]:
        """The service's processes frozen, until the end of the block."""
        self.compose("pause", service)
        try:
            yield
        finally:
            self.compose("unpause", service)

    @contextmanager
    def filled(self, service: str, folder: str) -> Iterator[None]:
        """Not one byte is free where the folder is, until the end of the block."""
        fill = f"cat /dev/zero > {folder}/filler 2>/dev/null"
        self.execute(service, "sh", "-c", fill, check=False)
        try:
            yield
        finally:
            self.execute(service, "rm", f"{folder}/filler")

    @contextmanager
    def image(self, folder: Path) -> Iterator[str]:
        """An image for a test, built from the folder on the application's base image."""
        name = f"{self.name}-{folder.name}"
        base = self.inspect("app")[0]["Config"]["Labels"]["org.opencontainers.image.base.name"]
        certificates = Path("/etc/ssl/certs/ca-certificates.crt")
        secret = certificates if certificates.exists() else Path("/dev/null")
        self.run(
            *("docker", "build", "--quiet", f"--label=org.opencontainers.image.base.name={base}"),
            *(f"--build-arg=PYTHON_IMAGE={base}", f"--secret=id=ca_certificates,src={secret}"),
            *("--tag", name, str(folder)),
        )
        try:
            yield name
        finally:
            self.run("docker", "rmi", name, check=False)

    def is_healthy(self, service: str) -> bool:
        containers = self.inspect(service)
        return bool(containers) and all(
            container["State"].get("Health", {}).get("Status") == "healthy"
            for container in containers
        )

    def log(self, service: str) -> list[dict]:
        """The service's standard output, a parsed JSON object a line; text lines are left out."""
        lines = [line for name in self.containers(service) for line in self.stdout(name)]
        return [json.loads(line) for line in lines if line.startswith("{")]

    def asked(self, path: str) -> int:
        """How often the application was asked for it, by its log once later requests are there."""
        with self.client() as client:
            later = client.post("/diagnostics/echo").headers["X-Request-ID"]
        self.lines_of(later, "app")
        urls = [line["url"] for line in self.log("app") if "url" in line]
        return ["?".join(filter(None, (url["path"], url.get("query")))) for url in urls].count(path)

    def edge_metrics(self) -> str:
        """What nginx sends to Prometheus, read in nginx's container."""
        request = r"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        script = f"exec 3<>/dev/tcp/127.0.0.1/8081; printf '{request}' >&3; cat <&3"
        head, _, text = self.execute("nginx", "bash", "-c", script).partition("\n\n")
        assert head.startswith("HTTP/1.1 200 "), head
        return text

    def fetch(self, *urls: str, service: str = "app") -> list[str]:
        """The bodies of these URLs, read in the service's container: this machine has no address in
        its network.
        """
        script = "import sys, urllib.request as u; "
        script += r"print(*(u.urlopen(url).read().decode() for url in sys.argv[1:]), sep='\0')"
        return self.execute(service, "python", "-c", script, *urls).split("\0")

    def lines_of(self, request_id: str, service: str) -> list[dict]:
        """The service's log lines about one request, as soon as there are any.

        nginx gathers access lines for a second at most before it writes them.
        """

        def found() -> list[dict]:
            texts = [text for name in self.containers(service) for text in self.stdout(name)]
            lines = [json.loads(text) for text in texts if request_id in text and text[0] == "{"]
            return [
                line
                for line in lines
                if line.get("http", {}).get("request", {}).get("id") == request_id
            ]

        return wait_until(found, 5, f"a line of {service} about request {request_id}")

    def stdout(self, container: str, since: str = "") -> list[str]:
        """Its lines; `since`: only those after that moment, as RFC 3339 writes it."""
        moment = datetime.fromisoformat(since).timestamp() if since else None
        text = engine().logs(container, stderr=False, since=moment).decode()
        return text.split("\n")[:-1]

    @property
    def url(self) -> str:
        return f"https://localhost:{self.https_port}"

    @property
    def certificate(self) -> str:
        """The certificate nginx serves, as PEM."""
        return self.execute("nginx", "cat", "/etc/nginx/certificates/fullchain.pem")

    def tls(self) -> ssl.SSLContext:
        """A client's TLS settings that trust this stack's certificate and no other."""
        return ssl.create_default_context(cadata=self.certificate)

    def style_sheet(self) -> str:
        """The path of a style sheet by its content-hashed name, as the error page has it."""
        with self.client(headers={"Accept": "text/html"}) as client:
            page = client.get("/nowhere").text
        return re.search(r"/static/error-[0-9a-f]{32}\.css", page)[0]

    @contextmanager
    def client(self, **options) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, verify=self.tls(), **options) as client:
            yield client

    def remove(self) -> None:
        self.make("clean")
        shutil.rmtree(self.folder)


def leftovers(name: str) -> list[str]:
    """Containers, volumes, networks and images that still carry the project's name."""
    label = f"label=com.docker.compose.project={name}"
    found = []
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"], ["images"]):
        command = ["docker", *kind, "--quiet", "--filter", label]
        found += subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return found


def remove_killed() -> None:
    """Remove what test runs left that were killed: all that is named after a process now gone.

    Its containers would start again with the engine, and take the machine's time.
    """
    for kind, name, remove in (
        (["ps", "--all"], "{{.Names}}", ["rm", "--force", "--volumes"]),
        (["network", "ls"], "{{.Name}}", ["network", "rm"]),
        (["volume", "ls"], "{{.Name}}", ["volume", "rm"]),
        (["images"], "{{.Repository}}:{{.Tag}}", ["rmi"]),
    ):
        command = ["docker", *kind, "--format", name]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        for found in re.finditer(r"^clone-([0-9]+)-.*$", listed, re.MULTILINE):
            if not Path(f"/proc/{found[1]}").exists():
                subprocess.run(["docker", *remove, found[0]], capture_output=True, check=False)
