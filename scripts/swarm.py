"""What the scripts ask of Docker Swarm, and how they judge what came of a deploy or a rollback.

`docker stack deploy` only hands in what is wanted, and ends with 0 whatever comes of it. Swarm then
replaces task by task; when one fails it puts the old version back, and says so in UpdateStatus.
https://docs.docker.com/reference/api/engine/version/v1.51/#tag/Service
"""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from scripts import compose, doctor
from scripts.compose import last_words, run
from scripts.messages import NoAnswerError, die, say, show_log

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


def stack_name() -> str:
    return compose.config()["name"]


def require_manager(on_one_host: str = "make up") -> None:
    """End with one line unless the engine is a manager of a Swarm."""
    doctor.require([[doctor.dotenv], [doctor.engine], [doctor.configuration]])
    info = run("docker", "info", "--format", "{{json .Swarm}}")
    swarm = json.loads(info.stdout or "null") or {}
    if swarm.get("LocalNodeState") != "active":
        die(
            "this engine is in no Swarm",
            f"{on_one_host}, which is for one host; or docs/swarm.md; or make swarm, to try one on",
        )
    if not swarm.get("ControlAvailable"):
        die("this node is a worker of its Swarm", "type it on a manager")


def inspect(kind: str, ids: list[str]) -> list[dict]:
    if not ids:
        return []
    # What has gone since it was listed is left out, with an exit code that says so.
    return json.loads(run("docker", "inspect", f"--type={kind}", *ids).stdout or "[]")


def timeout() -> int:
    """DEPLOY_TIMEOUT, in seconds."""
    text = compose.setting("DEPLOY_TIMEOUT") or "600"
    if not text.isdigit():
        die(f"DEPLOY_TIMEOUT: {text!r} is no number of seconds", "write DEPLOY_TIMEOUT=600")
    return int(text)


def services() -> dict[str, dict]:
    """The stack's services by their short names, as the engine describes them.

    Raises NoAnswerError.
    """
    stack = stack_name()
    ours = f"label=com.docker.stack.namespace={stack}"
    listed = run("docker", "service", "ls", "--quiet", "--filter", ours)
    if listed.returncode:
        raise NoAnswerError(f"docker service ls: {last_words(listed)}")
    found = inspect("service", listed.stdout.split())
    return {service["Spec"]["Name"].removeprefix(f"{stack}_"): service for service in found}


def tasks(service: dict) -> list[dict]:
    """Its tasks, of which Swarm remembers some that have ended."""
    listed = run("docker", "service", "ps", "--quiet", "--no-trunc", service["ID"])
    return inspect("task", listed.stdout.split())


def template(service: dict) -> dict:
    """What its tasks are to be; when that changes, Swarm replaces them."""
    return service["Spec"]["TaskTemplate"]


def monitor(service: dict) -> float:
    """For how many seconds Swarm watches a new task (UPDATE_MONITOR)."""
    return service["Spec"]["UpdateConfig"].get("Monitor", 0) / 1e9


def container(task: dict) -> dict:
    """The container that a task's specification wants, to compare with another's."""
    # What the engine fills in for a service that does not say it, and not for its tasks, nor for
    # what it was before.
    return {"StopGracePeriod": 10_000_000_000} | without_empty(task["ContainerSpec"])


def same(one: dict, other: dict) -> bool:
    """Do two tasks' specifications want the same containers?"""
    forced = one.get("ForceUpdate") == other.get("ForceUpdate")
    return forced and container(one) == container(other)


def other_before(service: dict) -> bool:
    """Would a rollback bring back anything but another number of the same tasks?

    That is all there is before a service that was scaled, or forced to replace its tasks.
    """

    def essence(spec: dict) -> dict:
        task = spec["TaskTemplate"]
        task = without_empty(task) | {"ForceUpdate": 0, "ContainerSpec": container(task)}
        return without_empty(spec) | {"Mode": None, "TaskTemplate": task}

    spec = service["Spec"]
    return essence(service.get("PreviousSpec") or spec) != essence(spec)


def without_empty(value: object) -> object:
    """A specification to compare with another, in which an empty field may be absent."""
    if not isinstance(value, dict):
        return value
    parts = {key: without_empty(part) for key, part in value.items()}
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
        if state == "updating" and other_before(service):
            die(f"an update of {name} is under way", "make status, make rollback")


def nodes() -> int:
    """Nodes that run a task of a global service."""
    listed = run("docker", "node", "ls", "--format", "{{.Status}} {{.Availability}}")
    return len(
        [node for node in listed.stdout.splitlines() if node in ("Ready Active", "Ready Pause")]
    )


def version(spec: dict) -> str:
    """The tag of the image in a service's or a task's specification."""
    image = spec["ContainerSpec"]["Image"].partition("@")[0]
    return image.rpartition(":")[2]


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


