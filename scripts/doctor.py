"""Check this machine for what the stack needs: one line a problem, with its fix.

`make doctor` runs every check, with WITH="…" for those add-ons; `make up` runs them before
it builds anything. Needs only Python's standard library and exits with 1 when a problem would keep
the stack from running.
"""

import errno
import math
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from scripts import addons, build, compose, limits
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


class Problem(NamedTuple):
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what} -> {self.fix}"


def line_ends() -> Iterator[Problem]:
    """Shell scripts and configuration with CRLF fail in containers in ways hard to read."""
    kinds = ("*.sh", "*.envsh", "Dockerfile", "*.template", "*.conf", "*.yml")
    folders = ("scripts", "images", "nginx", "app", *addons.FOLDERS.values())
    files = [file for kind in kinds for folder in folders for file in (ROOT / folder).rglob(kind)]
    broken = [file for file in [*ROOT.glob("*.yml"), *files] if b"\r\n" in file.read_bytes()]
    if broken:
        names = ", ".join(str(file.relative_to(ROOT)) for file in broken[:3])
        yield Problem(
            f"{len(broken)} files have Windows line ends ({names}, …)",
            "git config core.autocrlf input && git rm -rq --cached . && git reset --hard",
        )


def dotenv() -> Iterator[Problem]:
    """Compose would take the default of every setting, without a word."""
    file = ROOT / ".env"
    if file.is_symlink() and not file.exists():
        yield Problem(
            f".env is a link to {file.readlink()}, which does not exist",
            "mount or restore what it leads to, or: rm .env",
        )
        return
    try:
        text = file.read_bytes() if file.is_file() else b""
        text.decode()
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        yield Problem(
            f".env is not UTF-8, in line {line}",
            "save it as UTF-8, or: iconv -f latin1 -t utf-8 .env >new && mv new .env",
        )


def remembered_addons() -> Iterator[Problem]:
    gone = addons.missing()
    if gone:
        yield Problem(f".env remembers {', '.join(gone)}, which is gone", "make up WITH=")


def version(text: str) -> tuple[int, ...]:
    """'28.5.2+dfsg4' -> (28, 5, 2)"""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def minimum(name: str) -> str:
    """MINIMUM_… of scripts/minimum-versions.sh, which says why."""
    text = (ROOT / "scripts/minimum-versions.sh").read_text()
    return re.search(rf"^{name}=(.+)$", text, re.MULTILINE)[1]


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


def configuration() -> Iterator[Problem]:
    try:
        compose.config()
    except ValueError as error:
        yield Problem(f"Compose refuses the configuration: {error}", "fix .env or the named file")


