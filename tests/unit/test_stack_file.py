"""docker-stack.yml is docker-compose.yml for Swarm: what differs is meant, and stands here."""

import re

import yaml
from conftest import APP

ROOT = APP.parent
COMPOSE, STACK = (
    yaml.safe_load((ROOT / name).read_text()) for name in ("docker-compose.yml", "docker-stack.yml")
)

# What the one has and the other has not, or has differently; with the reason.
DIFFERENCES = {
    "build": "Swarm builds nothing: make deploy does, and the nodes pull",
    "image": "a tag that says which version runs",
    "security_opt": "Swarm ignores it; see the first lines of docker-stack.yml",
    "restart": "Swarm has deploy.restart_policy",
    "scale": "Swarm has deploy.replicas; three, so that one can be missing",
    "deploy": "updates, rollbacks and placement are Swarm's",
    "cpu_quota": "Swarm counts CPUs, and puts no task on a node with fewer; so one and not two",
    "ports": "host mode, for the visitor's address; 80 and 443, which visitors type",
    "environment.HTTPS_PORT": "443, which visitors type",
    "environment.SERVICE_NAME": "the environment need not have the name",
    "volumes": "the certificate is a secret, because a volume would be one of each node's own",
    "tmpfs": "Swarm ignores it, and has volumes for that, whose size can be no variable",
    "secrets": "Swarm gives them to the container's user alone",
}


def comparable(file):
    """The facts of each service by dotted names, resource limits by those of Compose."""
    facts = {}
    for name, service in file["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        named = {"mem_limit": limits.get("memory"), "pids_limit": limits.get("pids")}
        for key, value in (service | {k: v for k, v in named.items() if v}).items():
            parts = value.items() if key == "environment" else [("", value)]
            facts |= {
                (name, f"{key}.{part}".rstrip("."), str(content)): None for part, content in parts
            }
    return facts.keys()


def test_the_services_differ_only_where_it_is_meant():
    differing = {key for _, key, _ in comparable(COMPOSE) ^ comparable(STACK)}
    assert differing == DIFFERENCES.keys()


def test_the_same_services_networks_and_secrets():
    assert STACK["services"].keys() == COMPOSE["services"].keys()
    assert STACK["networks"].keys() == COMPOSE["networks"].keys()
    assert STACK["networks"]["backend"]["internal"] is COMPOSE["networks"]["backend"]["internal"]
    names = [secret["source"] for secret in STACK["services"]["app"]["secrets"]]
    assert names == COMPOSE["services"]["app"]["secrets"]
    for name in names:
        assert STACK["secrets"][name]["file"] == COMPOSE["secrets"][name]["file"]


def test_what_can_be_written_is_as_large_as_in_compose():
    units = {"m": 1024**2}
    for name, service in COMPOSE["services"].items():
        sizes = {}
        for line in service["tmpfs"]:
            target, size, unit = re.search(r"^(\S+):size=(?:\$\{\w+:-)?(\d+)([a-z])", line).groups()
            sizes[target] = int(size) * units[unit]
        volumes = STACK["services"][name]["volumes"]
        assert {volume["target"]: volume["tmpfs"]["size"] for volume in volumes} == sizes
        assert {volume["type"] for volume in volumes} == {"tmpfs"}


def test_encryption_is_off_unless_its_file_is_added():
    """The engine takes the name of the option for yes, whatever its value."""
    assert "driver_opts" not in (ROOT / "docker-stack.yml").read_text()
    encrypted = yaml.safe_load((ROOT / "docker-stack.encrypted.yml").read_text())
    backend = STACK["networks"]["backend"] | {"driver_opts": {"encrypted": "true"}}
    assert encrypted == {"networks": {"backend": backend}}


def test_the_same_variables_with_the_same_defaults():
    def defaults(name):
        return dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", (ROOT / name).read_text()))

    here, there = defaults("docker-compose.yml"), defaults("docker-stack.yml")
    assert there["IMAGES"] == there["COMPOSE_PROJECT_NAME"] == COMPOSE["name"]
    differing = {name for name in here.keys() & there if here[name] != there[name]}
    assert differing == {"HTTP_PORT", "HTTPS_PORT", "APP_REPLICAS"}
    explained = re.findall(r"^# ([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert there.keys() <= set(explained)


def test_a_user_in_the_stack_file_is_the_images():
    app = re.search(r"^ARG APP_UID=(\d+)", (APP / "Dockerfile").read_text(), re.MULTILINE)[1]
    assert {secret["uid"] for secret in STACK["services"]["app"]["secrets"]} == {app}
    nginx = re.search(r"^USER (\d+)", (ROOT / "nginx/Dockerfile").read_text(), re.MULTILINE)[1]
    assert {secret["uid"] for secret in STACK["services"]["nginx"]["secrets"]} == {nginx}


def test_an_application_that_stops_has_more_time_than_gunicorn_takes():
    graceful = int(
        re.search(r"^graceful_timeout = (\d+)", (APP / "gunicorn.conf.py").read_text(), re.M)[1]
    )
    for service in STACK["services"].values():
        assert int(service["stop_grace_period"].removesuffix("s")) > graceful