def look(name: str, service: dict, before: frozenset[str] = frozenset()) -> State:
    """before: what `known` gave then, which is left out."""
    mode = service["Spec"]["Mode"]
    wanted = mode["Replicated"]["Replicas"] if "Replicated" in mode else nodes()
    state = State(name, version(template(service)), wanted)
    update = service.get("UpdateStatus") or {}
    if update.get("StartedAt") not in before:
        state.update = update.get("State", "")
    for task in sorted(tasks(service), key=lambda task: task["CreatedAt"], reverse=True):
        current = same(task["Spec"], template(service))
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


def pages(service: dict) -> str:
    """How a person sees the pages of a service that has some, at the ports in its label ui-port.

    They are on the bridge between the node and its tasks, which nobody else can reach.
    """
    ports = service["Spec"]["Labels"].get("ui-port", "").split()
    running = [task for task in tasks(service) if task["Status"]["State"] == "running"]
    if not ports or not running:
        return ""
    format_ = "{{.Description.Hostname}}"
    node = run("docker", "node", "inspect", "--format", format_, running[0]["NodeID"])
    container = running[0]["Status"]["ContainerStatus"]["ContainerID"]
    format_ = f'{{{{(index .Containers "{container}").IPv4Address}}}}'
    bridge = run("docker", "network", "inspect", "--format", format_, "docker_gwbridge")
    name, address = node.stdout.strip(), bridge.stdout.partition("/")[0].strip()
    if not address:
        return f"on {name}; typed there, make status says how to see it"
    urls = " ".join(f"http://{address}:{port}" for port in ports)
    tunnels = " ".join(f"-L {port}:{address}:{port}" for port in ports)
    return f"{urls} on {name}, or: ssh {tunnels} {name}"


def known() -> frozenset[str]:
    """The tasks that there are, by their ids, and the updates, by their beginnings: what comes of
    them is not to be taken for what comes of a deploy that begins now."""
    strings = set()
    for service in services().values():
        strings |= {task["ID"] for task in tasks(service)}
        strings.add((service.get("UpdateStatus") or {}).get("StartedAt"))
    return frozenset(strings - {None})


def wait(
    seconds: float,
    hold: float,
    before: frozenset[str],
    allowed: set[str],
    of: Collection[str],
) -> None:
    """Show progress until services have been what is wanted for `hold` seconds.

    before: what `known` gave then; allowed: final states of an update that are no failure here;
    of: the services that count. Raises NotServingError.
    """
    begin, since, seen, said = time.monotonic(), None, {}, {}
    limit = seconds
    while True:
        try:
            found = services().items()
            states = [look(name, it, before) for name, it in found if name in of]
        except NoAnswerError as error:
            if time.monotonic() > begin + limit:
                raise NotServingError(f"nobody knows: {error}") from None
            time.sleep(0.5)
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
            since = since or time.monotonic()
            if time.monotonic() - since >= hold:
                return
        else:
            since = None
        if time.monotonic() > begin + limit:
            late = next((state for state in states if not state.settled), states[0])
            raise NotServingError(f"{late.name}: not within {limit:.0f} s: {late}")
        time.sleep(0.5)


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
        for service in services().values()
        for task in tasks(service)
        if task["Status"]["State"] in FAILED and task["ID"] not in before
    ]
    if failed:
        newest = max(failed, key=lambda task: task["CreatedAt"])
        logs = run("docker", "service", "logs", "--raw", "--tail", "50", newest["ID"])
        show_log(logs.stdout + logs.stderr)
        say(f"  {version(newest['Spec'])}: {reason(newest)}")


def roll_back(names: list[str], seconds: float, of: Collection[str]) -> None:
    """Bring back what these services were, and wait until those of `of` run.

    Raises NotServingError.
    """
    stack, before = stack_name(), known()
    answers = {
        name: run("docker", "service", "rollback", "--detach", f"{stack}_{name}") for name in names
    }
    failed = [f"{name}: {last_words(it)}" for name, it in answers.items() if it.returncode]
    if failed:
        raise NotServingError("; ".join(failed))
    wait(seconds, 0, before, allowed=ROLLED_BACK, of=of)


def remove_old_secrets() -> None:
    """Remove the stack's secrets that neither its services nor a rollback of them would use."""
    used = {
        secret["SecretName"]
        for service in services().values()
        for spec in (service["Spec"], service.get("PreviousSpec") or {})
        for secret in spec.get("TaskTemplate", {}).get("ContainerSpec", {}).get("Secrets") or []
    }
    ours = f"label=com.docker.stack.namespace={stack_name()}"
    listed = run("docker", "secret", "ls", "--filter", ours, "--format", "{{.Name}}").stdout.split()
    for name in listed:
        # One that a task on its way out still uses goes with the next deploy.
        if name not in used and run("docker", "secret", "rm", name).returncode == 0:
            say(f"removed the secret {name}, which nothing uses any more")
