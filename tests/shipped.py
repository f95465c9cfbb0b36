"""What becomes of each log line on its way to a receiver on this machine in the place of Logstash,
with Logstash's own certificate.
"""

import random
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime

import receiver as receivers
from clone import Clone, wait_until
from receiver import Receiver
from scrape import total

PORT = 5959
FORWARDERS = ("app-log-forwarder", "nginx-log-forwarder")


def moment() -> str:
    return datetime.now(UTC).isoformat()


class Shipped:
    """What became of each log line."""

    def __init__(self, stack: Clone, *, with_tls: bool = True):
        self.stack, self.entries, self.receiver = stack, [], None
        # This machine, on a network of this stack.
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        edge = f"{stack.name}_edge"
        answer = stack.run("docker", "network", "inspect", f"--format={gateway}", edge)
        self.address = answer.stdout.strip()
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if with_tls else None
        if not self.tls:
            return
        secrets = stack.folder / "secrets"
        self.tls.load_cert_chain(
            secrets / "logstash_certificate", secrets / "logstash_certificate_key"
        )

    def override(self, *services: str) -> dict:
        """What lets these services reach this machine as `logstash`; `backend` has no way out."""
        sender = {"extra_hosts": [f"logstash:{self.address}"], "networks": ["backend", "receiver"]}
        return {"services": dict.fromkeys(services, sender), "networks": {"receiver": {}}}

    def receive(self, behaviour=receivers.whole) -> Receiver:
        """From now on, in place of the receiver before, which is killed."""
        self.stop()
        self.receiver = Receiver(behaviour, PORT, self.tls, self.entries, self.address)
        return self.receiver

    def stop(self) -> None:
        if self.receiver:
            self.receiver.kill()
            self.receiver = None

    def start(self, *services: str) -> None:
        up = ("up", "--detach", "--no-build", "--wait")
        self.stack.compose(*up, *services)
        self.stack.compose("exec", "--no-TTY", "nginx", "upstream")

    def arrived(self) -> set[str]:
        return {entry["event"]["id"] for entry in list(self.entries)}

    def on_stdout(self) -> set[str]:
        lines = [*self.stack.log("app"), *self.stack.log("nginx")]
        return {line["event"]["id"] for line in lines}

    def missing(self) -> set[str]:
        return self.on_stdout() - self.arrived()

    def metrics(self, service: str) -> str:
        (text,) = self.stack.fetch("http://localhost:8000/metrics", service=service)
        return text

    def total(self, name: str) -> float:
        return sum(total(self.metrics(service), name) for service in FORWARDERS)

    def be_killed(self, kills: int, pause: float) -> None:
        """`pause`: seconds that each lives at most; it takes one until the senders try again."""
        for _ in range(kills):
            self.receive(receivers.slow)
            time.sleep(random.uniform(0, pause))
        self.receive()

    def replay(self, since: str) -> str:
        return self.stack.make("replay", f"SINCE={since}").stdout

    def check_once_each(self) -> None:
        """For Elasticsearch, which keeps one line of each id: what came again is the same."""
        seen = {}
        for entry in self.entries:
            line = {name: value for name, value in entry.items() if name != "tags"}
            assert seen.setdefault(line["event"]["id"], line) == line

    def dropped(self) -> float:
        return self.total("log_forwarder_lines_dropped_total")

    def settled(self, given_up: Callable[[], float] = lambda: 0, seconds: float = 60) -> None:
        """Every line has arrived, but for so many."""
        try:
            wait_until(lambda: len(self.missing()) == given_up(), seconds, "lines to arrive")
        except AssertionError as error:
            missing = self.missing()
            lines = [*self.stack.log("app"), *self.stack.log("nginx")]
            left = [line for line in lines if line["event"]["id"] in missing]
            raise AssertionError(f"{error}: {len(left)}, {left[:3]} to {left[-3:]}") from None
