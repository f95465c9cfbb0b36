"""The core as the logging add-on has it. Logstash's image is out of reach of machines without a
registry: in its place is a receiver on this machine.
"""

import pytest
import yaml
from clone import ROOT
from shipped import FORWARDERS, Shipped

# A fork that does not want the add-on deletes its folder.
collect_ignore_glob = [] if (ROOT / "logstash").exists() else ["test_*.py"]

SERVICES = ("app", "nginx", *FORWARDERS)


@pytest.fixture(scope="module")
def shipped(stack):
    """The add-on but for what has no image here, and nobody listening yet."""
    files = "docker-compose.yml:logstash/docker-compose.yml:docker-compose.override.yml"
    override = stack.folder / "docker-compose.override.yml"
    environment = stack.build_environment()
    stack.make("secrets")
    shipped = Shipped(stack)
    override.write_text(yaml.safe_dump(shipped.override(*FORWARDERS)))
    stack.write_settings(COMPOSE_FILE=files)
    try:
        stack.run("docker", "compose", "build", FORWARDERS[0], **environment)
        shipped.start(*SERVICES)
        yield shipped
    finally:
        shipped.stop()
        stack.compose("rm", "--stop", "--force", *SERVICES)
        stack.settings.pop("COMPOSE_FILE")
        override.unlink()
        stack.write_settings()
        stack.make("up")
        volumes = (f"{stack.name}_{writer}-log-files" for writer in ("app", "nginx"))
        stack.run("docker", "volume", "rm", "--force", *volumes)
        stack.run("docker", "network", "rm", f"{stack.name}_receiver")
