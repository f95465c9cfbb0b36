"""logstash/docker-stack.yml is logstash/docker-compose.yml for Swarm: what differs is meant."""

import os
import re
import subprocess

import pytest
from clone import ROOT
from dialects import defaults, differing, explained, read, tmpfs_in_compose, tmpfs_in_stack, user

FILES = {dialect: f"logstash/docker-{dialect}.yml" for dialect in ("compose", "stack")}
COMPOSE, STACK = (read(file) for file in FILES.values())
CORE = read("docker-stack.yml")

# What the one has and the other has not, or has differently, beside what differs in the core for
# the reasons that tests/unit/test_stack_file.py has.
DIFFERENCES = {
    "ports": "Swarm publishes none for this machine alone; see `make swarm-status`",
    "labels": "scripts/checks/machine.py asks the machine that it runs on",
    "pull_policy": "a node has no other way to the image",
    "depends_on": "Swarm has no order: each waits for what it needs",
    "command": "in Swarm, a set-up that ends is one that failed",
    "healthcheck": "and is done when it is healthy",
    "init": "and has nobody who would pass a signal on",
}
AS_IN_THE_CORE = {
    *("build", "image", "security_opt", "restart", "deploy", "cpu_quota"),
    *("volumes", "tmpfs", "secrets"),
}
README = ROOT / "logstash/README.md"
SETUP = "logstash/setup/Dockerfile"
KIBANA = "kibana/kibana.yml"
WRITERS = ("app", "nginx")


def test_the_services_differ_only_where_it_is_meant():
    assert differing(COMPOSE, STACK) == DIFFERENCES.keys() | AS_IN_THE_CORE


def test_docker_keeps_what_waits_for_logstash_and_more():
    """Or `make replay` would not find what was given up."""
    for name in WRITERS:
        options = COMPOSE["volumes"][f"{name}-log-files"]["driver_opts"]["o"]
        waits = int(re.search(r"size=(\d+)m", options)[1])
        kept = COMPOSE["services"][name]["logging"]["options"]
        # The newest of Docker's files has just been begun, and each line is longer there.
        assert int(kept["max-size"].removesuffix("m")) * (int(kept["max-file"]) - 1) > 2 * waits
        assert STACK["services"][name]["logging"]["options"] == kept


def test_the_same_services_networks_volumes_and_secrets():
    for kind in ("services", "networks", "volumes", "secrets"):
        assert STACK[kind].keys() == COMPOSE[kind].keys()
    assert STACK["volumes"] == COMPOSE["volumes"]
    for name, secret in COMPOSE["secrets"].items():
        assert STACK["secrets"][name]["file"] == secret["file"]
    for name, service in COMPOSE["services"].items():
        given = STACK["services"][name].get("secrets", [])
        assert [secret["source"] for secret in given] == service.get("secrets", [])
        assert {secret["uid"] for secret in given} <= {uid(name)}
        assert {secret["mode"] for secret in given} <= {0o400}


def uid(service: str) -> str:
    if service.endswith("-log-forwarder"):
        return COMPOSE["services"][service]["user"].partition(":")[0]
    if service == "app":
        dockerfile = (ROOT / "app/Dockerfile").read_text()
        return re.search(r"^ARG APP_UID=(\d+)", dockerfile, re.MULTILINE)[1]
    if service == "kibana-setup":
        return user(SETUP)
    build = COMPOSE["services"][service].get("build")
    return user(f"{build['context']}/Dockerfile" if build else "nginx/Dockerfile")


def test_logstash_waits_for_elasticsearch_and_not_for_kibana():
    """Kibana takes minutes to start, and lines come at once."""
    waits = {
        name: {*service.get("depends_on", {})} for name, service in COMPOSE["services"].items()
    }
    assert waits["logstash"] == {"elasticsearch-setup"}
    assert waits["elasticsearch-setup"] == {"elasticsearch"}
    assert waits["kibana-setup"] == {"kibana"}
    assert not any("kibana-setup" in names for names in waits.values())
    for dialect in (COMPOSE, STACK):
        words = dialect["services"]["kibana-setup"]["command"][-1]
        assert words.startswith("python setup.py kibana && touch /tmp/done")
    # By default, as in the image; in Swarm it has to stay.
    assert 'CMD ["python", "setup.py", "elasticsearch"]' in (ROOT / SETUP).read_text()
    assert "setup.py elasticsearch &&" in STACK["services"]["elasticsearch-setup"]["command"][-1]


