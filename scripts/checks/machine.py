"""Checks of this machine and its Docker engine."""

import errno
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from scripts import compose, limits
from scripts.checks import Problem
from scripts.compose import ROOT, run

HOW_TO_INSTALL = (
    "install Docker: https://docs.docker.com/engine/install/ (or, as root: make engine)"
)

# Space for the base images and two builds of ours; measured: 1.3 GB with fallback images.
NEEDED_DISK_GB = 3
# Both containers' usual use and a build; their limits are far above it.
NEEDED_MEMORY_GB = 1

# Ports in the containers, and the variables that say where they are published.
VARIABLES = {
    8080: "HTTP_PORT",
    8443: "HTTPS_PORT",
    9090: "PROMETHEUS_PORT",
    9093: "ALERTMANAGER_PORT",
    3000: "GRAFANA_PORT",
    5601: "KIBANA_PORT",
}


def engine() -> Iterator[Problem]:
    answer = run("docker", "version", "--format", "{{.Server.Version}}")
    if answer.returncode and (host := os.environ.get("DOCKER_HOST")):
        yield Problem(f"no Docker engine answers at DOCKER_HOST={host}", f"docker -H {host} info")
    elif answer.returncode:
        yield Problem("no Docker engine answers", HOW_TO_INSTALL)
    elif version(answer.stdout) < version(minimum("MINIMUM_ENGINE")):
        yield Problem(
            f"Docker engine {answer.stdout.strip()} is older than {minimum('MINIMUM_ENGINE')}",
            HOW_TO_INSTALL,
        )


def plugins() -> Iterator[Problem]:
    answer = run("docker", "compose", "version", "--short")
    if answer.returncode:
        yield Problem("Docker has no `docker compose`", "make engine (as root)")
    elif version(answer.stdout) < version(minimum("MINIMUM_COMPOSE")):
        yield Problem(
            f"Docker Compose {answer.stdout.strip()} is older than {minimum('MINIMUM_COMPOSE')}",
            HOW_TO_INSTALL,
        )
    if run("docker", "buildx", "version").returncode:
        yield Problem("Docker has no `docker buildx`", "make engine (as root)")


def version(text: str) -> tuple[int, ...]:
    """'28.5.2+dfsg4' -> (28, 5, 2)"""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def minimum(name: str) -> str:
    """MINIMUM_… of scripts/minimum-versions.sh, which says why."""
    text = (ROOT / "scripts/minimum-versions.sh").read_text()
    return re.search(rf"^{name}=(.+)$", text, re.MULTILINE)[1]


def ports() -> Iterator[Problem]:
    """Published ports are free, or held by this very stack."""
    if not compose.engine_is_local():
        return
    ours = run("docker", "compose", "ps", "--format", "{{.Ports}}").stdout
    for service in compose.config()["services"].values():
        for port in service.get("ports", []):
            # None, or a range: the engine chooses a free one.
            if not port.get("published", "").isdigit():
                continue
            number, address = int(port["published"]), port.get("host_ip", "")
            if not has_address(address):
                yield Problem(
                    f"this machine has no address {address}, on which to publish port {number}",
                    "PUBLISH_ADDRESS=127.0.0.1, or nothing for all addresses: ip -brief address",
                )
                return
            if f":{number}->" in ours or free(address, number):
                continue
            variable = VARIABLES.get(port["target"])
            choice = f"make up {variable}={number + 1000}" if variable else "in its compose file"
            yield Problem(
                f"port {number} is in use{holder(number)}",
                f"stop that, or choose another: {choice}",
            )


def has_address(address: str) -> bool:
    """Is it this machine's? Docker finds out when the old container has stopped."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


def free(address: str, port: int) -> bool:
    """Is nobody listening? A port that needs root cannot be bound to find out, only be called."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except PermissionError:
            with socket.socket(family) as caller:
                caller.settimeout(2)
                return caller.connect_ex((address or "127.0.0.1", port)) != 0
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def holder(port: int) -> str:
    """' by container X' where it is one."""
    answer = run("docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}")
    return f" by container {answer.stdout.strip()}" if answer.stdout.strip() else ""


def disk() -> Iterator[Problem]:
    root = compose.engine_info()["DockerRootDir"]
    if not compose.engine_is_local() or not Path(root).exists():
        return
    gigabytes = shutil.disk_usage(root).free / 1e9
    # What runs has its data there already.
    ours = run("docker", "compose", "ps", "--services").stdout.split()
    needed = NEEDED_DISK_GB + sum(
        [int(gb) for name, gb in needs("disk-gb") if name not in ours]
        + [math.ceil(limits.size(it, 0) / 1e9) for name, it in needs("disk") if name not in ours]
    )
    if gigabytes < needed:
        yield Problem(
            f"{gigabytes:.1f} GB free in {root}, {needed} GB are needed",
            "docker system prune, or make space",
        )


def memory() -> Iterator[Problem]:
    total = compose.engine_info()["MemTotal"] / 1e9
    services = compose.config()["services"]
    needed = NEEDED_MEMORY_GB + sum(
        int(services[name]["mem_limit"]) / 1e9 for name, _ in needs("memory")
    )
    # A machine sold with 1 GB shows a little less.
    if 0 < total < 0.9 * needed:
        less = " ".join(f"{name.upper()}_MEMORY" for name, _ in needs("memory"))
        yield Problem(
            f"the engine's machine has {total:.1f} GB of memory, {needed:.3g} GB are needed",
            "a larger machine" + (f", or less in .env: {less}" if less else ""),
        )


def programs() -> Iterator[Problem]:
    """What add-ons need on this machine (labels of their services)."""
    for service, program in needs("program"):
        if not shutil.which(program):
            yield Problem(f"{service} needs {program}", f"apt-get install {program}")


def kernel() -> Iterator[Problem]:
    # Not there where the engine is in a virtual machine of its own.
    setting = Path("/proc/sys/vm/max_map_count")
    if not compose.engine_is_local() or not setting.exists():
        return
    now = int(setting.read_text())
    for service, number in needs("max-map-count"):
        if now < int(number):
            line = f"vm.max_map_count={number}"
            yield Problem(
                f"{service} needs {line} or more, here it is {now}",
                f"as root: sysctl -w {line} && echo {line} >/etc/sysctl.d/99-{service}.conf",
            )


def needs(what: str) -> Iterator[tuple[str, str]]:
    """The services that say by a label that they need it, and how much."""
    for name, service in compose.config()["services"].items():
        if value := service.get("labels", {}).get(f"needs-{what}"):
            yield name, value
