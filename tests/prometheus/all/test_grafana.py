"""Grafana: whole dashboards, with data for every query; and itself, where its image can be had."""

import configparser
import json
import math
import re

import httpx
import pytest
import yaml
from clone import ROOT, wait_until
from load import Load

GRAFANA = ROOT / "prometheus/grafana"
FILES = sorted((GRAFANA / "dashboards").rglob("*.json"))
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in FILES}


def variables(board: dict) -> list[dict]:
    return board["templating"].get("list", [])


PANELS = [
    pytest.param(panel, id=f"{uid}-{panel['id']}-{panel['title']}")
    for uid, board in DASHBOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
VARIABLES = [
    pytest.param(variable, id=f"{uid}-{variable['name']}")
    for uid, board in DASHBOARDS.items()
    for variable in variables(board)
]
DATA_SOURCE = {"type": "prometheus", "uid": "prometheus"}
# The plugins that are needed.
USED = {DATA_SOURCE["type"], *(p["type"] for board in DASHBOARDS.values() for p in board["panels"])}
# https://grafana.com/docs/grafana/latest/visualizations/dashboards/variables/add-template-variables/#global-variables
GLOBAL = {"__rate_interval": "1m"}
USE = re.compile(r"\$\{?(\w+)")


# What another target publishes under such a name does not count, as in server/rules.
JOBS = {
    "nginx_": "nginx",
    "flask_": "app",
    "log_forwarder_": "log-forwarder",
    "app_": "app",
    "probe_": "site",
    "node_": "node",
    "prometheus_": "prometheus",
    "alertmanager_": "alertmanager",
}
METRIC = re.compile(rf"(?<![\w:])({'|'.join(JOBS)})\w+(?![\w:(])(\{{[^}}]*\}})?")


@pytest.mark.parametrize("panel", PANELS)
def test_each_metric_is_that_of_its_job(panel):
    texts = [target["expr"] for target in panel["targets"]]
    found = [match for text in texts for match in METRIC.finditer(re.sub(r'"[^"]*"', quoted, text))]
    for match in found:
        assert f'job="{JOBS[match[1]]}"' in (match[2] or ""), match[0]


def quoted(match):
    """A label's value, in which no metric is looked for, but for a job's name."""
    return match[0] if match[0].strip('"') in JOBS.values() else '""'


def test_ids_and_titles_are_unique():
    for file in FILES:
        board = DASHBOARDS[file.stem]
        assert board["uid"] == file.stem
        ids = [panel["id"] for panel in board["panels"]]
        assert len(set(ids)) == len(ids)
    assert len(DASHBOARDS) == len(FILES) == len({board["title"] for board in DASHBOARDS.values()})


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_has_a_title_a_unit_and_the_one_data_source(panel):
    assert panel["title"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == DATA_SOURCE


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_variable_is_there_and_used(uid):
    board = DASHBOARDS[uid]
    names = {variable["name"] for variable in variables(board)}
    targets = [t["expr"] for panel in board["panels"] for t in panel.get("targets", [])]
    assert {use for text in targets for use in USE.findall(text)} - {*GLOBAL} == names


def test_links_lead_to_a_dashboard_and_its_variables():
    links = re.findall(r'"url": "/d/([^?]+)\?([^"]+)"', "".join(f.read_text() for f in FILES))
    assert len(links) == 6
    for uid, query in links:
        names = {variable["name"] for variable in variables(DASHBOARDS[uid])}
        given = re.findall(r"var-(\w+)=", query) + re.findall(r"\$\{(\w+):queryparam", query)
        assert {*given} == names


def test_what_is_provisioned_fits_together():
    provisioned = {
        file.parent.name: yaml.safe_load(file.read_text())
        for file in (GRAFANA / "provisioning").rglob("*.yml")
    }
    (source,) = provisioned["datasources"]["datasources"]
    assert {name: source[name] for name in DATA_SOURCE} == DATA_SOURCE
    assert source["editable"] is False
    disabled = re.search(r"^disable_plugins = (.+)", (GRAFANA / "grafana.ini").read_text(), re.M)[1]
    assert not {*disabled.split(",")} & USED
    asked = yaml.safe_load((ROOT / "prometheus/server/prometheus.yml").read_text())["global"]
    assert source["jsonData"]["timeInterval"] == asked["scrape_interval"]
    (provider,) = provisioned["dashboards"]["providers"]
    # Otherwise one that an update renames stays, as a copy that nothing updates.
    assert not provider.get("disableDeletion")
    home = re.search(r"default_home_dashboard_path = (.+)", (GRAFANA / "grafana.ini").read_text())
    folder = provider["options"]["path"]
    assert f"COPY --chmod=0755 dashboards/ {folder}\n" in (GRAFANA / "Dockerfile").read_text()
    assert home[1] in {f"{folder}/{file.relative_to(GRAFANA / 'dashboards')}" for file in FILES}


@pytest.fixture(scope="module")
def busy(addon):
    """The add-on while visitors ask, some of them for what fails."""
    with Load(addon.stack, clients=1, pause=0.05) as load, addon.stack.client() as client:
        load.carry_on(20)
        for _ in range(3):
            assert client.get("/diagnostics/error").status_code == 500
        yield addon


def filled_in(expression: str, values: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda use: (GLOBAL | values)[use[1]], expression)


def values_of(addon, variable: dict) -> set[str]:
    series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]).groups()
    asked = addon.client.get(f"/api/v1/label/{label}/values", params={"match[]": series})
    return {*asked.raise_for_status().json()["data"]}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_has_values(busy, variable):
    expected = {
        "route": {"/diagnostics/echo", "/diagnostics/error"},
        "instance": {s["metric"]["instance"] for s in busy.query('up{job="app"}')},
    }[variable["name"]]
    wait_until(lambda: values_of(busy, variable) >= expected, 20, f"{expected}")


