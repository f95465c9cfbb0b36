"""docker-stack.yml is docker-compose.yml for Swarm: what differs is meant, and stands here."""

import re

from clone import ROOT
from conftest import APP
from dialects import defaults, differing, explained, read, tmpfs_in_compose, tmpfs_in_stack, user

COMPOSE, STACK = read("docker-compose.yml"), read("docker-stack.yml")

# What the one has and the other has not, or has differently; with the reason.
DIFFERENCES = {
    "build": "Swarm builds nothing: make swarm-deploy does, and the nodes pull",
    "image": "a tag that says which version runs",
    "security_opt": "Swarm ignores it; see the first lines of docker-stack.yml",
    "restart": "Swarm has deploy.restart_policy",
    "scale": "Swarm has deploy.replicas; three, so that one can be missing",
    "deploy": "updates and rollbacks are Swarm's",
    "cpu_quota": "Swarm counts CPUs, and puts no task on a node with fewer; so one and not two",
    "pids_limit": "Swarm takes no variable there; the same number (test_limits.py)",
    "ports": "host mode, for the visitor's address; 80 and 443, which visitors type",
    "environment.HTTPS_PORT": "443, which visitors type",
    "environment.SERVICE_NAME": "the environment need not have the name",
    "volumes": "the certificate is a secret, because a volume would be one of each node's own",
    "tmpfs": "Swarm ignores it, and has volumes for that, whose size can be no variable",
    "secrets": "Swarm gives them to the container's user alone",
}


def test_the_services_differ_only_where_it_is_meant():
    assert differing(COMPOSE, STACK) == DIFFERENCES.keys()


def test_the_same_services_networks_and_secrets():
    assert STACK["services"].keys() == COMPOSE["services"].keys()
    assert STACK["networks"].keys() == COMPOSE["networks"].keys()
    assert STACK["networks"]["backend"]["internal"] == COMPOSE["networks"]["backend"]["internal"]
    names = [secret["source"] for secret in STACK["services"]["app"]["secrets"]]
    assert names == COMPOSE["services"]["app"]["secrets"]
    for name in names:
        assert STACK["secrets"][name]["file"] == COMPOSE["secrets"][name]["file"]


def test_what_can_be_written_is_as_large_as_in_compose():
    for name, service in STACK["services"].items():
        assert tmpfs_in_stack(service) == tmpfs_in_compose(COMPOSE["services"][name])
    # The application may have one to keep files in (docs/fork.md).
    assert {volume["type"] for volume in STACK["services"]["nginx"]["volumes"]} == {"tmpfs"}


def test_encryption_is_off_unless_its_file_is_added():
    """The engine takes the name of the option for yes, whatever its value."""
    assert "driver_opts" not in (ROOT / "docker-stack.yml").read_text()
    encrypted = read("docker-stack.encrypted.yml")
    backend = STACK["networks"]["backend"] | {"driver_opts": {"encrypted": "true"}}
    assert encrypted == {"networks": {"backend": backend}}


def test_the_same_variables_with_the_same_defaults():
    here, there = defaults("docker-compose.yml"), defaults("docker-stack.yml")
    assert there["IMAGES"] == there["COMPOSE_PROJECT_NAME"] == COMPOSE["name"]
    differing = {name for name in here.keys() & there if here[name] != there[name]}
    assert differing == {"HTTP_PORT", "HTTPS_PORT", "APP_REPLICAS"}
    assert there.keys() <= explained()


def test_a_user_in_the_stack_file_is_the_images():
    app = re.search(r"^ARG APP_UID=(\d+)", (APP / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert {secret["uid"] for secret in STACK["services"]["app"]["secrets"]} == {app}
    uids = {secret["uid"] for secret in STACK["services"]["nginx"]["secrets"]}
    assert uids == {user("nginx/Dockerfile")}


def test_an_application_that_stops_has_more_time_than_gunicorn_takes():
    graceful = int(
        re.search(r"^graceful_timeout = (\d+)", (APP / "gunicorn.conf.py").read_text(), re.M)[1]
    )
    for service in STACK["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > graceful
