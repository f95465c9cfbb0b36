"""The core as the logging room has it. Logstash's image is out of reach of machines without a
registry: in its place is a receiver on this machine.
"""

import pytest
import yaml
from clone import ROOT
from shipped import Shipped

# A fork that does not want the room deletes its folder.
collect_ignore_glob = [] if (ROOT / "logstash").exists() else ["test_*.py"]

SERVICES = ("app", "nginx", "log-forwarder")


@pytest.fixture(scope="module")
def shipped(stack):
    """The room but for what has no image here, and nobody listening yet."""
    files = "docker-compose.yml:logstash/docker-compose.yml:docker-compose.override.yml"
    override = stack.folder / "docker-compose.override.yml"
    stack.make("secrets")
    shipped = Shipped(stack)
    override.write_text(yaml.safe_dump(shipped.override("app", "log-forwarder")))
    stack.write_settings(COMPOSE_FILE=files)
    try:
        shipped.start(*SERVICES)
        yield shipped
    finally:
        shipped.stop()
        stack.compose("rm", "--stop", "--force", *SERVICES)
        stack.settings.pop("COMPOSE_FILE")
        override.unlink()
        stack.write_settings()
        stack.make("up")
        stack.run("docker", "volume", "rm", f"{stack.name}_nginx-logs")
        stack.run("docker", "network", "rm", f"{stack.name}_receiver")
