#!/usr/bin/env python3
"""Compare this stack's throughput over TLS with others, in one run, alternating.

`make bench`            this stack, and the tutorials' set-up without and with an access log
`make bench WORKERS=1`  this stack with other classes and numbers of gunicorn workers
`make bench METRICS=1`  this stack without metrics, and with them

ROUNDS (5) and SECONDS (8) say how long: each candidate is loaded for SECONDS in each round, in
turn, so that a slow moment of the machine meets all of them. Printed: medians, and their ratios.
"""

import os
import shutil
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import wrk
from clone import Clone, wait_until

HERE = Path(__file__).resolve().parent
ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = int(os.environ.get("SECONDS", "8"))
CONNECTIONS = 32

WORKERS = {
    "gthread 2×4 (the default on two CPUs)": "",
    "gthread 2×4, without app/worker.py": "--worker-class gthread",
    "gthread 2×1": "--workers 2 --threads 1",
    "gthread 2×8": "--workers 2 --threads 8",
    "gthread 3×4": "--workers 3 --threads 4",
    "gthread 4×1": "--workers 4 --threads 1",
    "sync 4": "--worker-class sync --workers 4",
}


# Lines that make the application and nginx count.
APP_METRICS = ("app/webapp/__init__.py", "    metrics.init_app(app)\n")
NGINX_METRICS = ("nginx/templates/log.conf.template", " if=$logged")


class Ours(Clone):
    """This stack as a clone runs it, the diagnostics page for a trivial view."""

    def __init__(
        self, folder: Path, arguments: str = "", without: tuple[tuple[str, str], ...] = ()
    ):
        """without: files, each with a line that is left out."""
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
        super().__init__(folder, APP_ENV="testing", GUNICORN_CMD_ARGS=arguments, **limits)
        shutil.copy(HERE / "docker-compose.yml", self.folder / "docker-compose.override.yml")
        for name, line in without:
            text = (self.folder / name).read_text()
            assert line in text
            (self.folder / name).write_text(text.replace(line, ""))
        self.target = f"{self.url}/diagnostics/hello"


class Article(Clone):
    """The tutorials' set-up, on the same base image, Flask, gunicorn and certificate."""

    def __init__(self, folder: Path, ours: Ours, log: str = ""):
        super().__init__(folder)
        certificates = self.folder / "certificates"
        certificates.mkdir()
        for name in ("fullchain.pem", "privkey.pem"):
            content = ours.execute("nginx", "cat", f"/etc/nginx/certificates/{name}")
            (certificates / name).write_text(content)
        self.write_settings(
            COMPOSE_FILE="tests/bench/article/docker-compose.yml",
            COMPOSE_PROJECT_NAME=f"{self.name}-article",
            BENCH_APP=ours.inspect("app")[0]["Image"],
            BENCH_NGINX=ours.inspect("nginx")[0]["Image"],
            BENCH_PORT=str(self.https_port),
            BENCH_CERTIFICATES=str(certificates),
            ARTICLE_LOG=log,
        )
        self.target = f"{self.url}/hello"

    def start(self) -> None:
        self.compose("up", "--detach")

    def remove(self) -> None:
        self.compose("down", "--timeout", "2")


def serves(candidate: Clone) -> bool:
    try:
        return httpx.get(candidate.target, verify=False).status_code == 200  # noqa: S501 (same machine)
    except httpx.HTTPError:
        return False


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def started(candidate):
            stack.callback(candidate.remove)
            candidate.make("up") if isinstance(candidate, Ours) else candidate.start()
            wait_until(lambda: serves(candidate), 30, "the first answer")
            return candidate

        ours = started(Ours(folder / "ours"))
        if os.environ.get("WORKERS"):
            candidates = {
                name: started(Ours(folder / str(number), arguments)) if arguments else ours
                for number, (name, arguments) in enumerate(WORKERS.items())
            }
        elif os.environ.get("METRICS"):
            without = Ours(folder / "without", without=(APP_METRICS, NGINX_METRICS))
            candidates = {"without metrics": started(without), "with metrics": ours}
        else:
            candidates = {
                "the tutorials' set-up": started(Article(folder / "bare", ours)),
                "… with an access log on standard error": started(
                    Article(folder / "a", ours, "stdout")
                ),
                "… with an access log over TCP": started(Article(folder / "b", ours, "tcp")),
                "this stack, with two access logs": ours,
            }
        image = stack.enter_context(ours.image(wrk.IMAGE))
        rates = {name: [] for name in candidates}
        for _ in range(ROUNDS):
            for name, candidate in candidates.items():
                rate, _ = wrk.load(image, candidate, candidate.target, CONNECTIONS, SECONDS)
                rates[name].append(rate)
        report(rates)


def report(rates: dict[str, list[float]]) -> None:
    """A Markdown table: median, range, and the ratio of medians to the first candidate's."""
    first = statistics.median(next(iter(rates.values())))
    print(
        f"{ROUNDS} rounds of {SECONDS} s, {CONNECTIONS} connections, TLS, {os.cpu_count()} CPUs\n"
    )
    print("| set-up | requests/s, median | range | ratio |\n|---|---|---|---|")
    for name, values in rates.items():
        median = statistics.median(values)
        low, high = min(values), max(values)
        print(f"| {name} | {median:,.0f} | {low:,.0f} – {high:,.0f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
