#!/usr/bin/env python3
"""The dashboards. `make dashboards` writes them to dashboards/FOLDER/UID.json, which the image has.

A query is a pair: its legend, and an expression of PromQL. What may not have been counted yet has
`or vector(0)` behind it, so that a panel is empty only where nobody asked for anything.
https://grafana.github.io/grafana-foundation-sdk/
"""

import re
from pathlib import Path

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    DataSourceRef,
    GraphThresholdsStyleMode,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

HERE = Path(__file__).parent / "dashboards"
# provisioning/datasources/prometheus.yml
DATA_SOURCE = DataSourceRef(type_val="prometheus", uid="prometheus")
WIDTH = 24  # of the grid
# Of nginx's answers, as in ../server/rules/recording.yml.
ERRORS = 'status=~"5..", status!~"501|505"'

# The jobs from which metrics are read, by the beginning of their names, as in ../server/rules: what
# another target publishes under such a name does not count.
JOBS = {
    "nginx_": '="nginx"',
    "flask_": '="app"',
    "log_forwarder_": '="log-forwarder"',
    "app_": '="app"',
    "probe_": '="site"',
    "node_": '="node"',
    "prometheus_": '="prometheus"',
    "alertmanager_": '="alertmanager"',
}
METRIC = re.compile(rf"(?<![\w:])({'|'.join(JOBS)})(\w+)(?![\w:(])(?:{{([^}}]*)}})?")

Query = tuple[str, str]


def of_its_job(expression: str) -> str:
    """The expression with the job of each metric."""

    def select(match: re.Match) -> str:
        prefix, rest, matchers = match.groups()
        return f"{prefix}{rest}{{{', '.join(filter(None, (f'job{JOBS[prefix]}', matchers)))}}}"

    return METRIC.sub(select, expression)


def target(query: Query, number: int) -> prometheus.Dataquery:
    legend, expression = query
    return (
        prometheus.Dataquery()
        .ref_id(chr(ord("A") + number))
        .datasource(DATA_SOURCE)
        .expr(of_its_job(expression))
        .legend_format(legend)
    )


def limits(*values: float) -> build.ThresholdsConfig:
    """Colours from each of these values on: green below, orange, red from the last on."""
    colours = ["green", *["orange"] * (len(values) - 1), "red"] if values else ["green"]
    steps = [
        Threshold(value, colour) for value, colour in zip([None, *values], colours, strict=True)
    ]
    return build.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps)


