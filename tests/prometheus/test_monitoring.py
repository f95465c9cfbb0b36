"""Metrics arrive from all, and alerts reach people: on the real stack."""

import re
import subprocess

import httpx
import pytest
import yaml
from causes import CAUSES, NOT_MADE_REAL, ON_REQUEST
from clone import ROOT, free_ports, wait_until
from clone import answers as answers_to
from load import Load

PROMETHEUS = ROOT / "prometheus"
ALERTS = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "server/rules/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
CASES = [file.read_text() for file in (PROMETHEUS / "tests").glob("*.yml")]
ECHO = 'flask_http_request_duration_seconds_count{route="/diagnostics/echo"}'


def test_a_healthy_stack_fires_nothing_but_the_watchdog(addon):
    wait_until(lambda: addon.firing() == {"Watchdog"}, 20, "the watchdog alone")
    wait_until(lambda: addon.receiver.calls, 60, "a call of the dead man's switch")
    assert addon.receiver.alerts == []


@pytest.mark.parametrize(
    "expression",
    [
        'app_info{version!="", commit!=""}',
        "app_ready == 1",
        "app_worker_starts_total >= 2",
        "app_memory_bytes < app_memory_limit_bytes",
        'process_open_fds{worker="0"} > 0',
        'nginx_http_requests_total{status="200"} > 0',
        'nginx_connections{state="active"} > 0',
        "app:replicas:wanted == 1",
        "probe_success == 1",
        "probe_http_status_code == 200",
        "probe_ssl_earliest_cert_expiry > time()",
        'node_filesystem_avail_bytes{mountpoint="/"} > 0',
        "node_memory_MemAvailable_bytes > 0",
        "node_load1",
        "prometheus_tsdb_head_series > 100",
        "alertmanager_cluster_enabled == 0",
    ],
)
def test_what_each_part_says_is_there(addon, expression):
    wait_until(lambda: addon.query(expression), 10, expression)


def test_the_site_is_visited_below_its_prefix(addon):
    (prometheus,) = addon.stack.inspect("prometheus")
    name, (port,) = f"{addon.stack.name}-prefix", free_ports(1)
    addon.stack.run(
        *("docker", "run", "--detach", "--name", name, f"--publish=127.0.0.1:{port}:9090"),
        *("--env=APP_REPLICAS=1", "--env=SCRIPT_NAME=/shop", prometheus["Image"]),
    )
    url = f"http://127.0.0.1:{port}/api/v1/status/config"
    try:
        wait_until(lambda: answers_to(url), 20, "Prometheus")
        assert "replacement: https://${1}/shop/\n" in httpx.get(url).json()["data"]["yaml"]
    finally:
        addon.stack.run("docker", "rm", "--force", "--volumes", name)


def test_every_replica_is_asked_and_sums_are_exact(addon, replicas):
    wait_until(lambda: addon.value('sum(up{job="app"})') == 3, 20, "three targets")
    before = settled(addon)
    with Load(replicas) as load:
        load.carry_on(1000)
    wait_until(
        lambda: addon.value(f"sum({ECHO})") == before + len(load.results), 10, "all to be counted"
    )
    assert len(addon.query(f"sum by (instance) ({ECHO}) > 0")) == 3


def settled(addon) -> float:
    """The sum, once two rounds of scrapes agree."""
    seen = []

    def same() -> bool:
        value, oldest = addon.value(f"sum({ECHO})"), addon.value(f"min(timestamp({ECHO}))")
        if value is None:  # not scraped yet
            return False
        if not seen or value != seen[0]:
            seen[:] = [value, oldest]
        return oldest > seen[1] + 2

    wait_until(same, 30, "no more requests")
    return seen[0]


def test_the_addon_is_as_hardened_as_the_core(addon):
    grafana = ["grafana"] if addon.stack.containers("grafana") else []
    for service in ("prometheus", "alertmanager", "monitoring-proxy", *grafana, *EXPORTERS):
        (container,) = addon.stack.inspect(service)
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["SecurityOpt"] == ["no-new-privileges:true"], service
        assert host["Memory"], service
        assert host["PidsLimit"], service
        assert container["Config"]["User"] not in ("", "root", "0"), service
        published = [p for ports in host["PortBindings"].values() for p in ports]
        assert {port["HostIp"] for port in published} <= {"127.0.0.1"}, service
        assert not any(mount["Source"].endswith(".sock") for mount in container["Mounts"]), service


