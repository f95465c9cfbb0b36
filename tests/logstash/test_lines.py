"""The mappings take every line that the application and nginx write, and Kibana shows them."""

import inspect
import ipaddress
import json
import logging
import re
import sys
from datetime import datetime, timedelta
from types import SimpleNamespace
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from clone import ROOT
from elasticsearch.dsl import field

sys.path[:0] = [str(ROOT / "app"), str(ROOT / "logstash/forwarder")]

import files  # noqa: E402
from webapp import access_log, logs, request_id  # noqa: E402

SETUP = ROOT / "logstash/setup"
TEMPLATE = json.loads((SETUP / "template.json").read_text())
MAPPINGS = TEMPLATE["template"]["mappings"]
VIEW = json.loads((SETUP / "data_view.json").read_text())["data_view"]
SEARCH = json.loads((SETUP / "search.json").read_text())
OUTPUT = (ROOT / "logstash/server/pipeline/30-output.conf").read_text()
DATA_STREAM = "-".join(
    re.search(rf'data_stream_{part} => "(.*)"', OUTPUT)[1]
    for part in ("type", "dataset", "namespace")
)


def fields(mapping, name=""):
    """Each field that is no object, by its dotted name, as it is mapped."""
    for key, value in mapping["properties"].items():
        if "properties" in value:
            yield from fields(value, f"{name}{key}.")
        else:
            yield f"{name}{key}", value