def graph(title: str, unit: str, *queries: Query, about: str = "", columns: int = 3):
    """Lines over time, `columns` of these panels beside each other."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(about)
        .datasource(DATA_SOURCE)
        .unit(unit)
        .min(0)
        .span(WIDTH // columns)
        .fill_opacity(10)
        .tooltip(options.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for number, query in enumerate(queries):
        panel.with_target(target(query, number).range())
    return panel


def stacked(*arguments, **keywords):
    """A graph whose lines add up."""
    stacking = options.StackingConfig().mode(StackingMode.NORMAL)
    return graph(*arguments, **keywords).stacking(stacking).fill_opacity(40)


def number(title: str, unit: str, expression: str, about: str = "", bounds: tuple = (), legend=""):
    """What is so now."""
    return (
        stat.Panel()
        .title(title)
        .description(about)
        .datasource(DATA_SOURCE)
        .unit(unit)
        .thresholds(limits(*bounds))
        .span(WIDTH // 6)
        .height(4)
        .with_target(target((legend, expression), 0).instant())
    )


def distribution(title: str, unit: str, expression: str, about: str):
    """How many in each bucket of a histogram."""
    query = target(("{{le}}", expression), 0).format(PromQueryFormat.HEATMAP).range()
    return (
        heatmap.Panel()
        .title(title)
        .description(about)
        .datasource(DATA_SOURCE)
        .unit(unit)
        .span(WIDTH // 3)
        .with_target(query)
    )


def choice(name: str, series: str) -> build.QueryVariable:
    """Which of the label's values to show: all of them, or some."""
    return (
        build.QueryVariable(name)
        .datasource(DATA_SOURCE)
        .query(f"label_values({of_its_job(series)}, {name})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )


def dashboard(uid: str, title: str, about: str, *contents, choices=(), since: str = "now-3h"):
    """Panels under rows; a row is given by its title alone."""
    result = (
        build.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["flask-in-production"])
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            build.DashboardLink("Dashboards")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["flask-in-production"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in choices:
        result.with_variable(variable)
    for id_, content in enumerate(contents, start=1):
        if isinstance(content, str):
            result.with_row(build.Row(content).id(id_))
        else:
            result.with_panel(content.id(id_))
    return result


def rate(series: str) -> str:
    return f"rate({series}[$__rate_interval])"


def total(series: str, by: str = "") -> str:
    return f"sum by ({by}) ({rate(series)})"


def share(part: str, whole: str, by: str = "") -> str:
    """0 where there is no such part."""
    return f"({total(part, by)} or {total(whole, by)} * 0) / ({total(whole, by)} > 0)"


def quantile(q: float, buckets: str, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {total(buckets, labels)})"


def chosen(metric: str, *labels: str) -> str:
    """Of the routes and replicas that were chosen: each replica is an instance."""
    labels = ('route=~"$route"', 'instance=~"$instance"', *labels)
    return f"{metric}{{{', '.join(labels)}}}"


def only(label: str, panel: timeseries.Panel) -> timeseries.Panel:
    """A click on a line shows that route, or that replica, alone; the other choice stays."""
    other = {"route": "instance", "instance": "route"}[label]
    line = f"var-{label}=${{__field.labels.{label}}}&${{{other}:queryparam}}"
    url = f"/d/requests?{line}&${{__url_time_range}}"
    return panel.data_links([build.DashboardLink(f"only this {label}").url(url)])


def requests():
    answers = chosen("flask_http_request_duration_seconds_count")
    errors = chosen("flask_http_request_duration_seconds_count", 'status=~"5.."')
    buckets = chosen("flask_http_request_duration_seconds_bucket")

    def by(label: str):
        line = f"{{{{{label}}}}}"
        return (
            f"By {label}",
            only(label, graph("Requests", "reqps", (line, total(answers, label)))),
            only(
                label,
                graph(
                    "Errors",
                    "percentunit",
                    (line, share(errors, answers, label)),
                    about="5xx of all.",
                ),
            ),
            only(
                label,
                graph(
                    "99th percentile",
                    "s",
                    (line, quantile(0.99, buckets, label)),
                    about="One in a hundred answers took longer.",
                ),
            ),
        )

    return dashboard(
        "requests",
        "Requests",
        "Rate, errors and duration of what the application answers. A click on a line leads to"
        " that route or replica alone.",
        number("Requests", "reqps", total(answers)),
        number("Errors", "percentunit", share(errors, answers), "5xx of all.", (0.001, 0.01)),
        number("Median", "s", quantile(0.5, buckets), "Half of the answers took longer."),
        number(
            "99th percentile",
            "s",
            quantile(0.99, buckets),
            "One in a hundred answers took longer.",
            (0.5, 1),
        ),
        number(
            "Replicas",
            "none",
            'sum(up{job="app", instance=~"$instance"})',
            "That Prometheus reaches.",
        ),
        number(
            "Versions",
            "none",
            'count by (version) (app_info{instance=~"$instance"})',
            "Replicas of each; more than one version while a release is under way.",
            legend="{{version}}",
        ),
        *by("route"),
        *by("instance"),
        "All that is chosen",
        stacked(
            "Answers",
            "reqps",
            ("{{method}} {{status}}", total(answers, "method, status")),
            about="By method and status.",
        ),
        graph(
            "Duration",
            "s",
            ("median", quantile(0.5, buckets)),
            ("90th percentile", quantile(0.9, buckets)),
            ("99th percentile", quantile(0.99, buckets)),
        ),
        distribution(
            "Duration, all answers",
            "s",
            f"sum by (le) (increase({buckets}[$__rate_interval]))",
            "How many answers in each bucket of the histogram.",
        ),
        graph(
            "Exceptions",
            "cps",
            (
                "{{type}} {{route}}",
                f"{total(chosen('app_exceptions_total'), 'type, route')} or on() vector(0)",
            ),
            about="That no view and no error handler caught; the logs have each.",
        ),
        choices=(
            choice("route", "flask_http_request_duration_seconds_count"),
            choice("instance", "app_info"),
        ),
    )


def edge():
    answers = "nginx_http_requests_total"
    buckets = "nginx_http_request_duration_seconds_bucket"
    from_cache = 'nginx_http_cache_total{state=~"HIT|STALE|UPDATING"}'
    return dashboard(
        "edge",
        "Edge",
        "What visitors get from nginx, and what the blackbox exporter gets as one of them.",
        number("Requests", "reqps", total(answers)),
        number(
            "Errors",
            "percentunit",
            share(f"{answers}{{{ERRORS}}}", answers),
            "5xx of all; those that nginx gives in place of the application are in here.",
            (0.001, 0.01),
        ),
        number(
            "99th percentile",
            "s",
            quantile(0.99, buckets),
            "One in a hundred answers took longer.",
            (0.5, 1),
        ),
        number(
            "From the cache",
            "percentunit",
            share(from_cache, "nginx_http_cache_total"),
            "Of the requests that the cache was asked for.",
        ),
        number("Site", "bool_yes_no", "min(probe_success)", "Do visits through nginx succeed?"),
        number(
            "Certificate",
            "s",
            "min(probe_ssl_earliest_cert_expiry) - time()",
            "Expires in this time.",
        ),
        "Requests",
        stacked("Answers", "reqps", ("{{status}}", total(answers, "status")), about="By status."),
        graph(
            "Duration",
            "s",
            ("median", quantile(0.5, buckets)),
            ("90th percentile", quantile(0.9, buckets)),
            ("99th percentile", quantile(0.99, buckets)),
            about="Until the last byte was sent, so slow visitors are in here.",
        ),
        graph(
            "Refused by the limits",
            "reqps",
            ("{{limit}}", f"{total('nginx_http_rejected_total', 'limit')} or on() vector(0)"),
            about="With 429, by RATE_LIMIT, CONNECTION_LIMIT and UPLOAD_LIMIT.",
        ),
        stacked("Cache", "reqps", ("{{state}}", total("nginx_http_cache_total", "state"))),
        graph("Sent", "Bps", ("bytes", total("nginx_http_response_bytes_total"))),
        graph("Connections", "none", ("{{state}}", "sum by (state) (nginx_connections)")),
        "As a visitor",
        stacked(
            "A visit",
            "s",
            ("{{phase}}", "sum by (phase) (probe_http_duration_seconds)"),
            about="Of the blackbox exporter, by phase.",
        ),
        graph("Visits that succeed", "bool", ("{{instance}}", "probe_success")).max(1),
        graph("Status of the answer", "none", ("{{instance}}", "probe_http_status_code")),
    )


def slo():
    budget = "(1 - scalar(slo:availability:target))"
    answers = "nginx_http_requests_total"
    spent = f"sum(increase({answers}{{{ERRORS}}}[30d])) or vector(0)"
    asked = f"sum(increase({answers}[30d])) > 0"
    errors = "slo:errors:ratio_rate"
    windows = ("5m", "30m", "1h", "2h", "6h", "1d", "3d")
    # Where the alerts of prometheus/server/rules/alerts.yml begin.
    lines = (1, 3, 6, 14.4)
    return dashboard(
        "slo",
        "SLO and error budget",
        "The share of answers without an error of ours, and how fast errors use up the rest.",
        number("Target", "percentunit", "slo:availability:target").decimals(2),
        number("Last hour", "percentunit", f"1 - {errors}1h", "Answers without an error.").decimals(
            3
        ),
        number(
            "Three days", "percentunit", f"1 - {errors}3d", "Answers without an error."
        ).decimals(3),
        number(
            "Budget left",
            "percentunit",
            f"1 - ({spent}) / ({asked}) / {budget}",
            "Of 30 days, or of PROMETHEUS_RETENTION if that is shorter. Below 0 it was overdrawn.",
        ),
        number(
            "Burn rate",
            "suffix:×",
            f"{errors}1h / {budget}",
            "Of the last hour. At 1 the budget lasts 30 days, at 14.4 two.",
            lines,
        ),
        number(
            "Alerts",
            "none",
            'count(ALERTS{alertname=~"ErrorBudget.*", alertstate="firing"}) or vector(0)',
            "That fire, on the budget.",
            (1,),
        ),
        "By window",
        graph(
            "Burn rate",
            "suffix:×",
            *((window, f"{errors}{window} / {budget}") for window in windows),
            about="An alert comes when a long and a short window are both above a line: 1h and 5m"
            " above 14.4, 6h and 30m above 6, 1d and 2h above 3, 3d and 6h above 1.",
            columns=1,
        )
        .thresholds(limits(*lines))
        .thresholds_style(
            options.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED)
        ),
        graph(
            "Errors",
            "percentunit",
            *((window, f"{errors}{window}") for window in windows),
            ("allowed", "1 - slo:availability:target"),
            about="Of all answers.",
            columns=1,
        ),
        since="now-24h",
    )


def workers():
    def each(metric: str) -> str:
        return f'sum by (instance) ({metric}{{instance=~"$instance"}})'

    def process(metric: str) -> str:
        return f'{metric}{{job="app", instance=~"$instance"}}'

    return dashboard(
        "workers",
        "Workers",
        "Threads, memory and lives of the application's processes.",
        number("Replicas ready", "none", 'sum(app_ready{instance=~"$instance"})'),
        number(
            "Busiest replica",
            "percentunit",
            f"max({each('app_requests_in_flight')} / {each('app_threads')})",
            "Of its threads. The question of Prometheus itself takes one.",
            (0.7, 0.9),
        ),
        number(
            "Fullest replica",
            "percentunit",
            f"max({each('app_memory_bytes')} / {each('app_memory_limit_bytes')})",
            "Of APP_MEMORY, at which the kernel kills a worker.",
            (0.7, 0.9),
        ),
        "Replicas",
        graph(
            "Requests being answered",
            "none",
            ("{{instance}}", each("app_requests_in_flight")),
            ("threads of {{instance}}", each("app_threads")),
            about="With all threads busy, more requests wait.",
        ),
        graph(
            "Memory",
            "bytes",
            ("{{instance}}", each("app_memory_bytes")),
            ("limit of {{instance}}", each("app_memory_limit_bytes")),
        ),
        graph(
            "Workers started",
            "none",
            (
                "{{instance}}",
                'sum by (instance) (increase(app_worker_starts_total{instance=~"$instance"}[10m]))',
            ),
            about="Within ten minutes. One after 10,000 requests is no fault; more have crashed.",
        ),
        "Workers",
        graph(
            "CPU",
            "percentunit",
            ("{{instance}} {{worker}}", rate(process("process_cpu_seconds_total"))),
        ),
        graph(
            "Memory of each",
            "bytes",
            ("{{instance}} {{worker}}", process("process_resident_memory_bytes")),
        ),
        graph(
            "Open files",
            "none",
            ("{{instance}} {{worker}}", process("process_open_fds")),
            about="Connections are among them. What only ever rises is a leak.",
        ),
        choices=(choice("instance", "app_info"),),
    )


def host():
    idle, busy = 'node_cpu_seconds_total{mode="idle"}', 'node_cpu_seconds_total{mode!="idle"}'
    available, memory = "node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes"
    disk_used = "1 - node_filesystem_avail_bytes / node_filesystem_size_bytes"
    return dashboard(
        "host",
        "Host",
        "The machine: CPU, memory, and the disk that Docker is on.",
        number("CPU", "percentunit", f"1 - avg by (instance) ({rate(idle)})", bounds=(0.8, 0.95)),
        number("Memory", "percentunit", f"1 - {available} / {memory}", bounds=(0.85, 0.95)),
        number("Disk", "percentunit", disk_used, bounds=(0.8, 0.95)),
        number("Cores", "none", f"count by (instance) ({idle})"),
        number("Runs for", "s", "time() - node_boot_time_seconds"),
        "CPU and memory",
        stacked("CPU by mode", "percentunit", ("{{mode}}", f"avg by (mode) ({rate(busy)})")),
        graph(
            "Load",
            "short",
            ("1 minute", "node_load1"),
            ("5 minutes", "node_load5"),
            ("15 minutes", "node_load15"),
            about="Processes that run, or wait for a core or the disk.",
        ),
        stacked(
            "Memory in use", "bytes", ("used", f"{memory} - {available}"), ("available", available)
        ),
        "Disk",
        graph("Disk in use", "percentunit", ("{{device}}", disk_used)).max(1),
        graph(
            "Read and written",
            "Bps",
            ("read {{device}}", rate("node_disk_read_bytes_total")),
            ("written {{device}}", rate("node_disk_written_bytes_total")),
        ),
        graph(
            "Disk busy",
            "percentunit",
            ("{{device}}", rate("node_disk_io_time_seconds_total")),
            about="The share of the time in which it had something to do.",
        ),
    )


def itself():
    blocks, log = "prometheus_tsdb_storage_blocks_bytes", "prometheus_tsdb_wal_storage_size_bytes"
    return dashboard(
        "prometheus",
        "Prometheus",
        "The monitoring itself: does it reach everything, keep up, and tell people?",
        number("Targets down", "none", "count(up == 0) or vector(0)", bounds=(1,)),
        number(
            "Alerts",
            "none",
            'count(ALERTS{alertstate="firing", alertname!="Watchdog"}) or vector(0)',
            "That fire, but for the one that always does.",
            (1,),
        ),
        number("Series", "short", "prometheus_tsdb_head_series"),
        number("Disk", "bytes", f"{blocks} + {log}", "PROMETHEUS_SIZE is the most."),
        number("Runs for", "s", 'time() - process_start_time_seconds{job="prometheus"}'),
        number("Alertmanagers", "none", "prometheus_notifications_alertmanagers_discovered"),
        "Questions",
        graph("Targets", "bool", ("{{job}} {{instance}}", "up"), about="1 while it answers.").max(
            1
        ),
        graph("Time to answer", "s", ("{{job}} {{instance}}", "scrape_duration_seconds")),
        graph(
            "Samples in an answer",
            "short",
            ("{{job}} {{instance}}", "scrape_samples_post_metric_relabeling"),
            about="What only ever rises has a label without bounds.",
        ),
        "Rules and alerts",
        graph(
            "Time to compute",
            "s",
            ("{{rule_group}}", "prometheus_rule_group_last_duration_seconds"),
            about="Each group of rules.",
        ),
        stacked(
            "Alerts by state",
            "none",
            ("{{alertname}} {{alertstate}}", "sum by (alertname, alertstate) (ALERTS)"),
        ),
        graph(
            "What went wrong",
            "cps",
            ("rules not computed", total("prometheus_rule_evaluation_failures_total")),
            ("alerts not delivered", total("prometheus_notifications_dropped_total")),
            ("people not told", total("alertmanager_notifications_failed_total")),
        ),
        "Its own needs",
        graph("CPU", "percentunit", ("{{job}}", rate('process_cpu_seconds_total{job!="app"}'))),
        graph("Memory", "bytes", ("{{job}}", 'process_resident_memory_bytes{job!="app"}')),
        graph(
            "Samples stored",
            "cps",
            ("samples", rate("prometheus_tsdb_head_samples_appended_total")),
        ),
    )


FOLDERS = {"Service": (requests, edge, slo), "Infrastructure": (workers, host, itself)}


def files() -> dict[Path, str]:
    """What belongs into each file."""
    built = {folder: [make().build() for make in makers] for folder, makers in FOLDERS.items()}
    return {
        HERE / folder / f"{one.uid}.json": JSONEncoder(indent=2, sort_keys=True).encode(one) + "\n"
        for folder, several in built.items()
        for one in several
    }


if __name__ == "__main__":
    for file, text in files().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
