"""What the scripts ask of Docker and Compose."""

import functools
import json
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's root and give back what it printed, as text."""
    options = {"capture_output": True, "text": True, "cwd": ROOT, **options}
    try:
        return subprocess.run(command, check=False, **options)  # noqa: S603 (no shell, our own words)
    except FileNotFoundError:
        # As a shell has it.
        return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: command not found")


def last_error_line(answer: subprocess.CompletedProcess[str]) -> str:
    """The last line of what a command said went wrong."""
    return (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]


# Once, because each question takes Compose 0.15 s; .env does not change while a script runs.
@functools.cache
def config() -> dict:
    """The project as Compose sees it: .env read, variables filled in.

    Raises ValueError with Compose's own words where a file or a variable is wrong.
    """
    answer = run("docker", "compose", "config", "--format", "json")
    if answer.returncode:
        raise ValueError(last_error_line(answer))
    return json.loads(answer.stdout)


def use(files: list[str]) -> None:
    """Let Compose read these files from now on, in place of those it was told before."""
    os.environ["COMPOSE_FILE"] = os.pathsep.join(files)
    config.cache_clear()


def dockerfiles() -> dict[str, Path]:
    """The Dockerfile of each service, add-ons that are switched on included."""
    services = config()["services"].items()
    builds = {name: service["build"] for name, service in services if "build" in service}
    return {name: Path(build["context"], build["dockerfile"]) for name, build in builds.items()}


def base_images() -> dict[str, dict[str, str]]:
    """The base images that each service's Dockerfile pins, by the variables that name them."""
    pins = re.compile(r"^ARG ([A-Z_]+_IMAGE)=(.+)$", re.MULTILINE)
    return {name: dict(pins.findall(file.read_text())) for name, file in dockerfiles().items()}


@functools.cache
def from_dotenv() -> dict[str, str]:
    answer = run("docker", "compose", "config", "--environment")
    pairs = (line.partition("=") for line in answer.stdout.splitlines())
    return {key: value for key, _, value in pairs}


def environment() -> dict[str, str]:
    """All variables as Compose has them: the environment's, and those of .env."""
    return from_dotenv() | os.environ


def setting(name: str) -> str:
    """A variable from the environment or, as Compose has it, from .env; empty if in neither."""
    return environment().get(name, "")


def changed_networks() -> list[str]:
    """Those that exist with other options: of another version, or of another BACKEND_INTERNAL.

    Compose makes such a network again, and connects the containers without the names of their
    services (seen with 2.40.3): nobody finds the application then.
    """
    wanted = {
        it["name"]: [it.get("internal", False), it.get("driver_opts", {})]
        for it in config()["networks"].values()
    }
    format_ = "--format=[{{json .Name}}, {{json .Internal}}, {{json .Options}}]"
    # An empty line for each that does not exist.
    lines = run("docker", "network", "inspect", format_, *wanted).stdout.splitlines()
    found = (json.loads(line) for line in lines if line)
    # The engine may add options (default-network-opts in its daemon.json).
    return [
        name
        for name, internal, options in found
        if wanted[name][0] != internal or wanted[name][1].items() - options.items()
    ]


@functools.cache
def engine_info() -> dict:
    """What the engine says of itself and its machine; empty when none answers."""
    answer = run("docker", "info", "--format", "{{json .}}")
    return json.loads(answer.stdout) if answer.returncode == 0 else {}


@functools.cache
def engine_is_local() -> bool:
    """Does the engine run on this machine, so that its ports and disk can be looked at?"""
    answer = run("docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}")
    return os.environ.get("DOCKER_HOST", answer.stdout.strip()).startswith("unix://")
