"""A compromised target tries to use Prometheus, and a page of another site to use its pages."""

import re
import textwrap
from contextlib import contextmanager

import pytest
import yaml
from clone import ROOT, wait_until

CONFIGURATION = yaml.safe_load((ROOT / "prometheus/server/prometheus.yml").read_text())
PROBES = yaml.safe_load((ROOT / "prometheus/blackbox-exporter/blackbox.yml").read_text())["modules"]
OWN_JOBS = {
    "nginx": {"nginx"},
    "flask": {"app"},
    "app": {"app", "app|log-forwarder"},
    "probe": {"site"},
    "node": {"node"},
    "prometheus": {"prometheus"},
    "alertmanager": {"alertmanager"},
}
METRIC = re.compile(rf"(?<![\w:])({'|'.join(OWN_JOBS)})_\w+(?![\w:(])(?:{{(.*?)}})?")

# What runs in a compromised container: it redirects the first question of Prometheus for each path, or publishes
# what is in BODY.
TARGET = textwrap.dedent("""\
    import http.server, os
    class Target(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if "LOCATION" in os.environ else 200)
            self.send_header("Location", os.environ.get("LOCATION", "/"))
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(os.environ.get("BODY", "").encode())
    http.server.ThreadingHTTPServer(("", 8000), Target).serve_forever()
""")


@contextmanager
def target(room, **environment: str):
    """A container in the application's network that Prometheus scrapes: the name of an add-on that is off."""
    name, image = f"{room.stack.name}-target", room.stack.inspect("app")[0]["Image"]
    room.stack.run(
        *("docker", "run", "--detach", f"--name={name}", f"--network={room.stack.name}_backend"),
        *("--network-alias=log-forwarder", "--entrypoint=python"),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *(image, "-c", TARGET),
    )
    try:
        yield
    finally:
        room.stack.run("docker", "rm", "--force", name)
        wait_until(lambda: not room.query('up{job="log-forwarder"}'), 60, "the target gone")


def test_no_redirect_is_followed(room):
    """To another network, which the target itself does not reach."""
    with target(room, LOCATION="http://node-exporter:9100/metrics"):
        wait_until(lambda: room.query('up{job="log-forwarder"}'), 20, "the target scraped")
        assert room.value('up{job="log-forwarder"}') == 0
        assert room.query('node_load1{job="log-forwarder"}') == []


def test_a_target_speaks_for_itself_alone(room):
    body = """\
nginx_http_requests_total{status="500"} 1
slo:availability:target 0
slo:errors:ratio_rate5m 1
ALERTS{alertname="Forged",alertstate="firing"} 1
up{instance="forged"} 1
own_total 1
"""
    with target(room, BODY=body):
        wait_until(lambda: room.value('own_total{job="log-forwarder"}'), 20, "the target scraped")
        assert room.value("count(slo:availability:target)") == 1
        assert room.query('{job="log-forwarder",__name__=~".*:.*|ALERTS"}') == []
        assert len(room.query('up{job="log-forwarder"}')) == 1
        wait_until(lambda: room.value("slo:errors:ratio_rate5m") is not None, 20, "the SLO")
        assert room.value("slo:errors:ratio_rate5m") == 0
        assert room.firing() == {"Watchdog"}


def expressions() -> list[str]:
    found = []
    for file in (ROOT / "prometheus/server/rules").glob("*.yml"):
        groups = yaml.safe_load(file.read_text())["groups"]
        found += [rule["expr"] for group in groups for rule in group["rules"]]
    for file in (ROOT / "prometheus/grafana/dashboards").rglob("*.json"):
        board = yaml.safe_load(file.read_text())
        panels = [panel.get("targets", []) for panel in board["panels"]]
        found += [one["expr"] for targets in panels for one in targets]
        found += [variable["query"] for variable in board["templating"].get("list", [])]
    return found


def test_rules_and_dashboards_read_a_metric_from_its_job():
    metrics = [match for text in expressions() for match in METRIC.finditer(text)]
    assert len(metrics) > 100
    for match in metrics:
        job = re.search(r'job=~?"(.+?)"', match[2] or "")
        assert job, match[0]
        assert job[1] in OWN_JOBS[match[1]], match[0]


@pytest.mark.parametrize("job", CONFIGURATION["scrape_configs"], ids=lambda job: job["job_name"])
def test_every_job_is_restricted_to_its_target(job):
    assert job["follow_redirects"] is False
    (rule,) = job["metric_relabel_configs"]
    assert rule["action"] == "drop"
    for name in ("slo:availability:target", "ALERTS", "ALERTS_FOR_STATE", "up"):
        assert re.fullmatch(rule["regex"], name)
    assert not re.fullmatch(rule["regex"], "up_total")


def test_nothing_else_follows_redirects():
    (alertmanagers,) = CONFIGURATION["alerting"]["alertmanagers"]
    assert alertmanagers["follow_redirects"] is False
    for name, module in PROBES.items():
        assert module["http"]["follow_redirects"] is False, name
