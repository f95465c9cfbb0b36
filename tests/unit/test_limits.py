"""Settings and limits that depend on each other: every pair, as tables.

RULES of scripts/limits.py are those that settings change. The others are numbers in two files.
"""

import re
import sys
from math import inf

import pytest
import yaml
from clone import require
from conftest import APP, KEY
from webapp import config, pids

from scripts import limits

ROOT = APP.parent
COMPOSE, LOGGING = ["docker-compose.yml"], ["docker-compose.yml", "logstash/docker-compose.yml"]
FORWARDER = "logstash/forwarder"
SITE = "nginx/templates/site.conf.template"
STACK = ["docker-stack.yml", "logstash/docker-stack.yml"]


def read(files, **settings):
    """What Compose makes of the files: variables filled in, the later laid over the first."""
    require(*files)
    merged = {}
    for file in files:
        text = re.sub(
            r"\$\{(\w+)(?::?[-?]([^}]*))?\}",
            lambda found: str(settings.get(found[1], found[2] or "")),
            (ROOT / file).read_text(encoding="utf-8"),
        )
        # Safe, and ten times as fast as yaml.safe_load.
        merged = lay(merged, yaml.load(text, yaml.CSafeLoader))
    return merged


def lay(below, above):
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: lay(below.get(key), value) for key, value in above.items()}
    return below + above if isinstance(below, list) and isinstance(above, list) else above


def refusal(files, **settings):
    found = limits.problem(read(files, **settings), in_swarm=files is STACK)
    return " -> ".join(found or ())


@pytest.mark.parametrize("files", [COMPOSE, LOGGING, STACK], ids=["compose", "logging", "swarm"])
@pytest.mark.parametrize("rule", limits.RULES, ids=lambda rule: rule.limit)
def test_defaults_fit(files, rule):
    n = limits.numbers(read(files))
    there, needed = n[rule.limit], rule.needed(n)
    sys.stdout.write(f"{rule.limit}: {needed:.0f} of {there:.0f}\n")
    assert needed <= there
    if files is not COMPOSE:
        assert 0 < there < inf


@pytest.mark.parametrize("quota", [50_000, 100_000, 300_000, 400_000, 6_400_000])
def test_defaults_fit_whatever_the_cpus(quota):
    assert refusal(LOGGING, APP_CPU_QUOTA=quota) == ""


def test_swarm_has_the_same_limits_as_compose():
    here, there = (limits.numbers(read(files)) for files in (LOGGING, STACK))
    for rule in limits.RULES:
        assert there[rule.limit] == here[rule.limit]


# A setting, its unit, the limit that refuses more of it, and what else is set for that.
PAIRS = {
    "threads and processes": ("WEB_THREADS", "", "APP_PIDS", {"MAX_BODY_SIZE": "1k"}),
    "workers and processes": (
        *("WEB_CONCURRENCY", "", "APP_PIDS"),
        {"MAX_BODY_SIZE": "1k", "APP_MEMORY": "9g"},
    ),
    "threads and uploads": ("WEB_THREADS", "", "APP_TMP", {}),
    "body size and /tmp of the application": ("MAX_BODY_SIZE", "k", "APP_TMP", {"UPLOAD_LIMIT": 1}),
    "body size and /tmp of nginx": ("MAX_BODY_SIZE", "k", "NGINX_TMP", {"WEB_THREADS": 1}),
    "uploads of one client and /tmp of nginx": ("UPLOAD_LIMIT", "", "NGINX_TMP", {}),
    "workers and memory": ("WEB_CONCURRENCY", "", "APP_MEMORY", {"WEB_THREADS": 1}),
    "temporary files and memory of the application": ("APP_TMP", "m", "APP_MEMORY", {}),
    "connections": (
        *("CONNECTION_LIMIT", "", "worker_connections"),
        {"NGINX_TMP": "9g", "NGINX_CACHE": "2g", "NGINX_MEMORY": "20g"},
    ),
    "requests in progress and /tmp of nginx": (
        *("CONNECTION_LIMIT", "", "NGINX_TMP", {"NGINX_CACHE": "96m"}),
    ),
    "requests in progress and cache": ("CONNECTION_LIMIT", "", "NGINX_CACHE", {}),
    "temporary files and memory of nginx": ("NGINX_TMP", "m", "NGINX_MEMORY", {}),
    "cache and memory of nginx": ("NGINX_CACHE", "m", "NGINX_MEMORY", {}),
    "heap and memory of Elasticsearch": ("ELASTICSEARCH_HEAP", "m", "ELASTICSEARCH_MEMORY", {}),
    "heap and memory of Logstash": ("LOGSTASH_HEAP", "m", "LOGSTASH_MEMORY", {}),
}


