"""Compose's files and Swarm's, read side by side: those of the core, and those of add-ons."""

import re

import yaml
from clone import ROOT


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_bytes())


def differing(compose: dict, stack: dict) -> set[str]:
    """The facts, by their dotted names, in which some service differs."""
    return {key for _, key, _ in facts(compose) ^ facts(stack)}


def facts(file: dict) -> set[tuple[str, str, str]]:
    """What is said of each service by dotted names, resource limits by those of Compose."""
    found = set()
    for name, service in file["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        named = {"mem_limit": limits.get("memory"), "pids_limit": limits.get("pids")}
        for key, value in (service | {k: v for k, v in named.items() if v}).items():
            parts = value.items() if key == "environment" else [("", value)]
            found |= {(name, f"{key}.{part}".rstrip("."), str(content)) for part, content in parts}
    return found


def tmpfs_in_compose(service: dict) -> dict[str, int]:
    """Folders in memory, and how many bytes they hold."""
    sizes = {}
    for line in service.get("tmpfs", []):
        target, megabytes = re.search(r"^(\S+):size=(?:\$\{\w+:-)?(\d+)m", line).groups()
        sizes[target] = int(megabytes) * 1024**2
    return sizes


def tmpfs_in_stack(service: dict) -> dict[str, int]:
    volumes = [volume for volume in service.get("volumes", []) if "tmpfs" in volume]
    return {volume["target"]: volume["tmpfs"]["size"] for volume in volumes}


def defaults(name: str) -> dict[str, str]:
    """The variables of a file that have one."""
    return dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (ROOT / name).read_text()))


def explained() -> set[str]:
    """The variables of .env.example."""
    text = (ROOT / ".env.example").read_text()
    return set(re.findall(r"^# ([A-Z_]+)=", text, re.MULTILINE))


def user(dockerfile: str) -> str:
    """The one that its image runs as."""
    return re.findall(r"^USER (\d+)", (ROOT / dockerfile).read_text(), re.MULTILINE)[-1]