def test_kibana_has_memory_to_start():
    """https://github.com/elastic/cloud-on-k8s/issues/9239"""
    for file in FILES.values():
        assert megabytes(defaults(file)["KIBANA_MEMORY"]) >= 2048


@pytest.mark.parametrize("writer", WRITERS)
def test_a_forwarder_is_its_writers_user_and_nobody_else_is(writer):
    """The files are private, and cutting out of them takes their owner."""
    volume = f"{writer}-log-files"
    options = COMPOSE["volumes"][volume]["driver_opts"]["o"]
    assert {f"uid={uid(writer)}", f"gid={uid(writer)}", "mode=0700"} <= {*options.split(",")}
    for dialect in (COMPOSE, STACK):
        assert (
            dialect["services"][f"{writer}-log-forwarder"]["user"] == f"{uid(writer)}:{uid(writer)}"
        )
        mounted = [
            name for name, it in dialect["services"].items() if volume in str(it.get("volumes"))
        ]
        assert mounted == [writer, f"{writer}-log-forwarder"]


def test_the_same_can_be_written():
    for name, service in COMPOSE["services"].items():
        there = STACK["services"][name]
        in_memory = tmpfs_in_stack(there)
        if name == "elasticsearch-setup":
            # Where it notes that it is done.
            assert in_memory.pop("/tmp") == 1024**2  # noqa: S108
        assert in_memory == tmpfs_in_compose(service)
        kept = [volume for volume in there.get("volumes", []) if isinstance(volume, str)]
        assert kept == service.get("volumes", [])


def test_the_same_limits():
    for name, service in COMPOSE["services"].items():
        if "mem_limit" in service:
            resources = STACK["services"][name]["deploy"]["resources"]
            assert float(resources["limits"]["cpus"]) == service["cpu_quota"] / 100_000
            # Java takes its heap at once, and keeps it.
            if "needs-memory" in service.get("labels", {}):
                assert resources["reservations"]["memory"] == service["mem_limit"]


def test_what_keeps_data_stays_on_its_node_and_shows_its_page():
    for name in ("elasticsearch", "elasticsearch-setup", "kibana", "kibana-setup", "logstash"):
        deploy = STACK["services"][name]["deploy"]
        assert deploy["placement"] == {"constraints": ["node.labels.logging == true"]}
        ports = [port.rpartition(":")[2] for port in COMPOSE["services"][name].get("ports", [])]
        assert [*deploy.get("labels", {}).values()] == ports
    for writer in WRITERS:
        assert STACK["services"][f"{writer}-log-forwarder"]["deploy"]["mode"] == "global"


def test_nothing_is_published_beyond_this_machine():
    ports = [port for it in COMPOSE["services"].values() for port in it.get("ports", [])]
    assert len(ports) == 1
    assert ports[0].startswith("127.0.0.1:")


def test_the_same_variables_with_the_same_defaults():
    here, there = defaults(FILES["compose"]), defaults(FILES["stack"])
    core = defaults("docker-stack.yml")
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
    core = read("docker-compose.yml")["x-hardened"]
    for name, service in COMPOSE["services"].items():
        if name in ("elasticsearch-setup", "kibana-setup"):
            assert (core | {"restart": "no"}).items() <= service.items()
        elif name not in ("app", "nginx"):
            assert core.items() <= service.items(), name


def test_the_key_of_the_authority_is_given_to_nobody():
    for file in FILES.values():
        assert "logging_ca_key" not in (ROOT / file).read_text()


def test_java_has_memory_beside_its_heap():
    """https://www.elastic.co/docs/deploy-manage/deploy/self-managed/important-settings-configuration

    Logstash takes 900 MB with 256 MB of heap (elastic/logstash#12747).
    """
    laptop = dict(re.findall(r"^    ([A-Z_]+)=(\S+)$", README.read_text(), re.MULTILINE))
    for given in (*map(defaults, FILES.values()), laptop):
        size = {
            name: megabytes(given[name]) for name in given if name.endswith(("_HEAP", "_MEMORY"))
        }
        assert size["ELASTICSEARCH_MEMORY"] == 2 * size["ELASTICSEARCH_HEAP"]
        assert size["LOGSTASH_MEMORY"] >= 2 * size["LOGSTASH_HEAP"] + 512