@pytest.mark.parametrize(("setting", "unit", "limit", "others"), PAIRS.values(), ids=PAIRS)
def test_one_step_beyond_is_refused(setting, unit, limit, others):
    def refused(value):
        return refusal(LOGGING, **others, **{setting: f"{value}{unit}"})

    fits, beyond = 1, 2**20
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (fits, middle) if refused(middle) else (middle, beyond)
    sys.stdout.write(f"{setting}={fits}{unit} fits; {beyond}{unit}: {refused(beyond)}\n")
    assert refused(fits) == ""
    what, _, fix = refused(beyond).partition(" -> ")
    assert limit in what
    assert ";" not in what, "another limit is refused as well"
    assert setting in fix or f"{limit}=" in fix


def test_other_memory_of_nginx_is_part_of_its_limit():
    n = limits.numbers(read(COMPOSE))
    (rule,) = (rule for rule in limits.RULES if rule.limit == "NGINX_MEMORY")
    assert rule.needed(n) - rule.needed(n | {"NGINX_OTHER": 0}) == n["NGINX_OTHER"] > 0


def test_a_smaller_cache_than_is_kept_free_is_refused():
    assert "NGINX_CACHE=64m" in refusal(COMPOSE, NGINX_CACHE="63m")


@pytest.mark.parametrize("files", [COMPOSE, LOGGING], ids=["compose", "logging"])
@pytest.mark.parametrize(
    "settings",
    [
        {"WEB_THREADS": 300},
        {"WEB_CONCURRENCY": 24},
        {"MAX_BODY_SIZE": "100m"},
        {"UPLOAD_LIMIT": 100},
        {"CONNECTION_LIMIT": 600},
        {"NGINX_CACHE": "16m", "NGINX_MEMORY": "256m"},
    ],
    ids=str,
)
def test_what_a_refusal_names_to_set_is_enough(files, settings):
    fix = refusal(files, **settings).partition(" -> ")[2]
    named = dict(re.findall(r"(\w+)=(\w+)", fix))
    assert named
    assert refusal(files, **settings | named) == ""


def test_in_a_swarm_the_fix_is_in_its_file():
    line = refusal(STACK, WEB_THREADS=300)
    assert "app's pids in docker-stack.yml to 617" in line
    assert f"the size of app's /tmp in docker-stack.yml to {6000 * 2**20}" in line
    assert "APP_MEMORY=" in line


def test_what_is_not_limited_allows_everything():
    model = read(COMPOSE, WEB_THREADS=10_000)
    for name in ("pids_limit", "mem_limit", "tmpfs"):
        del model["services"]["app"][name]
    assert limits.problem(model) is None


def test_a_file_system_without_a_size_is_not_counted():
    config = lay(read(COMPOSE), {})
    config["services"]["app"]["tmpfs"] = ["/tmp"]  # noqa: S108 (the container's)
    assert limits.problem(config) is None


@pytest.mark.parametrize("mount", ["./logs:/var/log/shipping", "plain:/var/log/shipping"])
def test_log_files_in_an_ordinary_volume_take_no_memory(mount):
    model = read(COMPOSE)
    model["services"]["app"]["volumes"] = [mount]
    model["volumes"]["plain"] = None
    assert limits.numbers(model)["APP_LOGS"] == 0


def test_the_application_counts_alike():
    load = config.load({"SECRET_KEY": KEY})
    own = {name: load[name] for name in limits.DEFAULTS if name in load}
    own["MAX_BODY_SIZE"] = load["MAX_CONTENT_LENGTH"]
    assert own == limits.DEFAULTS
    assert (limits.BESIDE, limits.OTHERS) == (pids.BESIDE, pids.OTHERS)


