"""The monitoring add-on, running beside the stack, with intervals shortened for tests."""

import http.server
import json
import re
import threading

import httpx
import load
import pytest
from clone import ROOT, Clone, free_ports, wait_until

# A fork that does not want the add-on deletes its folder.
collect_ignore_glob = [] if (ROOT / "prometheus").exists() else ["test_*.py"]


class Receiver:
    """Where Alertmanager sends alerts: a web server of this machine, on the gateway's address."""

    def __init__(self):
        self.alerts, self.calls = [], 0
        self.status = 200  # what it answers
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path != "/alerts":
                    outer.calls += 1
                elif outer.status == 200:
                    outer.alerts += body["alerts"]
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *words):
                pass

        # Containers reach this machine at the address of their network's gateway.
        self.server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)  # noqa: S104
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def names(self, status: str, since: int = 0) -> set[str]:
        """Of the alerts that have come, but for the first `since`."""
        return {a["labels"]["alertname"] for a in self.alerts[since:] if a["status"] == status}


class Addon:
    def __init__(self, stack: Clone, receiver: Receiver, prometheus: str, alertmanager: str):
        self.stack, self.receiver, self.url = stack, receiver, prometheus
        self.alertmanager = alertmanager
        self.login = ("admin", (stack.folder / "secrets/monitoring_password").read_text().strip())
        self.client = httpx.Client(base_url=prometheus, auth=self.login)

    def query(self, expression: str) -> list[dict]:
        answer = self.client.get("/api/v1/query", params={"query": expression})
        answer.raise_for_status()
        return answer.json()["data"]["result"]

    def value(self, expression: str) -> float | None:
        """Of an expression that gives one series, or none."""
        found = self.query(expression)
        return float(found[0]["value"][1]) if found else None

    def active(self) -> set[str]:
        """What Prometheus tells Alertmanager, also when it cannot store that."""
        answer = self.client.get("/api/v1/alerts").raise_for_status()
        alerts = answer.json()["data"]["alerts"]
        return {a["labels"]["alertname"] for a in alerts if a["state"] == "firing"}

    def firing(self) -> set[str]:
        found = self.query('ALERTS{alertstate="firing"}')
        return {series["metric"]["alertname"] for series in found}


def shorten(stack: Clone) -> None:
    """Ask every second, look at seconds instead of minutes and hours, and let alerts fire soon.

    Not what looks at the disk for hours: what tests write in ten seconds foretells nothing.
    """
    for name, changes in {
        "server/prometheus.yml": [
            (r"(scrape|evaluation)_interval: .*", r"\1_interval: 1s"),
            (r"scrape_timeout: .*", "scrape_timeout: 1s"),
            (r"refresh_interval: \d+s", "refresh_interval: 1s"),
            # Too few to be many errors by themselves.
            (r"job_name: site$", "job_name: site\n    scrape_interval: 2s"),
        ],
        # Tell Alertmanager again at once, if it was not there yet.
        # And forget sooner what does not come any more.
        "server/start.sh": [
            (r'"\$@"', r"--rules.alert.resend-delay=1s --query.lookback-delta=30s \g<0>")
        ],
        "server/rules/recording.yml": [(r"\[\d+[mhd]\]", "[10s]")],
        "server/rules/alerts.yml": [
            # All the same, or those that others inhibit would come before these.
            (r"for: \d+[mh]$", "for: 10s"),
            # Alertmanager tries for ten seconds before it counts a failure.
            (r"\[(10|15)m\]", "[30s]"),
            (r"\[5m:\]", "[10s:1s]"),
            (r"(_total.*)\[(2m|5m|1h|6h|1d|3d)\]", r"\1[10s]"),
        ],
        "alertmanager/alertmanager.yml": [
            (r"group_wait: .*", "group_wait: 1s"),
            (r"group_interval: .*", "group_interval: 1s"),
        ],
    }.items():
        # From the repository: the next module's add-on is shortened in the same clone.
        text = (ROOT / "prometheus" / name).read_text()
        for pattern, replacement in changes:
            text, number = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert number, f"{name}: {pattern}"
        (stack.folder / "prometheus" / name).write_text(text)


@pytest.fixture(scope="module")
def addon(stack):
    receiver = Receiver()
    shorten(stack)
    prometheus, alertmanager, grafana = free_ports(3)
    stack.write_settings(
        PROMETHEUS_PORT=str(prometheus),
        ALERTMANAGER_PORT=str(alertmanager),
        # What causes.py asks for at once is above it.
        CONNECTION_LIMIT="16",
        GRAFANA_PORT=str(grafana),
        COMPOSE_FILE="docker-compose.yml:prometheus/docker-compose.yml",
    )
    stack.make("secrets")
    gateway = f"http://host:{receiver.port}"
    secrets = stack.folder / "secrets"
    (secrets / "alert_webhook_url").write_text(f"{gateway}/alerts")
    (secrets / "dead_mans_switch_url").write_text(f"{gateway}/alive")
    # A name for this machine, whose address is known only when the network is there.
    (stack.folder / "docker-compose.override.yml").write_text(
        "services: {alertmanager: {extra_hosts: ['host:host-gateway']}}\n"
    )
    stack.write_settings(
        COMPOSE_FILE=f"{stack.settings['COMPOSE_FILE']}:docker-compose.override.yml"
    )
    try:
        said = stack.make("up").stdout
        pages = (f"http://127.0.0.1:{port}" for port in (prometheus, alertmanager))
        addon = Addon(stack, receiver, *pages)
        addon.grafana, addon.said = f"http://127.0.0.1:{grafana}", said
        assert f"{addon.url} (prometheus): user admin, the password is in secrets/" in said
        wait_until(lambda: addon.value("sum(up)") == 7, 30, "all targets up")
        yield addon
    finally:
        for name in ("COMPOSE_FILE", "PROMETHEUS_PORT", "ALERTMANAGER_PORT", "GRAFANA_PORT"):
            stack.settings.pop(name)
        stack.settings |= load.LIMITS
        (stack.folder / "docker-compose.override.yml").unlink()
        stack.write_settings()
        stack.make("up")
        # What it remembers would alarm the next module's add-on.
        stack.run(
            "docker", "volume", "rm", f"{stack.name}_prometheus", f"{stack.name}_alertmanager"
        )
