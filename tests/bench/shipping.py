#!/usr/bin/env python3
"""Measure what shipping log lines costs, in one run, alternating: `make bench WHAT=shipping`.

Side by side: without, with the logging add-on (over TLS), and the usual way (plain.py). Requests a
second, and for each state that Logstash can be in, the 99th percentile of two fast clients.

ROUNDS (5) and SECONDS (8) as in compare.py; STATE="does not read" for one of the states alone.
Printed: medians, and their ratios.
"""

import os
import random
import tempfile
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import receiver as receivers
import wrk
import yaml
from compare import CONNECTIONS, ROUNDS, SECONDS, Ours
from edge import table
from shipped import FORWARDERS, Shipped

HERE = Path(__file__).resolve().parent
STATE = os.environ.get("STATE")
OFF, ADDON, PLAIN = "no shipping", "this project's logging add-on", "a plain handler"


def read(receiver, connection):
    """All, and thrown away: what a receiver on this machine costs is not what is measured."""
    while connection.recv(65536):
        pass
    yield from ()


def unanswering(receiver, connection):
    """Half-open: the other side's kernel has gone."""
    connection.recv(1)
    receivers.black_hole(connection)
    receiver.fixed.wait()
    yield from ()


@contextmanager
def receiving(shipped, behaviour=read):
    yield shipped.receive(behaviour)


@contextmanager
def refused(shipped):
    shipped.stop()
    yield


@contextmanager
def packets_dropped(shipped):
    with receiving(shipped) as receiver:
        receivers.black_hole(receiver.listener)
        yield


@contextmanager
def restarted(shipped):
    """Again and again, each time within three seconds."""
    stop = threading.Event()

    def restart():
        while not stop.wait(random.uniform(0.5, 3)):
            shipped.receive(read)

    thread = threading.Thread(target=restart)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


STATES = {
    "reads": receiving,
    "refuses": refused,
    "drops packets": packets_dropped,
    "does not read": partial(receiving, behaviour=receivers.unread),
    "is slow": partial(receiving, behaviour=receivers.slow),
    "is half-open": partial(receiving, behaviour=unanswering),
    "restarts": restarted,
}


def shipping(ours: Ours, with_tls: bool, services: dict) -> Shipped:
    """Start the stack again, sending to this machine."""
    environment = ours.build_environment()
    shipped = Shipped(ours, with_tls=with_tls)
    file = ours.folder / "docker-compose.override.yml"
    override = yaml.safe_load(file.read_text())
    added = shipped.override(*services)
    override["networks"] = added["networks"]
    for name, service in services.items():
        before = override["services"].get(name, {})
        override["services"][name] = before | added["services"][name] | service
    file.write_text(yaml.safe_dump(override))
    if FORWARDERS[0] in services:
        addon = "docker-compose.yml:logstash/docker-compose.yml:docker-compose.override.yml"
        ours.write_settings(COMPOSE_FILE=addon)
        ours.run("docker", "compose", "build", FORWARDERS[0], **environment)
    ours.compose("up", "--detach", "--no-build", "--wait", "nginx", "app", *services)
    ours.compose("exec", "--no-TTY", "nginx", "upstream")
    return shipped


def main() -> None:
    folder = tempfile.TemporaryDirectory()
    candidates = {
        name: Ours(Path(folder.name) / str(number))
        for number, name in enumerate((OFF, ADDON, PLAIN))
    }
    try:
        for candidate in candidates.values():
            candidate.make("up")
        plain = {"volumes": [f"{HERE}/plain.py:/app/wsgi.py:ro"]}
        addon = shipping(candidates[ADDON], True, {name: {} for name in FORWARDERS})
        usual = shipping(candidates[PLAIN], False, {"app": plain})
        with candidates[OFF].image(wrk.IMAGE) as image:

            def load(name: str, connections: int) -> tuple[float, float]:
                target = candidates[name].target
                return wrk.load(
                    *(image, candidates[name], target, connections, SECONDS),
                    failures_allowed=name == PLAIN,
                )

            if not STATE:
                with receiving(addon), receiving(usual):
                    rates = {name: [] for name in candidates}
                    for _ in range(ROUNDS):
                        for name, values in rates.items():
                            values.append(load(name, CONNECTIONS)[0])
                    table("Logstash reads", "requests/s", rates)
            for state, bring_about in STATES.items():
                if STATE in (None, state):
                    with bring_about(addon), bring_about(usual):
                        compare(f"p99 when Logstash {state}", load)
    finally:
        for candidate in candidates.values():
            candidate.compose("down", "--volumes")
            candidate.settings.pop("COMPOSE_FILE", None)
            (candidate.folder / "docker-compose.override.yml").unlink()
            candidate.write_settings()
            candidate.remove()


def compare(title: str, load) -> None:
    times = {name: [] for name in (OFF, ADDON, PLAIN)}
    for _ in range(ROUNDS):
        for name, values in times.items():
            values.append(load(name, 2)[1] * 1000)
    table(title, "ms", times)


if __name__ == "__main__":
    main()
