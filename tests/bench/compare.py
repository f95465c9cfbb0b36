#!/usr/bin/env python3
"""Compare this stack over TLS with others, in one run, alternating: CPU time and throughput.

`make bench`              this stack, without and with its add-ons, and the tutorials' set-ups
`make bench BASE=COMMIT`  the same, and this stack as it was at a commit
`make bench WORKERS=1`    this stack with other classes and numbers of gunicorn workers
`make bench METRICS=1`    this stack without metrics, and with them

ROUNDS (5) and SECONDS (8) say how long: each candidate is loaded for SECONDS in each round, in
turn, so that a slow moment of the machine meets all of them. The load comes over the container
network: through a published port, docker-proxy would be part of every figure.

CPU time is that of the whole machine, without the load generator and whoever receives log lines.
It is steadier than throughput on a machine that others share. Printed: medians, their ratios, and
where the time goes. JSON=FILE and CHART=FILE.svg write the same. A run fails unless log lines and
counters equal the requests.
"""

import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import chart
import cpu
import httpx
import wrk
from clone import ROOT, Clone, wait_until
from scrape import total

HERE = Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "8"))
CONNECTIONS = 32
# Neither the stack's nor the tutorials': what takes the lines.
RECEIVERS = ("sink", "logstash")
FAST, SLOW = "requests/s", "requests/s of a view that waits 50 ms"

WORKERS = {
    "gthread 2×4 (the default on two CPUs)": "",
    "gthread 2×4, without app/worker.py": "--worker-class gthread",
    "gthread 2×1": "--workers 2 --threads 1",
    "gthread 2×8": "--workers 2 --threads 8",
    "gthread 3×4": "--workers 3 --threads 4",
    "gthread 4×1": "--workers 4 --threads 1",
    "sync 4": "--worker-class sync --workers 4",
}


# The line that makes the application count.
APP_METRICS = ("app/webapp/__init__.py", "    metrics.init_app(app)\n")


class Ours(Clone):
    """This stack as a clone runs it, the diagnostics page for a trivial view."""

    path, waits = "/diagnostics/hello", "/diagnostics/page?ms=50"
    lines_each = 1

    def __init__(
        self,
        folder: Path,
        arguments: str = "",
        without: tuple[tuple[str, str], ...] = (),
        base: str = "",
        **settings: str,
    ):
        """without: files, each with a line that is left out; base: a commit in place of what is
        here.
        """
        # One client is all the load there is: its limits are raised, not removed.
        limits = {
            "RATE_LIMIT": "100000",
            "RATE_BURST": "1000",
            "CONNECTION_LIMIT": "600",
            "UPLOAD_LIMIT": "25",
            "NGINX_TMP": "1000m",
            "NGINX_CACHE": "256m",
            "NGINX_MEMORY": "2500m",
        }
        settings |= limits | {"APP_ENV": "testing", "GUNICORN_CMD_ARGS": arguments}
        super().__init__(folder, SERVER_NAME="localhost nginx", **settings)
        if base:
            dotenv = (folder / ".env").read_text()
            shutil.rmtree(folder)
            folder.mkdir()
            archive = subprocess.run(
                ["git", "-C", ROOT, "archive", base], capture_output=True, check=True
            )
            subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
            (folder / ".env").write_text(dotenv)
            # Before nginx wrote the only one.
            self.lines_each = 1 if (folder / "app/webapp/log_files.py").exists() else 2
        shutil.copy(HERE / "docker-compose.yml", self.folder / "docker-compose.override.yml")
        for name, line in without:
            text = (self.folder / name).read_text()
            assert line in text
            (self.folder / name).write_text(text.replace(line, ""))
        self.target = f"{self.url}{self.path}"
        self.network = f"{self.name}_edge"

    def start(self) -> None:
        self.make("up")

    def lines(self, since: str) -> float:
        """Access lines of the load since then, for each that a request should have."""
        found = sum(
            f'"path":"{self.path}"' in line and '.access"' in line
            for service in ("nginx", "app")
            for container in self.containers(service)
            for line in self.stdout(container, since)
        )
        return found / self.lines_each

    def counted(self) -> int:
        (text,) = self.fetch("http://localhost:8000/metrics")
        return int(total(text, "flask_http_request_duration_seconds_count", route=self.path))