def test_sizes_are_those_of_nginx():
    bodies = re.findall(r"client_max_body_size (\d+k);", (ROOT / SITE).read_text())
    assert {limits.size(found) for found in bodies} == {limits.SMALL_BODY}
    cache = (ROOT / "nginx/templates/cache.conf.template").read_text()
    kept = re.compile(re.search(r"public.*(\\\|.*\$)\"", cache)[1])
    assert kept.fullmatch(f"|{limits.KEPT - 1}")
    assert not kept.fullmatch(f"|{limits.KEPT}")


# --- In the application's container ---


@pytest.mark.parametrize(
    ("file", "text", "most"),
    [
        ("pids.max", "128\n", 128),
        ("pids.max", "max\n", None),
        ("pids/pids.max", "64\n", 64),
        ("pids/pids.max", "max\n", None),
        ("other", "1\n", None),
    ],
)
def test_the_limit_of_processes_in_both_versions_of_cgroups(tmp_path, file, text, most):
    (tmp_path / "pids").mkdir()
    (tmp_path / file).write_text(text)
    assert pids.limit(tmp_path) == most


def test_threads_beyond_the_limit_of_processes_are_refused():
    most = pids.needed(2, 40)
    assert pids.problem(2, 40, most) is None
    assert "set WEB_THREADS=40," in pids.problem(2, 41, most)
    assert "set WEB_CONCURRENCY=1," in pids.problem(100, 4, most)
    assert pids.problem(1024, 1024, None) is None


# --- Pairs that no setting changes ---


def number(file, pattern):
    """The only number that the pattern finds, in bytes or seconds."""
    require(file)
    (found,) = set(re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE))
    return limits.size(found.removesuffix("s"))


def nginx(directive, file="nginx.conf"):
    return number(f"nginx/{file}", rf"^ *{directive} (\w+);")


def gunicorn(name):
    return number("app/gunicorn.conf.py", rf"^{name} = (\d+)$")


def tmpfs_volume():
    return number("logstash/docker-compose.yml", r"size=(\w+),mode=0700,uid=101,")