def unread_settings() -> Iterator[Problem]:
    """Names in .env that no file of Compose passes on: no error, because the stack works."""
    file = ROOT / ".env"
    text = file.read_text(errors="replace") if file.exists() else ""
    named = compose.setting("COMPOSE_FILE").split(os.pathsep)
    files = {*ROOT.glob("*.yml"), *ROOT.glob("*/*.yml"), *(ROOT / it for it in named if it)}
    read = "".join(file.read_text(errors="replace") for file in files)
    explained = re.findall(r"^# (\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    # With env_file, or by the name alone.
    passed = [it.get("environment") or {} for it in compose.config()["services"].values()]
    for name in dict.fromkeys(re.findall(r"^\s*(?:export\s+)?(\w+)\s*=", text, re.MULTILINE)):
        if name in explained or name.startswith(("COMPOSE_", "DOCKER_", "BUILDKIT_", "BUILDX_")):
            continue
        if re.search(rf"\$\{{?{name}\b", read):
            continue
        if any(it.get(name) == compose.setting(name) for it in passed if name in it):
            continue
        yield Problem(
            f".env has {name}, and no compose file passes it on",
            "correct the name, or add it under `environment` of app: docs/fork.md",
        )


def way_out() -> Iterator[Problem]:
    """Compose takes more words for true and false than the engine, which has it as well."""
    if (value := compose.setting("BACKEND_INTERNAL")) not in ("", "true", "false"):
        yield Problem(f"BACKEND_INTERNAL={value} is neither true nor false", "correct .env")


def folder_or_volume() -> Iterator[Problem]:
    """Compose takes a name without a slash for a volume, whatever lies beside it."""
    name = compose.setting("CERTIFICATES")
    if name and "/" not in name and (ROOT / name).is_dir():
        yield Problem(
            f"CERTIFICATES={name} names a Docker volume, and not the folder {name} here",
            f"write CERTIFICATES=./{name}, or rename the folder",
        )


def settings() -> Iterator[Problem]:
    """No setting needs more than another one allows."""
    if found := limits.problem(compose.config()):
        yield Problem(*found)


def images() -> Iterator[Problem]:
    """A base image that has no fallback is reachable, unless its service is optional.

    Only the first is reported, before other problems: nobody repairs a machine for nothing.
    """
    for service, its in compose.base_images().items():
        for variable, image in its.items():
            # As images/base-images.sh finds it.
            fallback_image = ROOT / "images" / variable.removesuffix("_IMAGE").lower()
            if not (fallback_image.is_dir() or build.is_optional(service) or can_be_had(image)):
                yield Problem(*build.out_of_reach(service, image))
                return


def can_be_had(image: str) -> bool:
    """Pulled only where nothing else tells: the engine may know a way that the client does not."""
    commands = [["image", "inspect"]]
    if compose.setting("BASE_IMAGES") != "debian":
        commands += [["manifest", "inspect"], ["pull", "--quiet"]]
    return any(run("docker", *command, image).returncode == 0 for command in commands)


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


def certificates() -> Iterator[Problem]:
    """nginx's container sees the folder that CERTIFICATES names, and nothing outside of it."""
    for mount in compose.config()["services"]["nginx"].get("volumes", []):
        if mount["target"] != "/etc/nginx/certificates" or mount["type"] != "bind":
            continue
        folder = Path(mount["source"])
        try:
            if not (compose.engine_is_local() and folder.stat()):
                continue
        except PermissionError:
            # The container's user may still enter it.
            continue
        except OSError as error:
            yield Problem(
                f"CERTIFICATES: {folder}: {error.strerror}",
                "put fullchain.pem and privkey.pem there, or leave CERTIFICATES empty",
            )
            continue
        for file in ("fullchain.pem", "privkey.pem"):
            target = Path(os.path.realpath(folder / file))
            if not target.is_relative_to(os.path.realpath(folder)):
                yield Problem(
                    f"CERTIFICATES: {folder / file} is a link to {target}, outside of that folder",
                    "copy both files into a folder of their own; certbot: docs/certificates.md",
                )
                break


def build_secrets() -> Iterator[Problem]:
    """Files that a build needs; by default they are empty."""
    for variable in ("CA_CERTIFICATES", "PIP_CONFIG"):
        file = compose.config()["secrets"].get(variable.lower(), {}).get("file")
        if file and not Path(file).exists():
            yield Problem(f"{variable}: {file} does not exist", f"correct or remove {variable}")


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


def registry() -> Iterator[Problem]:
    """Only a problem where fallback images are forbidden: otherwise `make up` builds them."""
    if compose.setting("BASE_IMAGES") != "registry":
        return
    missing = [
        image
        for service, images in compose.base_images().items()
        for image in images.values()
        if not build.is_optional(service)
        and run("docker", "image", "inspect", image).returncode
        and run("docker", "manifest", "inspect", image).returncode
    ]
    if missing:
        yield Problem(
            f"no registry gives {', '.join(missing)}, and BASE_IMAGES=registry allows no fallback",
            "check the network and docker login, or type: make up BASE_IMAGES=auto",
        )


# Each group needs the one before it to be without problems.
BEFORE_ENGINE = [[line_ends, dotenv], [remembered_addons]]
BEFORE_BUILD = [*BEFORE_ENGINE, [engine, plugins], [configuration], [folder_or_volume, way_out]]
BEFORE_START = [*BEFORE_BUILD, [settings]]
GROUPS = [
    *BEFORE_START,
    [images],
    [ports, certificates, build_secrets, disk, memory, programs, kernel, registry],
]


def problems(groups: list[list] = GROUPS, verbose: bool = False) -> list[Problem]:
    """Run the groups of checks, up to the first group with a problem."""
    for group in groups:
        found = []
        for check in group:
            its = list(check())
            found += its
            if verbose and not its:
                print(f"ok     {check.__name__.replace('_', ' ')}")
        if found:
            return found
    return []


def require(groups: list[list]) -> None:
    """End with a line for each problem, before anything is done that it would spoil."""
    found = problems(groups)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    if found:
        sys.exit(1)


def main() -> None:
    addons.choose()
    found = problems(verbose=True)
    for problem in found:
        print(f"error: {problem}", file=sys.stderr)
    for problem in [] if found else unread_settings():
        print(f"warning: {problem}", file=sys.stderr)
    sys.exit(1 if found else 0)
