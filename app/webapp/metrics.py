"""Metrics for Prometheus: requests, errors, saturation, and the worker processes themselves.

GET /metrics adds up what all workers of the container counted (worker_slots.py). Every label has a
fixed set of values, whatever clients send: the route and not the path, and of the methods those
below. A counter of your own, made once in the module that counts with it:

    from prometheus_client import Counter

    orders = Counter("shop_orders_total", "Orders placed, by payment", ["payment"])
    orders.labels(payment="invoice").inc()

Never a label whose values clients choose: each value is kept for ever, in every worker.
https://prometheus.io/docs/practices/naming/
"""

import glob
import os

from flask import Blueprint, abort, current_app, g, request
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_flask_exporter import PrometheusMetrics

from . import health, hosts, memory

# Set by worker_slots.py.
FOLDER = "PROMETHEUS_MULTIPROC_DIR"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

# Upper bounds in seconds. Each is kept for every route, method and status, in every worker.
BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)


def route(of_request):
    """Its pattern, as /orders/<int:number>. This function's name is the label's."""
    return of_request.url_rule.rule if of_request.url_rule else "none"


class RequestMetrics:
    """What neither prometheus-flask-exporter nor nginx (nginx/metrics.js) counts."""

    def __init__(self, registry, threads):
        self.in_flight = Gauge(
            "app_requests_in_flight",
            "Requests being answered.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        Gauge(
            "app_threads",
            "Requests that can be answered at once.",
            registry=registry,
            multiprocess_mode="livesum",
        ).set(threads)
        self.exceptions = Counter(
            "app_exceptions_total",
            "Exceptions that no view and no error handler caught.",
            ["type", "route"],
            registry=registry,
        )

    def begin(self):
        if request.method not in METHODS:
            # The method is a label, so nothing may count it. (nginx lets none of these through.)
            request.prom_exclude_all = True
            abort(405, valid_methods=METHODS)
        if request.path not in hosts.INTERNAL_PATHS:
            g.in_flight = True
            self.in_flight.inc()

    def end(self, exception):
        if g.pop("in_flight", False):
            self.in_flight.dec()
        if exception:
            self.exceptions.labels(type(exception).__name__, route(request)).inc()


class Container:
    """What is so of it at the moment of the question."""

    def collect(self):
        used, limit = memory.usage()
        for name, text, value in (
            ("app_ready", "1 while /readyz answers 200.", not health.problems()),
            ("app_memory_bytes", "Memory the container uses, but for spare cache.", used),
            ("app_memory_limit_bytes", "Memory the container may use.", limit),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, float(value))


class Counts:
    """What all workers counted, from the files that have a beginning: prometheus_client's own list
    has also what a worker is just making, and fails on it (client_python, issue 1199).
    """

    def collect(self):
        files = glob.glob(f"{os.environ[FOLDER]}/*.db")
        return MultiProcessCollector.merge([file for file in files if has_content(file)])


def has_content(file):
    try:
        return os.path.getsize(file) > 0
    except FileNotFoundError:  # the gauges of a worker that has died since
        return False


class Workers:
    """CPU, memory and open files of each, as prometheus_client has them for a process."""

    def collect(self):
        families = {}
        for link in glob.glob(f"{os.environ[FOLDER]}/*.pid"):
            worker = os.path.basename(link).removesuffix(".pid")
            try:
                pid = os.readlink(link)
            except FileNotFoundError:  # died since
                continue
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():
                samples, metric.samples = metric.samples, []
                family = families.setdefault(metric.name, metric)
                family.samples += [s._replace(labels={"worker": worker}) for s in samples]
        yield from families.values()


blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def metrics():
    """In OpenMetrics for those who ask for it. 404 for what a proxy passes on."""
    if "X-Forwarded-For" in request.headers:
        abort(404)
    registry = CollectorRegistry()
    registry.register(Container())
    if FOLDER in os.environ:
        registry.register(Workers())
        registry.register(Counts())
    else:
        # `flask run` and tests, one process: this application's, and those of modules.
        registry.register(current_app.extensions["metrics"])
        registry.register(REGISTRY)
    generate, content_type = choose_encoder(request.headers.get("Accept"))
    return generate(registry), {"Content-Type": content_type, "Cache-Control": "no-store"}


def init_app(app):
    registry = app.extensions["metrics"] = CollectorRegistry()
    own = RequestMetrics(registry, app.config["WEB_THREADS"])
    app.before_request(own.begin)
    app.teardown_request(own.end)
    exporter = PrometheusMetrics(
        app,
        path=None,
        group_by=route,
        buckets=BUCKETS,
        excluded_paths=[f"{path}$" for path in sorted(hosts.INTERNAL_PATHS)],
        registry=registry,
    )
    exporter.info(
        "app_info",
        "The version that runs.",
        version=app.config["APP_VERSION"],
        commit=app.config["APP_COMMIT"],
    )
    Counter(
        "app_worker_starts_total", "Workers started, the first ones too.", registry=registry
    ).inc()
    app.register_blueprint(blueprint)