@pytest.mark.parametrize("panel", PANELS)
def test_every_query_has_data(busy, panel):
    (instance, *_) = (s["metric"]["instance"] for s in busy.query('up{job="app"}'))
    # All of them; and one, as Grafana writes it into a regular expression in quotes.
    choices = (
        {"route": ".*", "instance": ".*"},
        {"route": "/diagnostics/echo", "instance": re.escape(instance).replace("\\", "\\\\")},
    )
    for target in panel["targets"]:
        legend = re.findall(r"{{(\w+)}}", target["legendFormat"])
        if "vector(0)" in target["expr"]:
            for name, matchers in SELECTOR.findall(target["expr"]):
                labels = {*legend, *re.findall(r"(\w+)[!=]", matchers)}
                wait_until(
                    lambda n=name, ls=labels: has_labels(busy, n, ls), 30, f"{name} {labels}"
                )
        for expression in {filled_in(target["expr"], values) for values in choices}:
            found = wait_until(lambda e=expression: numbers(busy, e), 30, expression)
            if found == [{}] and "or on() vector(0)" in expression:
                continue
            for label in legend:
                assert any(label in series for series in found), label


# Of `or vector(0)`, which would hide that a metric is not there.
SELECTOR = re.compile(r"\b(up\b|\w+(?=\{))(?:\{([^}]*)\})?")


def has_labels(addon, name: str, labels: set[str]) -> bool:
    return any(labels <= series["metric"].keys() for series in addon.query(name))


def numbers(addon, expression: str) -> list[dict[str, str]]:
    """The labels of the series that have a value which is a number."""
    return [
        series["metric"]
        for series in addon.query(expression)
        if not math.isnan(float(series["value"][1]))
    ]


@pytest.mark.parametrize(
    ("title", "labels"),
    [
        ("Exceptions", {"type": "RuntimeError", "route": "/diagnostics/error"}),
        ("Errors", {"route": "/diagnostics/error"}),
        ("Answers", {"method": "GET", "status": "500"}),
    ],
)
def test_what_fails_is_seen(busy, client, title, labels):
    targets = [
        filled_in(target["expr"], {"route": ".*", "instance": ".*"})
        for panel in DASHBOARDS["requests"]["panels"]
        if panel["title"] == title
        for target in panel["targets"]
    ]

    def seen() -> bool:
        # Again and again, because a counter's first value is no increase.
        assert client.get("/diagnostics/error").status_code == 500
        return any(labels in numbers(busy, f"({target}) > 0") for target in targets)

    wait_until(seen, 30, title)


