"""A compromised target tries to use Prometheus, and a page of another site to use its pages."""

import re
import textwrap
from contextlib import contextmanager

import containment
import httpx
import pytest
import yaml
from clone import ROOT, wait_until

CONFIGURATION = yaml.safe_load((ROOT / "prometheus/server/prometheus.yml").read_text())
PROBES = yaml.safe_load((ROOT / "prometheus/blackbox-exporter/blackbox.yml").read_text())["modules"]
OWN_JOBS = {
    "nginx": {"nginx"},
    "flask": {"app"},
    "log_forwarder": {"log-forwarder"},
    "app": {"app"},
    "probe": {"site"},
    "node": {"node"},
    "prometheus": {"prometheus"},
    "alertmanager": {"alertmanager"},
}
METRIC = re.compile(rf"(?<![\w:])({'|'.join(OWN_JOBS)})_\w+(?![\w:(])(?:{{(.*?)}})?")

# What runs in a compromised container: it redirects to LOCATION, or publishes BODY.
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
def target(addon, **environment: str):
    """A container that Prometheus scrapes, under the name of a service that is off."""
    name, image = f"{addon.stack.name}-target", addon.stack.inspect("app")[0]["Image"]
    addon.stack.run(
        *("docker", "run", "--detach", f"--name={name}", f"--network={addon.stack.name}_backend"),
        *("--network-alias=app-log-forwarder", "--entrypoint=python"),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *(image, "-c", TARGET),
    )
    try:
        yield
    finally:
        addon.stack.run("docker", "rm", "--force", name)
        wait_until(lambda: not addon.query('up{job="log-forwarder"}'), 60, "the target gone")


def test_no_redirect_is_followed(addon):
    """To another network, which the target itself does not reach."""
    with target(addon, LOCATION="http://node-exporter:9100/metrics"):
        wait_until(lambda: addon.query('up{job="log-forwarder"}'), 20, "the target scraped")
        assert addon.value('up{job="log-forwarder"}') == 0
        assert addon.query('node_load1{job="log-forwarder"}') == []


def test_a_target_speaks_for_itself_alone(addon):
    body = """\
nginx_http_requests_total{status="500"} 1
slo:availability:target 0
slo:errors:ratio_rate5m 1
ALERTS{alertname="Forged",alertstate="firing"} 1
up{instance="forged"} 1
own_total 1
"""
    with target(addon, BODY=body):
        wait_until(lambda: addon.value('own_total{job="log-forwarder"}'), 20, "the target scraped")
        assert addon.value("count(slo:availability:target)") == 1
        assert addon.query('{job="log-forwarder",__name__=~".*:.*|ALERTS"}') == []
        assert len(addon.query('up{job="log-forwarder"}')) == 1
        wait_until(lambda: addon.value("slo:errors:ratio_rate5m") is not None, 20, "the SLO")
        assert addon.value("slo:errors:ratio_rate5m") == 0
        assert addon.firing() == {"Watchdog"}


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


FOREIGN = "http://evil.example"
SILENCE = {
    "matchers": [{"name": "alertname", "value": ".+", "isRegex": True, "isEqual": True}],
    "startsAt": "2020-01-01T00:00:00Z",
    "endsAt": "2100-01-01T00:00:00Z",
    "createdBy": "test",
    "comment": "test",
}
# Reads, and changes, of Prometheus and of Alertmanager.
REQUESTS = [
    ("url", "GET", "/api/v1/query?query=up", None),
    ("url", "GET", "/api/v1/status/config", None),
    ("url", "POST", "/-/reload", None),
    ("url", "POST", "/-/quit", None),
    ("alertmanager", "GET", "/api/v2/alerts", None),
    ("alertmanager", "POST", "/-/reload", None),
    ("alertmanager", "POST", "/api/v2/silences", SILENCE),
    ("grafana", "GET", "/api/health", None),
]
parametrized = pytest.mark.parametrize(("page", "method", "path", "body"), REQUESTS)


def silences(addon) -> list:
    return httpx.get(f"{addon.alertmanager}/api/v2/silences", auth=addon.login).json()


