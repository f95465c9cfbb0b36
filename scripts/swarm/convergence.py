"""Waiting until services are what is wanted, or have failed.

`docker stack deploy` only hands in what is wanted, and ends with 0 whatever comes of it. Swarm then
replaces task by task; when one fails it puts the old version back, and says so in UpdateStatus.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

from scripts.compose import last_error_line, run
from scripts.messages import NoResponseError, say, show_log
from scripts.polling import attempts
from scripts.swarm import cluster, specs

# UpdateStatus.State once Swarm has given up on a version.
ROLLED_BACK = {"rollback_completed"}
STUCK = {"paused", "rollback_paused"}
# Seconds. nginx is brought back node by node, with a pause after each, whatever DEPLOY_TIMEOUT is.
ROLLBACK_WITHIN = 600
# Task states in which it will not run any more, although nobody wanted that. (Those that an update
# ends are "shutdown".)
FAILED = {"failed", "rejected", "orphaned", "complete"}
# DEPLOY_TIMEOUT is for so many tasks of a service, which are replaced one by one. Each more takes
# the stack file's delay, and some seconds to stop and to start.
TASKS, EACH = 10, 45
# Swarm tries again and again; where there is no update to be rolled back, so often is enough.
FAILURES_ALLOWED = 3


class NotServingError(Exception):
    """A service did not become what was wanted."""


@dataclass
class State:
    """What a service is doing now."""

    name: str
    version: str
    wanted: int
    running: int = 0  # tasks of the version that is wanted, healthy
    others: int = 0  # tasks of other versions, or on their way
    update: str = ""
    # Tasks of the version that is wanted, newest first.
    failures: list[dict] = field(default_factory=list)
    waits_for: str = ""  # why a task is not even tried

    @property
    def settled(self) -> bool:
        """All is as wanted, whichever version that may be by now, and nothing is under way."""
        under_way = self.update in ("updating", "rollback_started")
        return self.running == self.wanted and not self.others and not under_way

    def __str__(self) -> str:
        words = f"{self.name}: {self.running} of {self.wanted} run {self.version}"
        return words + "".join(
            f", {part}" for part in (self.update.replace("_", " "), self.waits_for) if part
        )


def service_state(name: str, service: dict, before: frozenset[str] = frozenset()) -> State:
    """before: what `snapshot_ids` gave then, which is left out."""
    mode = service["Spec"]["Mode"]
    wanted = mode["Replicated"]["Replicas"] if "Replicated" in mode else cluster.nodes()
    state = State(name, cluster.version(cluster.template(service)), wanted)
    update = service.get("UpdateStatus") or {}
    if update.get("StartedAt") not in before:
        state.update = update.get("State", "")
    for task in sorted(cluster.tasks(service), key=lambda task: task["CreatedAt"], reverse=True):
        current = specs.same_spec(task["Spec"], cluster.template(service))
        status = task["Status"]
        if task["DesiredState"] in ("running", "ready"):
            if current and status["State"] == "running":
                state.running += 1
            else:
                state.others += 1
            if status["State"] == "pending":
                state.waits_for = status.get("Err") or status.get("Message", "")
        if current and status["State"] in FAILED and task["ID"] not in before:
            state.failures.append(task)
    return state


def snapshot_ids() -> frozenset[str]:
    """The tasks that there are, by their ids, and the updates, by their beginnings: what comes of
    them is not to be taken for what comes of a deploy that begins now."""
    strings = set()
    for service in cluster.services().values():
        strings |= {task["ID"] for task in cluster.tasks(service)}
        strings.add((service.get("UpdateStatus") or {}).get("StartedAt"))
    return frozenset(strings - {None})


def wait_converged(
    seconds: float,
    hold: float,
    before: frozenset[str],
    allowed: set[str],
    of: Collection[str],
) -> None:
    """Show progress until services have been what is wanted for `hold` seconds.

    before: what `snapshot_ids` gave then; allowed: final states of an update that are no failure
    here; of: the services that count. Raises NotServingError.
    """
    since, seen, said = None, {}, {}
    limit = seconds
    for passed in attempts(math.inf):
        try:
            found = cluster.services().items()
            states = [service_state(name, it, before) for name, it in found if name in of]
        except NoResponseError as error:
            if passed > limit:
                raise NotServingError(f"nobody knows: {error}") from None
            continue
        if not states:
            raise NotServingError("the services were removed meanwhile")
        limit = seconds + EACH * max(0, *(state.wanted - TASKS for state in states))
        for state in states:
            # What lasts, and not each step of a task that ends and starts again.
            if str(state) == seen.get(state.name) != said.get(state.name):
                said[state.name] = str(state)
                say(f"  {state}")
            seen[state.name] = str(state)
            if state.update in (ROLLED_BACK | STUCK) - allowed:
                how = state.update.replace("_", " ")
                raise NotServingError(f"{state.name}: Swarm gave up on it ({how})")
            if not state.update and len(state.failures) >= FAILURES_ALLOWED:
                why = f"{len(state.failures)} tasks failed; {reason(state.failures[0])}"
                raise NotServingError(f"{state.name}: {why}")
        if all(state.settled for state in states):
            since = passed if since is None else since
            if passed - since >= hold:
                return
        else:
            since = None
        if passed > limit:
            late = next((state for state in states if not state.settled), states[0])
            raise NotServingError(f"{late.name}: not within {limit:.0f} s: {late}")


def reason(task: dict) -> str:
    """Why a task failed, in Swarm's words."""
    status = task["Status"]
    if status["State"] == "complete":
        return "it ended with exit code 0, or was ended because it was not healthy"
    return status.get("Err") or status.get("Message") or status["State"]


def show_last_failure(before: frozenset[str]) -> None:
    """Show why the newest task failed that there was not before, and its last lines."""
    failed = [
        task
        for service in cluster.services().values()
        for task in cluster.tasks(service)
        if task["Status"]["State"] in FAILED and task["ID"] not in before
    ]
    if failed:
        newest = max(failed, key=lambda task: task["CreatedAt"])
        logs = run("docker", "service", "logs", "--raw", "--tail", "50", newest["ID"])
        show_log(logs.stdout + logs.stderr)
        say(f"  {cluster.version(newest['Spec'])}: {reason(newest)}")


def roll_back(names: list[str], seconds: float, of: Collection[str]) -> None:
    """Bring back what these services were, and wait until those of `of` run.

    Raises NotServingError.
    """
    stack, before = cluster.stack_name(), snapshot_ids()
    answers = {
        name: run("docker", "service", "rollback", "--detach", f"{stack}_{name}") for name in names
    }
    failed = [f"{name}: {last_error_line(it)}" for name, it in answers.items() if it.returncode]
    if failed:
        raise NotServingError("; ".join(failed))
    wait_converged(seconds, 0, before, allowed=ROLLED_BACK, of=of)
