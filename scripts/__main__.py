"""`python3 -m scripts COMMAND`, in the project's root: what the Makefile's targets run."""

import sys
from importlib import import_module

from scripts.messages import NoResponseError, fail

# Each command's module and function, and what to type when it was interrupted.
COMMANDS = {
    "up": ("up", "main", "make up"),
    "release": ("release", "main", "make ps, then: make release, or make up"),
    "release-rollback": ("release", "back", "make ps, then: make release, or make up"),
    "replay": ("replay", "main", "type it again: what has arrived already does no harm"),
    "clean": ("clean", "main", "make clean"),
    "doctor": ("doctor", "main", "make doctor"),
    "swarm-init": ("swarm.init", "main", "make swarm-init"),
    "swarm-deploy": ("swarm.deploy", "main", "make swarm-status"),
    "swarm-deploy-environment": (
        "swarm.deploy",
        "print_environment",
        "make swarm-deploy-environment",
    ),
    "swarm-rollback": ("swarm.rollback", "main", "Swarm goes on; make swarm-status"),
    "swarm-status": ("swarm.status", "main", "make swarm-status"),
    "swarm-undeploy": ("swarm.undeploy", "main", "Swarm goes on; make swarm-undeploy"),
}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in COMMANDS:
        fail(f"no command {command!r}", f"choose among: {' '.join(COMMANDS)}")
    module, function, after_interrupt = COMMANDS[command]
    try:
        getattr(import_module(f"scripts.{module}"), function)()
    except KeyboardInterrupt:
        fail("interrupted", after_interrupt)
    except BrokenPipeError:
        fail("what should read the output has ended", after_interrupt)
    except NoResponseError as error:
        fail(str(error), "make swarm-status")


main()
