"""What the Swarm has and runs of this stack.

https://docs.docker.com/reference/api/engine/version/v1.51/#tag/Service
"""

import json
from collections.abc import Collection

from scripts import compose, doctor
from scripts.compose import last_error_line, run
from scripts.containers import inspect
from scripts.messages import NoResponseError, fail


def stack_name() -> str:
    return compose.config()["name"]


def require_manager(on_one_host: str = "make up") -> None:
    """End with one line unless the engine is a manager of a Swarm."""
    doctor.require([[doctor.dotenv], [doctor.engine], [doctor.configuration]])
    info = run("docker", "info", "--format", "{{json .Swarm}}")
    swarm = json.loads(info.stdout or "null") or {}
    if swarm.get("LocalNodeState") != "active":
        fail(
            "this engine is in no Swarm",
            f"{on_one_host}, which is for one host; or docs/swarm.md;"
            " or make swarm-init, to try one on",
        )
    if not swarm.get("ControlAvailable"):
        fail("this node is a worker of its Swarm", "type it on a manager")


def timeout() -> int:
    """DEPLOY_TIMEOUT, in seconds."""
    text = compose.setting("DEPLOY_TIMEOUT") or "600"
    if not text.isdigit():
        fail(f"DEPLOY_TIMEOUT: {text!r} is no number of seconds", "write DEPLOY_TIMEOUT=600")
    return int(text)


def services() -> dict[str, dict]:
    """The stack's services by their short names, as the engine describes them.

    Raises NoResponseError.
    """
    stack = stack_name()
    ours = f"label=com.docker.stack.namespace={stack}"
    listed = run("docker", "service", "ls", "--quiet", "--filter", ours)
    if listed.returncode:
        raise NoResponseError(f"docker service ls: {last_error_line(listed)}")
    found = inspect(listed.stdout.split(), "service")
    return {service["Spec"]["Name"].removeprefix(f"{stack}_"): service for service in found}


def tasks(service: dict) -> list[dict]:
    """Its tasks, of which Swarm remembers some that have ended."""
    listed = run("docker", "service", "ps", "--quiet", "--no-trunc", service["ID"])
    return inspect(listed.stdout.split(), "task")


def template(service: dict) -> dict:
    """What its tasks are to be; when that changes, Swarm replaces them."""
    return service["Spec"]["TaskTemplate"]


def monitor(service: dict) -> float:
    """For how many seconds Swarm watches a new task (UPDATE_MONITOR)."""
    return service["Spec"]["UpdateConfig"].get("Monitor", 0) / 1e9


def nodes() -> int:
    """Nodes that run a task of a global service."""
    listed = run("docker", "node", "ls", "--format", "{{.Status}} {{.Availability}}")
    return sum(node in ("Ready Active", "Ready Pause") for node in listed.stdout.splitlines())


def version(spec: dict) -> str:
    """The tag of the image in a service's or a task's specification."""
    image = spec["ContainerSpec"]["Image"].partition("@")[0]
    return image.rpartition(":")[2]


def format_versions(tags: dict[str, str]) -> str:
    """Services and their versions, as 'app 1.1, nginx 1.0'."""
    return ", ".join(f"{name} {tag}" for name, tag in sorted(tags.items()))


def serving_versions(names: Collection[str]) -> str:
    """The versions of these services, as the Swarm has them."""
    found = services().items()
    return format_versions({name: version(template(it)) for name, it in found if name in names})