FIELDS = dict(fields(MAPPINGS))
# Generated from Elastic's specification.
TYPES = {
    kind.name: {*inspect.signature(kind.__init__).parameters}
    for kind in vars(field).values()
    if inspect.isclass(kind) and issubclass(kind, field.Field)
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_has_a_type_and_parameters_that_there_are(name):
    parameters = dict(FIELDS[name])
    assert {*parameters} <= TYPES[parameters.pop("type")] | {"type"}


# What each type takes. A number in quotes would be taken too, but is not what was meant.
TAKES = {
    "keyword": lambda value: all(
        isinstance(one, str) for one in (value if isinstance(value, list) else [value])
    ),
    "constant_keyword": lambda value: isinstance(value, str),
    "wildcard": lambda value: isinstance(value, str),
    "match_only_text": lambda value: isinstance(value, str),
    "long": lambda value: type(value) is int and abs(value) < 2**63,
    "date": lambda value: isinstance(value, str) and datetime.fromisoformat(value),
    "ip": lambda value: isinstance(value, str) and ipaddress.ip_address(value),
    # Refused when deeper: depth_limit is 20.
    "flattened": lambda value: isinstance(value, dict) and depth(value) <= 20,
}


def depth(value):
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return max(map(depth, value), default=0) if isinstance(value, list) else 0


def check(line, name=""):
    for key, value in line.items():
        if isinstance(value, dict) and f"{name}{key}" not in FIELDS:
            check(value, f"{name}{key}.")
        else:
            kind = FIELDS[f"{name}{key}"]["type"]
            assert TAKES[kind](value), f"{name}{key}: {kind} does not take {value!r}"


def application_lines():
    formatter = logs.JSONFormatter("shop", "1.2")
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    logger = logging.getLogger("add-on")
    logger.addHandler(Keep())
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.info("hello")
    strange = {"number": 1, "nothing": None, "list": [1, "a", {"b": 2.5}], 7: float("nan")}
    cycle = {}
    cycle["again"] = cycle
    logger.info("labels", extra={"user": "anna", "strange": strange, "cycle": cycle})
    try:
        {}["missing"]
    except KeyError:
        logger.exception("what an error gives")

    environ = {
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/a?b=c",
        "REMOTE_ADDR": "192.0.2.7",
        "HTTP_USER_AGENT": "test",
        "HTTP_TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        logs.request_id.KEY: "0af7651916cd43dd8448eb211c80319c",
        request_id.ROUTE: "/a",
    }
    access = access_log.AccessLogger.__new__(access_log.AccessLogger)
    access.access_log, access.access_log_enabled = logger, True
    response = SimpleNamespace(status="200 OK", sent=12)
    access.access(response, None, environ, timedelta(milliseconds=3))
    return [json.loads(formatter.format(record)) for record in records]


# Values as nginx gives them: of a request that has everything, and of one that has nothing.
GIVEN = {
    "log_time": "2026-01-31T12:00:00.123+00:00",
    "log_level": "info",
    "log_method": "GET",
    "log_path": "/a",
    "log_query": "b=c",
    "log_route": "/a",
    "log_replica": "0123456789ab",
    "log_worker": "7",
    "log_status": "200",
    "log_duration": "3000000",
    "log_http_version": "2.0",
    "log_domain": "localhost",
    "log_agent": "test",
    "log_tls_version": "1.3",
    "log_trace": "0af7651916cd43dd8448eb211c80319c",
    "request_id": "0af7651916cd43dd8448eb211c80319c",
    "request_length": "100",
    "connection": "17",
    "body_bytes_sent": "12",
    "remote_addr": "2001:db8::7",
    "ssl_cipher": "TLS_AES_256_GCM_SHA384",
    "cache_status": "HIT",
    "upstream_addr": "10.0.0.2:8000, 10.0.0.3:8000",
    "upstream_status": "502, 200",
    "upstream_connect_time": "0.000, 0.001",
    "upstream_header_time": "-, 0.003",
    "upstream_response_time": "0.001, 0.003",
}
ALWAYS = {"log_time", "log_level", "log_status", "log_duration", "request_id"} | {
    "request_length",
    "body_bytes_sent",
    "connection",
}


def nginx_line(values):
    text = (ROOT / "nginx/templates/log.conf.template").read_text()
    (form,) = re.findall(r"^log_format ecs escape=json\n(.*?);$", text, re.DOTALL | re.MULTILINE)
    json_text = "".join(re.findall(r"'(.*)'", form))
    return json.loads(re.sub(r"\$(\w+)", lambda name: values[name[1]], json_text))


def without_absent(line):
    """As the filter `empty` does (20-filter.conf)."""
    return {
        key: without_absent(value) if isinstance(value, dict) else value
        for key, value in line.items()
        if value != ""
    }


NOTHING = {name: value if name in ALWAYS else "" for name, value in GIVEN.items()}
LINES = [
    *application_lines(),
    nginx_line(GIVEN),
    without_absent(nginx_line(NOTHING)),
    json.loads(
        files.event(
            b"2026/01/31 12:00:00 [error] 23#24: *17 upstream timed out (110: Connection timed out)"
            b" while connecting to upstream, client: 192.0.2.7, server: localhost"
        )
    ),
    # What the pipeline adds.
    {"tags": ["replay"], "event": {"id": "a", "dataset": "unparsed"}, "message": "no JSON"},
    {"data_stream": {"type": "logs", "dataset": "flask", "namespace": "default"}},
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.get("message"))
def test_every_field_of_a_line_is_mapped_to_what_takes_its_value(line):
    check(line)


def test_nothing_is_mapped_that_no_line_has():
    def names(line, name=""):
        for key, value in line.items():
            if isinstance(value, dict) and f"{name}{key}" not in FIELDS:
                yield from names(value, f"{name}{key}.")
            else:
                yield f"{name}{key}"

    assert {name for line in LINES for name in names(line)} == {*FIELDS}


def test_what_is_not_mapped_cannot_get_a_line_refused():
    assert MAPPINGS["dynamic"] is False
    settings = TEMPLATE["template"]["settings"]["index"]
    assert settings["mapping"] == {"ignore_malformed": True}
    # Elasticsearch refuses a data stream otherwise (DataStreamTimestampFieldMapper.java).
    assert FIELDS["@timestamp"]["ignore_malformed"] is False


def test_the_template_is_that_of_the_data_stream_and_has_the_policy():
    (pattern,) = TEMPLATE["index_patterns"]
    assert re.fullmatch(pattern.replace("*", ".+"), DATA_STREAM)
    # Elastic's own template for logs-*-* has 100.
    assert TEMPLATE["priority"] > 100
    assert "data_stream" in TEMPLATE
    assert (
        f"/_ilm/policy/{TEMPLATE['template']['settings']['index']['lifecycle']['name']}"
        in (SETUP / "setup.py").read_text()
    )


def test_kibana_shows_the_lines_by_time():
    (pattern,) = TEMPLATE["index_patterns"]
    assert VIEW["title"] == pattern
    assert VIEW["timeFieldName"] == "@timestamp"
    (reference,) = SEARCH["references"]
    assert (reference["type"], reference["id"]) == ("index-pattern", VIEW["id"])
    attributes = SEARCH["attributes"]
    assert {*attributes["columns"]} <= {*FIELDS}
    assert attributes["sort"] == [["@timestamp", "desc"]]
    source = json.loads(attributes["kibanaSavedObjectMeta"]["searchSourceJSON"])
    assert source["indexRefName"] == reference["name"]


def test_one_click_leads_from_a_request_id_to_its_lines():
    (format_,) = [f for f in VIEW["fieldFormats"].values() if f["id"] == "url"]
    assert VIEW["fieldFormats"]["http.request.id"] is format_
    assert "http.request.id" in SEARCH["attributes"]["columns"]
    url = urlsplit(format_["params"]["urlTemplate"].replace("{{value}}", "0af7"))
    assert url.path == "/app/discover"
    view = urlsplit(url.fragment)
    assert view.path == f"/view/{SEARCH['id']}"
    states = {name: unquote(values[0]) for name, values in parse_qs(view.query).items()}
    # Rison, as Discover writes it.
    query = "(language:kuery,query:'http.request.id:\"0af7\"')"
    assert states["_a"] == f"(query:{query})"
    assert states["_g"] == "(time:(from:now-${LOG_RETENTION},to:now))"


def test_formats_are_of_fields_that_there_are():
    assert {*VIEW["fieldFormats"]} <= {*FIELDS}
