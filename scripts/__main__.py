"""`python3 -m scripts COMMAND`, in the project's root: what the Makefile's targets run."""

import sys
from importlib import import_module

from scripts.messages import NoAnswerError, die

# Each command's module and function, and what to type when it was interrupted.
COMMANDS = {
    "up": ("up", "main", "make up"),
    "release": ("release", "main", "make ps, then: make release, or make up"),
    "release-rollback": ("release", "back", "make ps, then: make release, or make up"),
    "replay": ("replay", "main", "type it again: what has arrived already does no harm"),
    "clean": ("clean", "main", "make clean"),
    "doctor": ("doctor", "main", "make doctor"),
    "swarm": ("stack", "init", "make swarm"),
    "deploy": ("deploy", "main", "make status"),
    "deploy-environment": ("deploy", "print_environment", "make deploy-environment"),
    "rollback": ("stack", "rollback", "make status"),
    "status": ("stack", "status", "make status"),
    "undeploy": ("stack", "undeploy", "make undeploy"),
}


def main() -> None:
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in COMMANDS:
        die(f"no command {command!r}", f"choose among: {' '.join(COMMANDS)}")
    module, function, after_interrupt = COMMANDS[command]
    try:
        getattr(import_module(f"scripts.{module}"), function)()
    except (KeyboardInterrupt, BrokenPipeError):
        die("interrupted", after_interrupt)
    except NoAnswerError as error:
        die(str(error), "make status")


main()
