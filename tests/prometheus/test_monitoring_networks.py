"""Each service is in the networks that prometheus/README.md says, in Compose and in Swarm."""

from clone import ROOT
from networks import documented, of_compose, of_swarm


def test_networks_are_as_documented():
    """In a Swarm, metrics of nodes travel in the network that can be encrypted."""
    expected = documented("prometheus/README.md")
    assert of_compose("prometheus") == expected
    if (ROOT / "prometheus/docker-stack.yml").exists():
        services, leads_outside = expected.pop("exporters")
        assert services == {"prometheus", "node-exporter"}
        assert not leads_outside
        expected["backend"][0].add("node-exporter")
        assert of_swarm("prometheus") == expected