def test_elasticsearchs_watermarks_are_absolute():
    """Percentages of a large disk stop it; mixed ones keep it from starting."""
    settings = read("logstash/elasticsearch/elasticsearch.yml")
    marks = [
        settings[f"cluster.routing.allocation.disk.watermark.{name}"]
        for name in ("low", "high", "flood_stage")
    ]
    low, high, flood = (int(re.fullmatch(r"(\d+)gb", mark)[1]) for mark in marks)
    assert low > high > flood >= 2
    needed = COMPOSE["services"]["elasticsearch"]["labels"]["needs-disk-gb"]
    # Three images of 1.5 GB.
    assert int(needed) - 3 * 1.5 > low


def test_kibana_asks_nothing_of_elastic_by_itself():
    settings = read(f"logstash/{KIBANA}")
    for name in ("telemetry.optIn", "newsfeed.enabled", "map.includeElasticMapsService"):
        assert settings[name] is False
    assert settings["xpack.fleet.isAirGapped"] is True


def megabytes(text: str) -> int:
    return int(text[:-1]) * {"m": 1, "g": 1024}[text[-1]]


def test_the_set_up_runs_on_the_applications_python():
    pin = re.compile(r"^ARG PYTHON_IMAGE=(.+)", re.MULTILINE)
    folders = ("app", "logstash/setup", "logstash/forwarder")
    files = [ROOT / folder / "Dockerfile" for folder in folders]
    assert len({pin.search(file.read_text())[1] for file in files}) == 1


def test_the_three_are_of_one_version():
    pin = re.compile(r"^ARG [A-Z]+_IMAGE=\w+:([0-9.]+)$", re.MULTILINE)
    folders = ("elasticsearch", "server", "kibana")
    files = [ROOT / "logstash" / folder / "Dockerfile" for folder in folders]
    assert len({pin.search(file.read_text())[1] for file in files}) == 1


def test_no_variable_is_taken_for_a_setting_by_an_entry_point():
    """The images' own write those into files that are read-only, or on the command line.

    Logstash: docker/data/logstash/env2yaml, which ignores dots, underlines and case. Kibana:
    bin/kibana-docker, names in capitals.
    """
    server, kibana = (read(f"logstash/{file}") for file in ("server/logstash.yml", KIBANA))
    variables = {*COMPOSE["services"]["logstash"]["environment"], "LOGSTASH_PASSWORD"}
    plain = {name.replace("_", "").lower() for name in variables}
    assert plain.isdisjoint(setting.replace(".", "").replace("_", "").lower() for setting in server)
    of_kibana = set(re.findall(r"\$\{(\w+)\}", (ROOT / "logstash" / KIBANA).read_text()))
    assert of_kibana.isdisjoint(setting.replace(".", "_").upper() for setting in kibana)
    # And all that it takes from there are given.
    start = (ROOT / "logstash/kibana/start.sh").read_text()
    assert of_kibana == set(re.findall(r"^([A-Z_]+)=", start, re.MULTILINE))


def test_compose_and_swarm_take_the_files():
    environment = {**os.environ, "CERTIFICATES": "./certificates"}
    environment["COMPOSE_PROJECT_NAME"] = read("docker-compose.yml")["name"]
    text = (ROOT / "docker-stack.yml").read_text() + (ROOT / FILES["stack"]).read_text()
    environment |= dict.fromkeys(re.findall(r"\$\{(\w+_(?:HASH|VERSION)):", text), "0123456789ab")
    core = [f"docker-{dialect}.yml" for dialect in FILES]
    for command in (
        ["docker", "compose", "-f", core[0], "-f", FILES["compose"], "config", "--quiet"],
        ["docker", "stack", "config", "-c", core[1], "-c", FILES["stack"]],
    ):
        answer = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
        assert answer.stderr == ""
    # Swarm takes no longer name of a secret than this.
    names = re.findall(r"^    name: (\S+-[0-9a-b]{12})$", answer.stdout, re.MULTILINE)
    assert len(names) == len(STACK["secrets"]) + len(CORE["secrets"])
    assert max(map(len, names)) <= 64


def test_tests_run_with_the_forwarders_packages():
    pin = re.compile(r"^(prometheus-client|python-logstash)==(\S+)", re.MULTILINE)
    locks = ("logstash/forwarder", "tests", "app")
    found = [dict(pin.findall((ROOT / lock / "requirements.txt").read_text())) for lock in locks]
    assert found[0] == found[1] | found[2]