EXPORTERS = ("node-exporter", "blackbox-exporter")


def in_image(addon, service: str, *command: str) -> subprocess.CompletedProcess:
    """Run a tool of the service's image, with the rules and tests as they are in the repository."""
    image = addon.stack.inspect(service)[0]["Config"]["Image"]
    return addon.stack.run(
        *("docker", "run", "--rm", "--network=none", f"--entrypoint={command[0]}"),
        f"--volume={PROMETHEUS}/server:/etc/prometheus:ro",
        f"--volume={PROMETHEUS}/alertmanager:/etc/alertmanager:ro",
        f"--volume={PROMETHEUS}/tests:/tests:ro",
        *(image, *command[1:]),
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        "check config --lint=all --lint-fatal /etc/prometheus/prometheus.yml",
        "test rules /tests/alerts.yml",
        "test rules /tests/slow.yml",
    ],
)
def test_promtool_finds_nothing(addon, words):
    answer = in_image(addon, "prometheus", "promtool", *words.split())
    assert not answer.returncode, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=Watchdog severity=none", "dead-mans-switch"),
        ("alertname=SiteDown severity=critical", "people"),
        ("alertname=SlowRoute severity=warning route=/", "people"),
    ],
)
def test_who_is_told(addon, labels, receiver):
    file = "--config.file=/etc/alertmanager/alertmanager.yml"
    words = ("amtool", "config", "routes", "test", file, *labels.split())
    answer = in_image(addon, "alertmanager", *words)
    assert answer.stdout.strip() == receiver, answer.stderr


def test_the_receivers_that_the_page_shows_are_right(addon):
    (example,) = re.findall(r"```yaml\n(.*?)```", (PROMETHEUS / "receivers.md").read_text(), re.S)
    (top,) = re.findall(r"`(global: .*?)`", (PROMETHEUS / "receivers.md").read_text(), re.S)
    text = (PROMETHEUS / "alertmanager/alertmanager.yml").read_text()
    people = re.compile(r"  - name: people\n(    .*\n)+")
    assert people.search(text)
    file = addon.stack.folder / "example.yml"
    file.write_text(f"{top}\n{people.sub(example, text)}")
    image = addon.stack.inspect("alertmanager")[0]["Config"]["Image"]
    addon.stack.run(
        *("docker", "run", "--rm", "--network=none", "--entrypoint=amtool"),
        *(f"--volume={file}:/example.yml:ro", image, "check-config", "/example.yml"),
    )
    file.unlink()


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_and_is_tested(rule):
    name = rule["alert"]
    assert rule["labels"]["severity"] in ("critical", "warning", "none")
    notes = rule["annotations"]
    assert notes["summary"]
    assert notes["description"]
    page, _, anchor = notes["runbook"].partition("#")
    sections = re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert name in sections
    assert anchor == name.lower()
    assert any(f'alertname="{name}"' in text for text in CASES)


def test_every_alert_is_made_real_or_said_not_to_be():
    causes = [*CAUSES.values(), *ON_REQUEST.values()]
    real = {alert for cause in causes for alert in cause.fires}
    assert real | NOT_MADE_REAL | {"Watchdog"} == {rule["alert"] for rule in ALERTS}


def test_the_blackbox_exporter_is_no_way_out(addon):
    """It asks what it is told to, so it must not reach what the application may not."""
    (container,) = addon.stack.inspect("blackbox-exporter")
    (network,) = container["NetworkSettings"]["Networks"]
    assert network.endswith("_backend")


def test_the_application_does_not_notice_that_prometheus_is_gone(addon):
    addon.stack.compose("stop", "prometheus")
    with Load(addon.stack) as load:
        load.carry_on(200)
    assert load.failed == [], load.summary
    addon.stack.compose("start", "prometheus")
    wait_until(lambda: answers(addon), 30, "Prometheus")
    # What was counted meanwhile is there.
    wait_until(lambda: (addon.value(f"sum({ECHO})") or 0) >= 200, 20, "the counters")


def answers(addon) -> bool:
    try:
        return addon.value('sum(up{job="app"})') == 1
    except httpx.HTTPError:
        return False
