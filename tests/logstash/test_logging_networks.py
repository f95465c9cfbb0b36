"""Each service is in the networks that logstash/README.md says, in Compose and in Swarm.

By the files: the images are not always to be had (test_end_to_end.py).
"""

from clone import ROOT
from networks import documented, of_compose, of_swarm


def test_networks_are_as_documented():
    expected = documented("logstash/README.md")
    assert of_compose("logstash") == expected
    if (ROOT / "logstash/docker-stack.yml").exists():
        assert of_swarm("logstash") == expected


def test_the_application_shares_no_network_with_what_keeps_lines():
    networks = [services for services, _ in of_compose("logstash").values()]
    for service in ("logstash", "elasticsearch", "kibana", "elasticsearch-setup", "kibana-setup"):
        assert not [services for services in networks if {service, "app"} <= services]
