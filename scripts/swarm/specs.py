"""Comparing what services are to be with what they were."""

from scripts.messages import fail


def container_spec(task: dict) -> dict:
    """The container that a task's specification wants, to compare with another's."""
    # What the engine fills in for a service that does not say it, and not for its tasks, nor for
    # what it was before.
    return {"StopGracePeriod": 10_000_000_000} | drop_empty(task["ContainerSpec"])


def same_spec(one: dict, other: dict) -> bool:
    """Do two tasks' specifications want the same containers?"""
    forced = one.get("ForceUpdate") == other.get("ForceUpdate")
    return forced and container_spec(one) == container_spec(other)


def rollback_would_change(service: dict) -> bool:
    """Would a rollback bring back anything but another number of the same tasks?

    That is all there is before a service that was scaled, or forced to replace its tasks.
    """

    def essence(spec: dict) -> dict:
        task = spec["TaskTemplate"]
        task = drop_empty(task) | {"ForceUpdate": 0, "ContainerSpec": container_spec(task)}
        return drop_empty(spec) | {"Mode": None, "TaskTemplate": task}

    spec = service["Spec"]
    return essence(service.get("PreviousSpec") or spec) != essence(spec)


def drop_empty(value: object) -> object:
    """A specification to compare with another, in which an empty field may be absent."""
    if not isinstance(value, dict):
        return value
    parts = {key: drop_empty(part) for key, part in value.items()}
    return {key: part for key, part in parts.items() if part or part == 0}


def was_rolled_back(service: dict) -> bool:
    """Then what Swarm has as the version before is the one that was given up."""
    return (service.get("UpdateStatus") or {}).get("State", "").startswith("rollback")


def require_no_update(services: dict[str, dict]) -> None:
    """End while one is under way: Swarm would take what is unproven for the version to go back to.

    One that is paused may stay so for ever, and is what a deploy is to fix. One that was forced is
    of the same version, and a rollback is on its way to the version of before.
    """
    for name, service in services.items():
        state = (service.get("UpdateStatus") or {}).get("State")
        if state == "updating" and rollback_would_change(service):
            fail(f"an update of {name} is under way", "make swarm-status, make swarm-rollback")