def ask(addon, page: str, method: str, path: str, body, **options) -> httpx.Response:
    answer = httpx.request(method, f"{getattr(addon, page)}{path}", json=body, **options)
    assert not any(name.startswith("access-control-") for name in answer.headers)
    return answer


@parametrized
def test_pages_of_other_sites_are_refused_with_password(addon, page, method, path, body):
    """A browser that has the password sends it for those, too."""
    for origin in (FOREIGN, "null", "http://127.0.0.1:1", "https://localhost"):
        headers = {"Origin": origin}
        answer = ask(addon, page, method, path, body, headers=headers, auth=addon.login)
        assert answer.status_code == 403, origin
    if body:
        assert silences(addon) == []


@parametrized
def test_links_and_images_of_other_sites_are_refused_but_for_pages(addon, page, method, path, body):
    """What a browser sends for an image has no Origin; a person may follow a link."""
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    assert (
        ask(addon, page, method, path, body, headers=headers, auth=addon.login).status_code == 403
    )
    headers["Sec-Fetch-Mode"] = "navigate"
    home = httpx.get(getattr(addon, page), headers=headers, auth=addon.login)
    assert home.status_code != 403


def test_a_query_cannot_take_all_memory(addon):
    (before,) = addon.stack.inspect("prometheus")
    query = "max_over_time(vector(1)[49000000s:1s])"
    answer = httpx.get(
        f"{addon.url}/api/v1/query", params={"query": query}, auth=addon.login, timeout=60
    )
    assert answer.status_code == 422
    (after,) = addon.stack.inspect("prometheus")
    assert after["State"]["StartedAt"] == before["State"]["StartedAt"]


@parametrized
def test_no_preflight_of_other_sites_succeeds(addon, page, method, path, body):
    headers = {"Origin": FOREIGN, "Access-Control-Request-Method": method}
    assert ask(addon, page, "OPTIONS", path, None, headers=headers).status_code == 403


@parametrized
def test_other_host_names_are_refused_with_password(addon, page, method, path, body):
    """DNS rebinding: a name of the attacker, for which his DNS gives this machine's address."""
    for host in ("evil.example", "evil.example:9090", "localhost.evil.example", "127.0.0.1.evil"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        answer = ask(addon, page, method, path, body, headers=headers, auth=addon.login)
        assert answer.status_code == 421, host


@pytest.mark.parametrize(
    ("page", "method", "path", "body"), [one for one in REQUESTS if one[0] != "grafana"]
)
def test_nobody_gets_in_without_the_password(addon, page, method, path, body):
    for login in (None, ("admin", "wrong"), ("", "")):
        assert ask(addon, page, method, path, body, auth=login).status_code == 401


def test_a_person_with_the_password_can_silence(addon):
    headers = {"Origin": addon.alertmanager}
    options = {"auth": addon.login, "headers": headers}
    url = f"{addon.alertmanager}/api/v2"
    made = httpx.post(f"{url}/silences", json=SILENCE, **options).json()["silenceID"]
    assert [one["id"] for one in silences(addon)] == [made]
    assert httpx.delete(f"{url}/silence/{made}", **options).status_code == 200
    wait_until(lambda: silences(addon)[0]["status"]["state"] == "expired", 10, "the silence's end")
    home = httpx.get(f"http://localhost:{httpx.URL(addon.url).port}/query", auth=addon.login)
    assert home.status_code == 200
    assert "frame-ancestors 'none'" in home.headers["Content-Security-Policy"]


def test_the_application_reaches_no_page(addon):
    """Not even the names of those with which it has no network in common."""
    script = """
import socket, sys
for name, port in (("prometheus", 9090), ("alertmanager", 9093), ("monitoring-proxy", 9090)):
    try:
        socket.create_connection((name, port), 3)
        print(name)
    except OSError:
        pass
"""
    assert addon.stack.execute("app", "python", "-c", script) == ""


def test_the_add_on_reaches_what_is_documented(addon):
    """A compromised container reaches what prometheus/README.md says, and nothing else."""
    expected = containment.documented("prometheus/README.md")
    if not addon.stack.containers("grafana"):
        del expected["grafana"]
        expected = {
            service: {target for target in targets if not target.startswith("grafana ")}
            for service, targets in expected.items()
        }
    containment.check(containment.reach(addon.stack), expected)
