"""`make replay SINCE=… [UNTIL=…]`: send to Logstash once more what was logged.

Docker keeps that, for as long as its log files' limits and the containers last: it is the record
of truth, whatever became of Logstash meanwhile. What Elasticsearch has already is left as it is,
known by its event.id. In a Swarm every node has the lines of its own containers, so it has to be
typed on each.

SINCE and UNTIL are moments (2026-01-31T12:00:00Z) or how long ago (90m), as `docker logs` has it.
"""

import os
import subprocess

from scripts import doctor
from scripts.compose import last_error_line, run
from scripts.containers import in_compose_or_swarm
from scripts.messages import fail, say

SERVICES = ("nginx", "app")
SENDER = "app-log-forwarder"
HOW = "make replay SINCE=2h, or SINCE=2026-01-31T12:00:00Z UNTIL=2026-01-31T13:00:00Z"


def main() -> None:
    doctor.require([[doctor.dotenv], [doctor.engine, doctor.plugins], [doctor.configuration]])
    options = [
        f"--{name.lower()}={os.environ[name]}" for name in ("SINCE", "UNTIL") if name in os.environ
    ]
    if not os.environ.get("SINCE"):
        fail("SINCE is missing: what was written from when on?", HOW)
    senders = in_compose_or_swarm(SENDER)
    if not senders:
        fail(f"no {SENDER} runs here", "make up WITH=logging; in a Swarm, on a node of the stack")
    sources = [name for service in SERVICES for name in in_compose_or_swarm(service, "--all")]
    for source in sources:
        check = run("docker", "logs", "--tail=0", *options, source)
        if check.returncode:
            fail(f"docker logs: {last_error_line(check)}", HOW)
    say(f"sending what {len(sources)} containers have written")
    command = ["docker", "exec", "--interactive", senders[0], "python", "forwarder.py", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as sender:  # noqa: S603
        # What docker itself says is among the lines, as no line of nginx or the application.
        unread = [
            source
            for source in sources
            if run(
                *("docker", "logs", *options, source),
                capture_output=False,
                stdout=sender.stdin,
                stderr=subprocess.STDOUT,
            ).returncode
        ]
        sender.stdin.close()
    if sender.returncode:
        fail("not all has arrived", "look at Logstash (make ps; make logs), then type it again")
    if unread:
        fail(f"docker logs could not read all of {' '.join(unread)}", "make ps, then type it again")
    if stuck := [source for source in sources if stops_early(source)]:
        fail(
            f"docker logs stops in {' '.join(stuck)} at a line that a full disk cut short",
            "logstash/README.md says how to send what came after it",
        )


def stops_early(source: str) -> bool:
    """Docker says nothing of it (https://github.com/moby/moby/issues/53631), but finds the last
    line from the end of its file, while with a moment it reads from the beginning.
    """
    both = {"capture_output": False, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    last = run("docker", "logs", "--timestamps", "--tail=1", source, **both).stdout
    if not last:
        return False
    return not run("docker", "logs", f"--since={last.split()[0]}", source, **both).stdout