PROXY, CLIENTS, LIMITS_ = (
    f"templates/{name}.conf.template" for name in ("proxy", "clients", "limits")
)
BUFFERS = re.search(r"^proxy_buffers (\d+) (\w+);", (ROOT / "nginx" / PROXY).read_text(), re.M)
LOWER_FIRST = {
    "requests at a stop: gunicorn ends them before its heartbeat": (
        lambda: gunicorn("graceful_timeout"),
        lambda: gunicorn("timeout") - 1,
    ),
    "a stuck worker ends before nginx gives up": (
        lambda: gunicorn("timeout"),
        lambda: nginx("proxy_read_timeout", PROXY) - 1,
    ),
    "nginx answers before its worker ends": (
        lambda: nginx("proxy_read_timeout", PROXY),
        lambda: nginx("worker_shutdown_timeout") - 1,
    ),
    "nginx's worker ends before the engine kills": (
        lambda: nginx("worker_shutdown_timeout"),
        lambda: number("docker-compose.yml", r"stop_grace_period: (\d+s)") - 1,
    ),
    "idle connections: nginx closes before gunicorn": (
        lambda: nginx("keepalive_timeout", "templates/upstream.conf.template"),
        lambda: gunicorn("keepalive") - 6,
    ),
    "idle connections: nginx's workers keep fewer than gunicorn takes": (
        lambda: nginx("worker_processes") * nginx("keepalive", "templates/upstream.conf.template"),
        lambda: number("app/gunicorn.conf.py", r"^worker_connections = (\d+) \+ threads$"),
    ),
    "open files: a connection, a body, an answer, and static files": (
        lambda: (
            3 * nginx("worker_connections")
            + number("nginx/templates/static.conf.template", r"open_file_cache max=(\d+)")
            + 100
        ),
        lambda: nginx("worker_rlimit_nofile"),
    ),
    "addresses with a request in progress fit into their zone (128 bytes each)": (
        lambda: 128 * nginx("worker_processes") * nginx("worker_connections"),
        lambda: number(f"nginx/{LIMITS_}", r"zone=connections:(\w+);"),
    ),
    "streams of a connection: fewer than a client may have": (
        lambda: nginx("http2_max_concurrent_streams", LIMITS_),
        lambda: limits.numbers(read(COMPOSE))["CONNECTION_LIMIT"],
    ),
    "buffers of an answer that are being sent: fewer than all": (
        lambda: nginx("proxy_busy_buffers_size", PROXY),
        lambda: (int(BUFFERS[1]) - 1) * limits.size(BUFFERS[2]),
    ),
    "an answer's header takes one buffer, a cookie of 4 kB and others beside it": (
        lambda: 3 * 4096,
        lambda: nginx("proxy_buffer_size", PROXY),
    ),
    "a request line: nginx's is what gunicorn takes": (
        lambda: number(f"nginx/{CLIENTS}", r"\{(\d+)\}\"  1;") + len("DELETE  HTTP/1.1"),
        lambda: gunicorn("limit_request_line"),
    ),
    "a header field of HTTP/2: uncompressed, gunicorn takes it": (
        lambda: 8192 * 8 / 5,
        lambda: gunicorn("limit_request_field_size"),
    ),
    "header fields: nginx's number and those it adds": (
        lambda: (
            nginx("max_headers", CLIENTS)
            + len(re.findall(r"^proxy_set_header", (ROOT / "nginx" / PROXY).read_text(), re.M))
        ),
        lambda: gunicorn("limit_request_fields"),
    ),
    "cache: answers stop being kept before it is full, and old ones go before that": (
        lambda: 16 * 2**20 + 1,
        lambda: number("nginx/templates/cache.conf.template", r"min_free=(\w+)"),
    ),
    "cache: in the ten seconds between two removals, a client fills twice its part": (
        lambda: 2 * number("nginx/live.js", r"kept > (\d+) \* 1024 \* 1024") * 2**20,
        lambda: number("nginx/templates/cache.conf.template", r"min_free=(\w+)"),
    ),
    "nginx's processes in ten reloads one after the other, and checks": (
        lambda: 11 * (nginx("worker_processes") + 2) + 9,
        lambda: number("docker-compose.yml", r"pids_limit: (\d+)$"),
    ),
    "the forwarder: what nginx writes while nobody looks, 2 MB a second": (
        lambda: number(f"{FORWARDER}/sender.py", r"^RETRY = (\d+)") * 2 * 2**20,
        lambda: number(f"{FORWARDER}/files.py", r"^RESERVE = 0\.(\d+)") / 100 * tmpfs_volume(),
    ),
    "the forwarder: memory for what it reads at once and has not seen arrive": (
        lambda: limits.PROCESS + 8 * number(f"{FORWARDER}/files.py", r"^MOST_AT_ONCE = (\w+)"),
        lambda: number("logstash/docker-compose.yml", r"mem_limit: (128m)$"),
    ),
    "a batch of log lines: smaller than the least window": (
        lambda: 4 * number(f"{FORWARDER}/sender.py", r"^BATCH = (\w+)"),
        lambda: number(f"{FORWARDER}/sender.py", r"^SHARE = (\w+)"),
    ),
}


@pytest.mark.parametrize(("lower", "higher"), LOWER_FIRST.values(), ids=LOWER_FIRST)
def test_numbers_of_two_files_fit(lower, higher):
    sys.stdout.write(f"{lower():.0f} of {higher():.0f}\n")
    assert 0 < lower() <= higher() < inf


def test_the_time_outs_hold_in_a_swarm_as_well():
    require("docker-stack.yml")
    here, there = ((ROOT / name).read_text() for name in ("docker-compose.yml", "docker-stack.yml"))
    grace = re.compile(r"^ +stop_grace_period: (\d+s)$", re.MULTILINE)
    assert {*grace.findall(here)} == {*grace.findall(there)}


def test_threads_for_slow_readers_take_what_is_left():
    assert pids.senders(2, 4, None) == pids.senders(2, 4, 512) == 64
    assert pids.senders(2, 4, pids.needed(2, 4) + 20) == 10
    assert pids.senders(2, 4, pids.needed(2, 4)) == 0
