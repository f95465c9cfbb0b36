"""This project's containers, as the engine describes them."""

import json
from datetime import datetime, timezone
from pathlib import Path

from scripts import compose
from scripts.compose import run


def ids(*options: str, service: str = "") -> list[str]:
    """Running containers of the service, or of all; with "--all" those that do not run, too."""
    named = filter(None, [service])
    return run("docker", "compose", "ps", "--quiet", "--no-trunc", *options, *named).stdout.split()


def inspect(ids: list[str], kind: str = "container") -> list[dict]:
    """What has gone since it was listed is left out."""
    if not ids:
        return []
    return json.loads(run("docker", "inspect", f"--type={kind}", *ids).stdout or "[]")


def settings(container: dict) -> dict[str, str]:
    return dict(line.split("=", 1) for line in container["Config"]["Env"])


def with_old_secrets(containers: list[str], service: str = "app") -> list[str]:
    """Those of the service that were started before one of its secrets was changed.

    Compose does not count the content of secrets among what makes a container another one.
    """
    if not containers:
        return []
    files = [
        Path(compose.config()["secrets"][secret["source"]]["file"])
        for secret in compose.config()["services"][service].get("secrets", [])
    ]
    changed = max((file.stat().st_mtime for file in files), default=0)
    changed_at = datetime.fromtimestamp(changed, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return [it["Id"] for it in inspect(containers) if it["State"]["StartedAt"] < changed_at]


def in_compose_or_swarm(service: str, *options: str) -> list[str]:
    """Those of this project on this machine, in Compose or in Swarm."""
    name = compose.config()["name"]
    labels = (
        (f"com.docker.compose.project={name}", f"com.docker.compose.service={service}"),
        (f"com.docker.swarm.service.name={name}_{service}",),
    )
    return [
        container
        for filters in labels
        for container in run(
            *("docker", "ps", "--quiet", *options),
            *(f"--filter=label={label}" for label in filters),
        ).stdout.split()
    ]