class Everything(Ours):
    """With both add-ons; a receiver is in the place of Logstash, whose image is not everywhere."""

    def __init__(self, folder: Path, image: str):
        """image: the application's, for the receiver."""
        super().__init__(folder)
        (folder / "sink.py").write_text((HERE / "tls_sink.py").read_text())
        override = folder / "docker-compose.override.yml"
        override.write_text(f"""{override.read_text()}
  logstash:
    image: {image}
    build: !reset null
    depends_on: !reset null
    healthcheck: {{test: [CMD, "true"], interval: 1s}}
    entrypoint: [python, /sink.py]
    user: "10001"
    volumes: !override ["./sink.py:/sink.py:ro"]
""")

    def start(self) -> None:
        self.make("secrets")
        files = ["docker-compose.yml", "prometheus/docker-compose.yml"]
        self.write_settings(COMPOSE_FILE=":".join(files))
        environment = self.build_environment()
        files += ["logstash/docker-compose.yml", "docker-compose.override.yml"]
        self.write_settings(COMPOSE_FILE=":".join(files))
        up = ("docker", "compose", "up", "--build", "--detach", "--wait")
        self.run(*up, *SERVICES, **environment)

    def remove(self) -> None:
        self.compose("down", "--volumes", "--remove-orphans")
        self.settings.pop("COMPOSE_FILE", None)
        (self.folder / "docker-compose.override.yml").unlink()
        self.write_settings()
        super().remove()

    def at_logstash(self) -> int:
        """Lines that have arrived there, by what it printed last."""
        (container,) = self.containers("logstash")
        return int((self.stdout(container) or ["0"])[-1])


SERVICES = (
    *("nginx", "app", "logstash", "app-log-forwarder", "nginx-log-forwarder"),
    *("prometheus", "alertmanager", "node-exporter", "blackbox-exporter"),
)


class Article(Clone):
    """The tutorials' set-up, on the same base image, Flask, gunicorn and certificate."""

    path, waits = "/hello", "/wait"

    def __init__(self, folder: Path, ours: Ours, extras: str = ""):
        super().__init__(folder)
        certificates = self.folder / "certificates"
        certificates.mkdir()
        for name in ("fullchain.pem", "privkey.pem"):
            content = ours.execute("nginx", "cat", f"/etc/nginx/certificates/{name}")
            (certificates / name).write_text(content)
        self.name = f"{self.name}-article"
        self.write_settings(
            COMPOSE_FILE="tests/bench/article/docker-compose.yml",
            COMPOSE_PROJECT_NAME=self.name,
            BENCH_APP=ours.inspect("app")[0]["Image"],
            BENCH_NGINX=ours.inspect("nginx")[0]["Image"],
            BENCH_PORT=str(self.https_port),
            BENCH_CERTIFICATES=str(certificates),
            ARTICLE_EXTRAS=extras,
        )
        self.target = f"{self.url}{self.path}"
        self.network = f"{self.name}_default"

    def start(self) -> None:
        self.compose("up", "--detach")

    def remove(self) -> None:
        self.compose("down", "--timeout", "2")


def serves(candidate: Clone) -> bool:
    try:
        return httpx.get(candidate.target, verify=False).status_code == 200  # noqa: S501 (same machine)
    except httpx.HTTPError:
        return False


