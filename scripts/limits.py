"""Settings and the limits that they need: a table, read before anything is built or replaced.

Each rule compares what the settings need with one limit. What is here comes from Compose's own
reading of the files, overrides included, and from nginx's configuration.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from scripts.compose import ROOT

UNITS = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}
MB = 2**20

# The application's defaults, which docker-compose.yml leaves empty (app/webapp/config.py), and what
# it counts (app/webapp/pids.py). tests/unit/test_limits.py holds both against the originals.
DEFAULTS = {"WEB_THREADS": 4, "MAX_BODY_SIZE": 10 * MB}
BESIDE, OTHERS = 4, 9

# Memory. A process of the sample application: 28 MB (RssAnon), of which 16 MB are shared with the
# master's at first. A busy thread. nginx itself. A connection to nginx that has sent the first
# bytes of a TLS handshake: 51.6 kB, by the container's memory without and with 1500 of them; after
# it 25 kB.
PROCESS, THREAD, NGINX, CONNECTION = 32 * MB, 128 * 2**10, 32 * MB, 52 * 2**10

# The largest response in nginx's cache, and the largest body that is no upload (limits.conf).
KEPT, SMALL_BODY = 300_000, 100 * 2**10


class Rule(NamedTuple):
    limit: str
    needed: Callable[[dict], float]
    what: str  # that needs it, filled in with the settings
    lower: str  # what else to change


# In an order in which a limit comes before those that hold it.
RULES = (
    Rule(
        "APP_PIDS",
        lambda n: n["WEB_CONCURRENCY"] * (n["WEB_THREADS"] + BESIDE) + OTHERS,
        "{WEB_CONCURRENCY} workers of {WEB_THREADS} threads",
        "WEB_THREADS",
    ),
    Rule(
        "APP_TMP",
        lambda n: n["WEB_CONCURRENCY"] * n["WEB_THREADS"] * n["MAX_BODY_SIZE"],
        "MAX_BODY_SIZE={MAX_BODY_SIZE} in each of {WEB_CONCURRENCY} x {WEB_THREADS} threads",
        "MAX_BODY_SIZE WEB_THREADS",
    ),
    Rule(
        "APP_MEMORY",
        lambda n: (
            (1 + n["WEB_CONCURRENCY"]) * PROCESS
            + n["WEB_CONCURRENCY"] * n["WEB_THREADS"] * THREAD
            + n["APP_LOGS"]
            + n["APP_TMP"]
        ),
        "APP_TMP={APP_TMP}, {WEB_CONCURRENCY} workers and their log lines",
        "WEB_CONCURRENCY",
    ),
    Rule(
        "CONNECTIONS",
        # One for the client, one to the application; and half is left for other clients.
        lambda n: 4 * n["CONNECTION_LIMIT"],
        "CONNECTION_LIMIT={CONNECTION_LIMIT}, with which one client must not take more than half",
        "CONNECTION_LIMIT",
    ),
    Rule(
        "NGINX_TMP",
        # docs/edge.md, "What one client can hold".
        lambda n: n["UPLOAD_LIMIT"] * n["MAX_BODY_SIZE"] + n["CONNECTION_LIMIT"] * n["REQUEST_TMP"],
        "one client's UPLOAD_LIMIT={UPLOAD_LIMIT} bodies of MAX_BODY_SIZE={MAX_BODY_SIZE} and "
        "CONNECTION_LIMIT={CONNECTION_LIMIT} requests",
        "UPLOAD_LIMIT MAX_BODY_SIZE CONNECTION_LIMIT",
    ),
    Rule(
        "NGINX_CACHE",
        # What one client's requests bring until old answers are removed, and what its readers
        # hold. With less than twice min_free, nearly every page is removed after ten seconds.
        lambda n: max(2 * n["MIN_FREE"], n["MIN_FREE"] + n["CONNECTION_LIMIT"] * KEPT),
        "min_free in nginx/templates/cache.conf.template and one client's "
        "CONNECTION_LIMIT={CONNECTION_LIMIT} readers",
        "CONNECTION_LIMIT",
    ),
    Rule(
        "NGINX_MEMORY",
        lambda n: (
            NGINX
            + n["NGINX_TMP"]
            + n["NGINX_CACHE"]
            + n["NGINX_OTHER"]
            + n["CONNECTIONS"] * CONNECTION
        ),
        "NGINX_TMP={NGINX_TMP}, NGINX_CACHE={NGINX_CACHE} and {CONNECTIONS} connections",
        "NGINX_TMP",
    ),
    Rule(
        "ELASTICSEARCH_MEMORY",
        lambda n: 2 * n["ELASTICSEARCH_HEAP"],
        "twice ELASTICSEARCH_HEAP={ELASTICSEARCH_HEAP}",
        "ELASTICSEARCH_HEAP",
    ),
    Rule(
        "LOGSTASH_MEMORY",
        # Direct memory as large as the heap, JRuby's own, two 64 MB pages of the queue.
        # https://www.elastic.co/docs/reference/logstash/jvm-settings#memory-size-calculation
        lambda n: 2 * n["LOGSTASH_HEAP"] + 512 * MB,
        "twice LOGSTASH_HEAP={LOGSTASH_HEAP} and 512m",
        "LOGSTASH_HEAP",
    ),
)
# Limits that are no settings: what to change then is in `lower` alone.
FIXED = {
    "CONNECTIONS": "the sum of nginx's worker_connections",
}
COUNTS = {
    *("APP_PIDS", "CONNECTIONS", "CONNECTION_LIMIT", "UPLOAD_LIMIT"),
    *("WEB_CONCURRENCY", "WEB_THREADS"),
}
# docker-stack.yml takes no variable there, and is edited.
IN_STACK_FILE = {
    "APP_PIDS": "app's pids",
    "APP_TMP": "the size of app's /tmp",
    "NGINX_TMP": "the size of nginx's /tmp",
    "NGINX_CACHE": "the size of nginx's /var/cache/nginx",
}


def size(text: object, otherwise: float = math.inf) -> float:
    """Bytes, of what Compose, nginx and Java write."""
    match = re.fullmatch(r"(\d+)([a-z]{0,2})", str(text).strip().lower())
    return int(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else otherwise


def tmpfs(service: dict) -> dict:
    """Folders in memory, and how many bytes they hold."""
    sizes = {}
    for line in service.get("tmpfs", []):
        folder, _, options = line.partition(":")
        found = re.search(r"size=(\w+)", options)
        sizes[folder] = size(found and found[1])
    for volume in service.get("volumes", []):
        if "tmpfs" in volume:
            sizes[volume["target"]] = size(volume["tmpfs"].get("size"))
    return sizes


def numbers(config: dict) -> dict:
    """Settings and limits by their names in .env.example; what is not limited is infinite."""
    services = config["services"]
    n = {rule.limit: math.inf for rule in RULES}
    for name in ("app", "nginx", "elasticsearch", "logstash"):
        service = services.get(name, {})
        allowed = service.get("deploy", {}).get("resources", {}).get("limits", {})
        n[f"{name.upper()}_MEMORY"] = size(service.get("mem_limit") or allowed.get("memory"))
        java = " ".join(map(str, service.get("environment", {}).values()))
        heap = re.search(r"-Xmx(\w+)", java)
        n[f"{name.upper()}_HEAP"] = size(heap and heap[1], 0)
    of_app(n, services["app"], config.get("volumes", {}))
    of_nginx(n, services["nginx"], config.get("volumes", {}))
    return n


def log_files(service: dict, volumes: dict) -> float:
    """Bytes of the volume in memory that it shares with its log forwarder, whose memory it is."""
    for mount in service.get("volumes", []):
        name, _, target = (
            mount.partition(":")
            if isinstance(mount, str)
            else (mount.get("source"), "", mount["target"])
        )
        options = (volumes.get(name) or {}).get("driver_opts") or {}
        if target == "/var/log/shipping" and options.get("type") == "tmpfs":
            found = re.search(r"size=(\w+)", options.get("o", ""))
            return size(found and found[1])
    return 0


def of_app(n: dict, app: dict, volumes: dict) -> None:
    given = app["environment"]
    for name, default in DEFAULTS.items():
        n[name] = size(given.get(name), default)
    allowed = app.get("deploy", {}).get("resources", {}).get("limits", {})
    n["APP_PIDS"] = app.get("pids_limit") or allowed.get("pids") or math.inf
    n["APP_TMP"] = tmpfs(app).get("/tmp", math.inf)  # noqa: S108 (a container's)
    cpus = float(allowed.get("cpus") or app.get("cpu_quota", 400_000) / 100_000)
    # As gunicorn.conf.py, on a machine that has as many CPUs.
    n["WEB_CONCURRENCY"] = size(given.get("WEB_CONCURRENCY"), min(max(math.ceil(cpus), 2), 4))
    n["APP_LOGS"] = log_files(app, volumes)


def of_nginx(n: dict, nginx: dict, volumes: dict) -> None:
    given = nginx["environment"]
    n["CONNECTION_LIMIT"] = size(given.get("CONNECTION_LIMIT"), 0)
    n["UPLOAD_LIMIT"] = size(given.get("UPLOAD_LIMIT"), 0)
    files = [ROOT / "nginx/nginx.conf", *(ROOT / "nginx/templates").glob("*.template")]
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    each = [
        size(found, 0)
        for found in re.findall(r"^ *worker_(?:processes|connections) (\w+);", text, re.M)
    ]
    n["CONNECTIONS"] = math.prod(each)
    n["MIN_FREE"] = max(
        [size(found, 0) for found in re.findall(r"\bmin_free=(\w+)", text)], default=0
    )
    largest = re.search(r"^proxy_max_temp_file_size (\w+);", text, re.M)
    n["REQUEST_TMP"] = SMALL_BODY + size(largest and largest[1], 0)
    folders = tmpfs(nginx)
    n["NGINX_CACHE"] = folders.pop("/var/cache/nginx", math.inf)
    n["NGINX_TMP"] = folders.pop("/tmp", math.inf)  # noqa: S108
    # Shared memory, small folders, and the log forwarder's volume.
    zones = re.findall(r"^[^#\n]*\b(?:keys_)?zone=\w+:(\w+)|shared:\w+:(\w+)", text, re.M)
    sizes = [*folders.values(), *(size(a or b, 0) for a, b in zones), log_files(nginx, volumes)]
    n["NGINX_OTHER"] = sum(value for value in sizes if value < math.inf)


def written(name: str, value: float) -> str:
    """As it is typed: 10m, and whole megabytes upwards."""
    if name in COUNTS:
        return str(int(value))
    return f"{math.ceil(value / MB)}m" if value >= MB else f"{math.ceil(value / 1024)}k"


def problem(config: dict, *, in_swarm: bool = False) -> tuple[str, str] | None:
    """What does not fit and what to type, in one line for all of it; None when all fits."""
    n = numbers(config)
    raised = dict(n)
    short, fixes, lower = [], [], []
    for rule in RULES:
        texts = {name: written(name, value) for name, value in n.items() if value < math.inf}
        if n[rule.limit] < (needed := rule.needed(n)) < math.inf:
            name = FIXED.get(rule.limit, rule.limit)
            what = rule.what.format_map(texts)
            short.append(
                f"{what}: {written(rule.limit, needed)} needed, {name} is {texts[rule.limit]}"
            )
            lower += [word for word in rule.lower.split() if word not in lower]
        # With what the rules before have raised, so that one answer is enough.
        needed = rule.needed(raised)
        if rule.limit not in FIXED and raised[rule.limit] < needed < math.inf:
            raised[rule.limit] = needed
            fixes.append(fix(rule.limit, needed, in_swarm=in_swarm))
    if lower:
        fixes.append(f"{'or ' if fixes else ''}a smaller {', '.join(lower)}")
    return ("; ".join(short), f"set {', '.join(fixes)}") if short else None


def fix(name: str, value: float, *, in_swarm: bool) -> str:
    if not in_swarm or name not in IN_STACK_FILE:
        return f"{name}={written(name, value)}"
    number = int(value) if name in COUNTS else math.ceil(value / MB) * MB
    return f"{IN_STACK_FILE[name]} in docker-stack.yml to {number}"