def test_it_runs_or_one_line_says_why_not(addon):
    # Among the lines of BuildKit and Compose, which name it too.
    shown = f"{addon.grafana} (grafana)"
    left_out = re.compile(
        r"grafana is left out: grafana/grafana:[\d.]+ is out of reach and has no fallback image"
    )
    lines = addon.said.splitlines()
    found = [line for line in lines if line == shown or left_out.fullmatch(line)]
    assert len(found) == 1
    assert (found == [shown]) == bool(addon.stack.containers("grafana"))


def test_the_password_is_not_changed_where_nobody_could_be_told(addon):
    if addon.stack.containers("grafana"):
        addon.stack.compose("stop", "grafana")
    file = addon.stack.folder / "secrets/grafana_password"
    before = file.read_text()
    answer = addon.stack.make("grafana-password", check=False)
    assert answer.returncode
    assert "error: Grafana does not run" in answer.stderr
    assert file.read_text() == before
    assert len(before.strip()) >= 64
    if addon.stack.containers("grafana"):
        addon.stack.make("up")


@pytest.fixture(scope="module")
def grafana(addon):
    if not addon.stack.containers("grafana"):
        pytest.skip("the image of Grafana is out of reach")
    return addon.stack


def ask(addon, path: str, password: str = "", **options) -> httpx.Response:
    auth = ("admin", password) if password else None
    method = "POST" if "json" in options else "GET"
    return httpx.request(method, f"{addon.grafana}/api/{path}", auth=auth, **options)


def password(stack) -> str:
    return (stack.folder / "secrets/grafana_password").read_text().strip()


def test_nobody_gets_in_without_the_password(addon, grafana):
    for given, status in (("", 401), ("admin", 401), (password(grafana), 200)):
        assert ask(addon, "dashboards/uid/requests", given).status_code == status


def test_every_setting_is_one_that_this_version_knows(grafana):
    ours, theirs = (
        configparser.RawConfigParser(strict=False, allow_no_value=True) for _ in range(2)
    )
    ours.read(GRAFANA / "grafana.ini")
    known = grafana.execute("grafana", "cat", "/usr/share/grafana/conf/defaults.ini")
    theirs.read_string(f"[DEFAULT]\n{known}")
    for section in ours.sections():
        assert {*ours[section]} <= {*theirs[section]}, section


def test_it_reaches_prometheus_and_has_all_dashboards(addon, grafana):
    health = ask(addon, "datasources/uid/prometheus/health", password(grafana))
    assert health.json()["status"] == "OK", health.text
    for file in FILES:
        found = ask(addon, f"dashboards/uid/{file.stem}", password(grafana)).json()
        assert found["meta"]["folderTitle"] == file.parent.name
        assert found["meta"]["provisioned"]
        titles = [panel["title"] for panel in found["dashboard"]["panels"]]
        assert titles == [panel["title"] for panel in DASHBOARDS[file.stem]["panels"]]


def test_grafana_has_data_for_every_panel(busy, grafana):
    values = {"route": ".*", "instance": ".*", "__rate_interval": "$__rate_interval"}
    for parameter in PANELS:
        (panel,) = parameter.values
        queries = [
            {**target, "expr": filled_in(target["expr"], values), "intervalMs": 15000}
            for target in panel["targets"]
        ]
        body = {"from": "now-5m", "to": "now", "queries": queries}

        def has_data(body=body) -> bool:
            results = ask(busy, "ds/query", password(grafana), json=body).json()["results"]
            return all(
                any(any(column) for frame in result["frames"] for column in frame["data"]["values"])
                for result in (results[query["refId"]] for query in body["queries"])
            )

        wait_until(has_data, 60, f"data of {parameter.id}")


def test_nothing_is_installed_from_elsewhere(grafana):
    log = "".join(grafana.stdout(grafana.containers("grafana")[0]))
    assert "nstalling plugin" not in log
    assert "Failed to install" not in log
    # Without a way out it says so; with one, it has asked grafana.com without a word.
    assert "plugin manifest keys" not in log


def test_another_password_counts_at_once(addon, grafana):
    before = password(grafana)
    grafana.make("grafana-password")
    assert password(grafana) != before
    assert ask(addon, "org", before).status_code == 401
    assert ask(addon, "org", password(grafana)).status_code == 200