def measured(image: str, candidate: Clone) -> dict[str, float]:
    """One round: requests/s, and CPU microseconds a request, of the whole machine and by part."""
    exact = isinstance(candidate, Ours)
    since = datetime.now(UTC).isoformat()
    counted = candidate.counted() if exact else 0
    shipped = candidate.at_logstash() if isinstance(candidate, Everything) else 0
    url = f"https://nginx:8443{candidate.path}"
    used = cpu.Meter(candidate)
    result = wrk.load(
        *(image, candidate, url, CONNECTIONS, SECONDS), network=candidate.network, around=used
    )
    seconds = used.seconds
    receivers = sum(seconds.pop(name, 0) for name in RECEIVERS)
    machine = seconds.pop("machine") - result.cpu - receivers
    parts = {name: seconds.pop(name) for name in ("nginx", "app", "engine")}
    parts["add-ons"] = sum(seconds.values())
    # The kernel's network, mostly.
    parts["rest"] = machine - sum(parts.values())
    parts["machine"] = machine
    if exact:
        # wrk closes its connections at the end, with a request on each under way.
        most = result.requests + CONNECTIONS
        right = range(result.requests, most + 1)
        wait_until(lambda: candidate.lines(since) in right, 15, f"{result.requests} lines")
        wait_until(lambda: candidate.counted() - counted in right, 15, f"{result.requests} counted")
    if isinstance(candidate, Everything):
        # Beside them lines of others: health checks of the site, starts of workers.
        wait_until(
            lambda: candidate.at_logstash() - shipped >= result.requests, 30, "lines at Logstash"
        )
    each = {name: seconds / result.requests * 1e6 for name, seconds in parts.items()}
    slow = wrk.load(
        *(image, candidate, f"https://nginx:8443{candidate.waits}", CONNECTIONS, SECONDS),
        network=candidate.network,
    )
    return each | {FAST: result.rate, SLOW: slow.rate}


def candidates(folder: Path, started) -> dict[str, Clone]:
    ours = started(Ours(folder / "ours"))
    if os.environ.get("WORKERS"):
        return {
            name: started(Ours(folder / str(number), arguments)) if arguments else ours
            for number, (name, arguments) in enumerate(WORKERS.items())
        }
    if os.environ.get("METRICS"):
        without = Ours(folder / "without", without=(APP_METRICS,))
        counting = Ours(folder / "with", NGINX_METRICS="on")
        return {"without metrics": started(without), "with metrics": started(counting)}
    base = os.environ.get("BASE", "")
    return {
        "the tutorials' set-up": started(Article(folder / "bare", ours)),
        "… with metrics and a socket handler": started(Article(folder / "full", ours, "on")),
        **({f"this stack at {base}": started(Ours(folder / "base", base=base))} if base else {}),
        "this stack": ours,
        "… with monitoring and logging": started(
            Everything(folder / "all", ours.inspect("app")[0]["Image"])
        ),
    }


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def started(candidate):
            stack.callback(candidate.remove)
            candidate.start()
            wait_until(lambda: serves(candidate), 30, "the first answer")
            return candidate

        found = candidates(folder, started)
        image = stack.enter_context(next(iter(found.values())).image(wrk.IMAGE))
        rounds = {name: [] for name in found}
        for _ in range(ROUNDS):
            for name, candidate in found.items():
                rounds[name].append(measured(image, candidate))
        report(rounds)


def report(rounds: dict[str, list[dict[str, float]]]) -> None:
    """Markdown tables: medians, ranges, ratios of medians to the first candidate's; then parts."""
    print(
        f"{ROUNDS} rounds of {SECONDS} s, {CONNECTIONS} connections, TLS, {os.cpu_count()} CPUs\n"
    )
    for what in ("machine", FAST, SLOW):
        unit = "CPU µs a request" if what == "machine" else what
        print(f"| set-up | {unit}, median | range | ratio |\n|---|---|---|---|")
        first = None
        for name, values in rounds.items():
            each = [value[what] for value in values]
            median = statistics.median(each)
            first = first or median
            spread = f"{min(each):,.0f} – {max(each):,.0f}"
            print(f"| {name} | {median:,.0f} | {spread} | {median / first:.2f} |")
        print()
    medians = defaultdict(dict)
    for name, values in rounds.items():
        for part in dict.fromkeys(part for value in values for part in value):
            medians[name][part] = statistics.median(value.get(part, 0) for value in values)
    parts = [
        part
        for part in dict.fromkeys(part for value in medians.values() for part in value)
        if part not in ("machine", FAST, SLOW)
    ]
    print(f"| CPU µs a request | {' | '.join(parts)} |\n|---|{'---|' * len(parts)}")
    for name, values in medians.items():
        cells = [f"{values[part]:,.0f}" if part in values else "" for part in parts]
        print(f"| {name} | {' | '.join(cells)} |")
    if file := os.environ.get("JSON"):
        Path(file).write_text(json.dumps(rounds, indent=1) + "\n")
    if file := os.environ.get("CHART"):
        Path(file).write_text(chart.stacked(medians, parts, "CPU microseconds a request"))


if __name__ == "__main__":
    main()
