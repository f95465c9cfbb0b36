"""`make swarm-undeploy`"""

from scripts.compose import last_error_line, run
from scripts.messages import fail, say
from scripts.polling import attempts
from scripts.swarm import cluster


def main() -> None:
    """Remove the stack, and wait until nothing of it is left."""
    cluster.require_manager("make down")
    stack = cluster.stack_name()
    if not cluster.services() and not networks(stack):
        say(f"{stack} is not deployed")
        return
    answer = run("docker", "stack", "rm", stack)
    if answer.returncode:
        fail(f"docker stack rm: {last_error_line(answer)}", "make swarm-undeploy")
    # Networks go when the last task has gone on every node; until then their names are taken.
    for _ in attempts(90):
        if not (left := networks(stack)):
            say(f"removed {stack} from the Swarm; images and volumes stay")
            return
    fail(f"{len(left)} networks of {stack} are still there", "make swarm-undeploy")


def networks(stack: str) -> list[str]:
    ours = f"label=com.docker.stack.namespace={stack}"
    return run("docker", "network", "ls", "--quiet", "--filter", ours).stdout.split()
