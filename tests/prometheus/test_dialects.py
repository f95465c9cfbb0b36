"""prometheus/docker-stack.yml is prometheus/docker-compose.yml for Swarm: what differs is meant."""

import re

from clone import ROOT
from dialects import defaults, differing, explained, read, tmpfs_in_compose, tmpfs_in_stack, user

COMPOSE, STACK = (read(f"prometheus/docker-{dialect}.yml") for dialect in ("compose", "stack"))
CORE = read("docker-stack.yml")

# What the one has and the other has not, or has differently, beside what differs in the core for
# the reasons that tests/unit/test_stack_file.py has.
DIFFERENCES = {
    "ports": "Swarm publishes none for this machine alone; see `make swarm-status`",
    "environment.APP_REPLICAS": "three, unless it is said",
    "labels": "make swarm-deploy reads it in Compose's file",
    "hostname": "of several nodes it matters whose figures they are",
    "environment.LISTEN": "a name leads to a task only once it is healthy; so it is a network",
    "dns_opt": "a stack file has none; the rule AppMissing does without",
    "networks": "what goes from node to node takes the network that can be encrypted",
}
AS_IN_THE_CORE = {
    *("build", "image", "security_opt", "restart", "deploy", "cpu_quota"),
    *("volumes", "tmpfs", "secrets"),
}


def test_the_services_differ_only_where_it_is_meant():
    assert differing(COMPOSE, STACK) == DIFFERENCES.keys() | AS_IN_THE_CORE


def test_the_same_services_networks_volumes_and_secrets():
    for kind in ("services", "volumes", "secrets"):
        assert STACK[kind].keys() == COMPOSE[kind].keys()
    assert STACK["networks"].keys() == COMPOSE["networks"].keys() - {"exporters"}
    for name, secret in COMPOSE["secrets"].items():
        assert STACK["secrets"][name]["file"] == secret["file"]
    for name, service in COMPOSE["services"].items():
        given = STACK["services"][name].get("secrets", [])
        assert [secret["source"] for secret in given] == service.get("secrets", [])
        for secret in given:
            assert secret["uid"] == user(f"{service['build']['context']}/Dockerfile")


def test_only_the_node_exporter_is_in_another_network():
    for name, service in COMPOSE["services"].items():
        networks = service.get("networks")
        if isinstance(networks, dict):
            networks = {key: value for key, value in networks.items() if key != "exporters"}
        if name == "alertmanager":
            # It listens by an alias, which in a Swarm leads there only once it is healthy.
            networks = [*networks]
        if name != "node-exporter":
            assert STACK["services"][name].get("networks") == networks
    assert STACK["services"]["node-exporter"]["networks"] == ["backend"]


def test_the_same_can_be_written():
    for name, service in COMPOSE["services"].items():
        there = STACK["services"][name]
        assert tmpfs_in_stack(there) == tmpfs_in_compose(service)
        kept = [volume for volume in there.get("volumes", []) if isinstance(volume, str)]
        assert kept == service.get("volumes", [])


def test_the_same_cpus():
    for name, service in COMPOSE["services"].items():
        if "cpu_quota" in service:
            limits = STACK["services"][name]["deploy"]["resources"]["limits"]
            assert float(limits["cpus"]) == service["cpu_quota"] / 100_000


def test_what_keeps_data_stays_on_its_node_and_shows_its_pages():
    for name, service in COMPOSE["services"].items():
        deploy = STACK["services"][name].get("deploy", {})
        ports = [str(port["target"]) for port in service.get("ports", [])]
        assert ("placement" in deploy) == ("volumes" in service or bool(ports))
        assert deploy.get("labels", {}).get("ui-port", "").split() == ports


def test_the_same_variables_with_the_same_defaults():
    here, there = (defaults(f"prometheus/docker-{dialect}.yml") for dialect in ("compose", "stack"))
    core = defaults("docker-stack.yml")
    # It is `make swarm-deploy` that says so.
    assert there.pop("GRAFANA_REPLICAS") == "1"
    # In Compose, the network's name is enough.
    assert there.pop("QUERIES_SUBNET") in (ROOT / ".env.example").read_text()
    # The others are about published ports.
    assert {name for name in here.keys() - there if not name.endswith("_PORT")} == set()
    assert there == {name: (here | core).get(name) for name in there}
    assert there.keys() <= explained()


def test_it_is_denied_what_the_core_is():
    hardened = dict(CORE["x-hardened"])
    del hardened["stop_grace_period"]
    for name, service in STACK["services"].items():
        if name not in ("app", "nginx"):
            assert hardened.items() <= service.items(), name
            assert service["deploy"]["endpoint_mode"] == "dnsrr"


def test_the_proxy_runs_on_the_cores_nginx():
    pin = re.compile(r"^ARG NGINX_IMAGE=(.+)", re.MULTILINE)
    files = [ROOT / folder / "Dockerfile" for folder in ("nginx", "prometheus/proxy")]
    assert len({pin.search(file.read_text())[1] for file in files}) == 1
