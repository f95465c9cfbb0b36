"""`make swarm-init`"""

from scripts.compose import last_error_line, run
from scripts.messages import fail, say
from scripts.swarm import cluster


def main() -> None:
    """Make this machine a Swarm of one node, to try on."""
    if run("docker", "info", "--format", "{{.Swarm.LocalNodeState}}").stdout.strip() != "active":
        # Nobody is to join: docs/swarm.md has the command for several machines.
        answer = run("docker", "swarm", "init", "--advertise-addr", "127.0.0.1")
        if answer.returncode:
            fail(f"docker swarm init: {last_error_line(answer)}", "docs/swarm.md")
    cluster.require_manager()
    say("this machine is a manager of a Swarm; next: make swarm-deploy")
    say("to undo: docker swarm leave --force, and restart what runs in Compose (docs/swarm.md)")
