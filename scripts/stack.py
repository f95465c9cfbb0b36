"""`make swarm`, `make status`, `make rollback`, `make undeploy`."""

import sys
import time

from scripts import swarm
from scripts.compose import last_words, run
from scripts.messages import die, say


def init() -> None:
    """Make this machine a Swarm of one node, to try on."""
    if run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").stdout.strip() != "active":
        # Nobody is to join: docs/swarm.md has the command for several machines.
        answer = run("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
        if answer.returncode:
            die(f"docker swarm init: {last_words(answer)}", "docs/swarm.md")
    swarm.require_manager()
    say("this machine is a manager of a Swarm; next: make deploy")
    say("to undo: docker swarm leave --force, and restart what runs in Compose (docs/swarm.md)")


def status() -> None:
    """What runs where, in which version, and what failed last. Exit code 1 unless all is well."""
    swarm.require_manager("make ps")
    services = swarm.services()
    states = [swarm.look(*item) for item in services.items()]
    if not states:
        die(f"{swarm.stack_name()} is not deployed", "make deploy")
    for state in states:
        say(str(state))
        for task in state.failures[:3]:
            say(f"  failed at {task['UpdatedAt'][:19]}: {swarm.reason(task)}")
    columns = "table {{.Name}}\t{{.Image}}\t{{.Node}}\t{{.CurrentState}}\t{{.Error}}"
    tasks = ["docker", "stack", "ps", "--filter", "desired-state=running", "--format", columns]
    say(run(*tasks, swarm.stack_name()).stdout.rstrip())
    for name, service in services.items():
        if pages := swarm.pages(service):
            say(f"{name}: {pages}")
    sys.exit(0 if all(state.settled for state in states) else 1)


def rollback() -> None:
    """Bring back what the last deploy replaced: image, settings and secrets."""
    swarm.require_manager("make release-rollback")
    services, timeout = swarm.services(), swarm.timeout()
    other = [name for name, service in services.items() if swarm.other_before(service)]
    changed = [name for name in other if not swarm.was_rolled_back(services[name])]
    if not changed:
        die(
            f"{' and '.join(other)}: rolled back already, and Swarm knows only one version before"
            if other
            else "Swarm knows no other version: nothing is deployed, or nothing was changed",
            "git checkout VERSION && make deploy",
        )
    for name in changed:
        now, then = (services[name][key]["TaskTemplate"] for key in ("Spec", "PreviousSpec"))
        now, then = swarm.version(now), swarm.version(then)
        say(f"{name} {now} -> {then if then != now else 'its settings and secrets of before'}")
    try:
        swarm.roll_back(changed, timeout, of=changed)
    except swarm.NotServingError as failure:
        die(str(failure), "make status")
    for name, service in swarm.services().items():
        say(f"{name} {swarm.version(swarm.template(service))} serves")


def undeploy() -> None:
    """Remove the stack, and wait until nothing of it is left."""
    swarm.require_manager("make down")
    stack = swarm.stack_name()
    if not swarm.services() and not networks(stack):
        say(f"{stack} is not deployed")
        return
    answer = run("docker", "stack", "rm", stack)
    if answer.returncode:
        die(f"docker stack rm: {last_words(answer)}", "make undeploy")
    # Networks go when the last task has gone on every node; until then their names are taken.
    deadline = time.monotonic() + 90
    while left := networks(stack):
        if time.monotonic() > deadline:
            die(f"{len(left)} networks of {stack} are still there", "make undeploy")
        time.sleep(0.5)
    say(f"removed {stack} from the Swarm; images and volumes stay")


def networks(stack: str) -> list[str]:
    ours = f"label=com.docker.stack.namespace={stack}"
    return run("docker", "network", "ls", "--quiet", "--filter", ours).stdout.split()
