"""One JSON object a line on standard output, each event once, whatever a client sends."""

import json
import uuid

import pytest
from clone import wait_until
from raw import exchange, handshake

NASTY = {
    "quotes": rb'"quoted" and \back\slashed\ ',
    "forged line": rb'x","log":{"level":"error"}}\r\n{"message":"forged',
    "control characters": b"tab\tbell\x07escape\x1b[31mred",
    "invalid UTF-8": b"\xff\xfe\xc3\x28",
    "line separators": "\u2028\u2029\u0085".encode(),
    "long": b"A" * 6000,
}
REFUSED = {
    *(("control characters", "path"), ("control characters", "header")),
    *(("invalid UTF-8", "path"), ("line separators", "path")),
}


def lines(stack, service: str) -> list[str]:
    return [line for name in stack.containers(service) for line in stack.stdout(name)]


def test_every_line_is_one_json_object_with_the_common_fields(stack, client):
    request_id = client.get("/diagnostics/hello").headers["X-Request-ID"]
    for service in ("nginx", "app"):
        assert stack.lines_of(request_id, service)
        for line in lines(stack, service):
            entry = json.loads(line)
            assert entry["@timestamp"].endswith(("Z", "+00:00"))
            assert entry["log"]["level"]
            assert "message" in entry
            assert entry["service"]["name"]


def test_access_lines_say_who_what_and_how_long(stack, client):
    answer = client.get("/diagnostics/echo?with=query", headers={"User-Agent": "a test"})
    request_id = answer.headers["X-Request-ID"]
    for service in ("nginx", "app"):
        line = stack.lines_of(request_id, service)[0]
        assert line["http"]["request"]["method"] == "GET"
        assert line["http"]["response"]["status_code"] == 200
        assert line["http"]["response"]["body"]["bytes"] == len(answer.content)
        assert line["url"]["path"] == "/diagnostics/echo"
        assert line["url"]["query"] == "with=query"
        assert line["user_agent"]["original"] == "a test"
        assert line["client"]["address"] == answer.json()["remote_addr"]
        assert 0 <= line["event"]["duration"] < 5e9
        assert line["http"]["route"] == "/diagnostics/echo"


def test_duration_and_tls_are_in_the_lines(stack, client):
    key = client.get("/diagnostics/work?ms=300").headers["X-Request-ID"]
    nginx = stack.lines_of(key, "nginx")[0]
    (app,) = (line for line in stack.lines_of(key, "app") if "duration" in line["event"])
    for line in (nginx, app):
        assert 300_000_000 <= line["event"]["duration"] < 3_000_000_000
    assert nginx["tls"] == {"version": "1.3", "cipher": "TLS_AES_256_GCM_SHA384"}


def upstream(stack, answer) -> tuple:
    """Route, replica and worker in nginx's line."""
    line = stack.lines_of(answer.headers["X-Request-ID"], "nginx")[0]
    return line["http"]["route"], *map(line["nginx"]["upstream"].get, ("replica", "worker"))


def test_nginx_logs_and_hides_what_only_the_application_knows(stack, client):
    forged = {"X-App-Route": "/forged", "X-App-Worker": "forged/1"}
    answer = client.get("/diagnostics/echo", headers=forged)
    assert [name for name in forged if name in answer.headers] == []
    route, replica, worker = upstream(stack, answer)
    assert route == "/diagnostics/echo"
    assert stack.containers("app")[0].startswith(replica)
    line = stack.lines_of(answer.headers["X-Request-ID"], "app")[0]
    assert line["process"]["pid"] == int(worker)
    started = [line["message"] for line in stack.log("app") if "serves at" in line["message"]]
    address = stack.lines_of(answer.headers["X-Request-ID"], "nginx")[0]["nginx"]["upstream"]
    assert f"replica {replica} serves at {address['address'].split(':')[0]}," in started[-1]


def test_a_cached_response_names_its_route_and_no_worker(stack, client):
    path = f"/diagnostics/page?cache=public,max-age=30&test={uuid.uuid4().hex}"
    first, second = (client.get(path) for _ in range(2))
    assert second.headers["X-Cache-Status"] == "HIT"
    route, replica, worker = upstream(stack, first)
    assert route == "/diagnostics/page"
    assert replica
    assert worker
    assert upstream(stack, second) == (route, "", "")


def test_nginx_names_no_route_where_the_application_was_not_asked(stack, client):
    assert upstream(stack, client.get("/metrics")) == ("", "", "")


def test_nothing_a_client_sends_breaks_or_forges_a_line(stack, client):
    before = {service: len(lines(stack, service)) for service in ("nginx", "app")}
    for name, value in NASTY.items():
        for place in ("path", "header"):
            path = b"/nasty?" + value.replace(b" ", b"+") if place == "path" else b"/nasty"
            header = b"User-Agent: " + value if place == "header" else b"User-Agent: x"
            request = b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\nConnection: close\r\n\r\n"
            answer = exchange(handshake(stack), request % (path, header))
            assert answer.split()[1] == (b"400" if (name, place) in REFUSED else b"404")
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    for service, number in before.items():
        assert stack.lines_of(last, service)
        new = lines(stack, service)[number:]
        assert new
        for line in new:
            entry = json.loads(line)
            assert entry["log"]["level"] != "error"
            assert entry["message"] != "forged"


def test_each_kind_of_line_appears_once(stack, client):
    """Elsewhere logs are missing, or there twice: a logger line, a print and an access line."""
    word = uuid.uuid4().hex
    answer = client.get("/diagnostics/log", params={"message": word})
    key = answer.headers["X-Request-ID"]
    wait_until(
        lambda: [e for e in stack.lines_of(key, "app") if e["event"]["dataset"] == "app.access"],
        5,
        "the access line, which comes last",
    )
    found = [json.loads(line) for line in lines(stack, "app") if word in line]
    messages = sorted(entry["message"] for entry in found if entry["event"]["dataset"] == "app")
    assert messages == [word, f"printed {word}"]
    access = [entry for entry in found if entry["event"]["dataset"] == "app.access"]
    assert len(access) == 1
    assert len(found) == 3


def test_an_exception_is_logged_once_with_its_stack_and_not_shown(stack, client):
    answer = client.get("/diagnostics/error", headers={"Accept": "text/html"})
    request_id = answer.headers["X-Request-ID"]
    assert answer.status_code == 500
    assert request_id in answer.text
    wait_until(lambda: len(stack.lines_of(request_id, "app")) > 1, 5, "the access line")
    errors = [line for line in stack.lines_of(request_id, "app") if "error" in line]
    assert len(errors) == 1
    assert stack.lines_of(request_id, "nginx")[0]["log"]["level"] == "error"
    error = errors[0]["error"]
    assert "Traceback" in error["stack_trace"]
    for secret in (error["message"], error["type"], "Traceback", "webapp"):
        assert secret not in answer.text


@pytest.mark.parametrize(("service", "path"), [("nginx", "/healthz"), ("app", "/readyz")])
def test_probes_are_not_logged(stack, client, service, path):
    """Docker asks every few seconds: wait for it, then for a line that comes after it."""
    known = health_checks(stack, service)
    wait_until(lambda: health_checks(stack, service) != known, 15, "a health check")
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, service)
    answered = [
        line
        for line in stack.log(service)
        if line.get("url", {}).get("path") == path
        and line["http"]["response"]["status_code"] == 200
    ]
    assert answered == []


def health_checks(stack, service: str) -> list[str]:
    """When the container's latest health checks began."""
    return [check["Start"] for check in stack.inspect(service)[0]["State"]["Health"]["Log"]]


def test_gunicorns_own_messages_are_in_the_same_form(stack):
    messages = [line["message"] for line in stack.log("app")]
    assert sum("Listening at" in message for message in messages) >= 1
    assert sum("Booting worker" in message for message in messages) >= 2


def test_secrets_in_a_query_are_in_no_line(stack, client):
    answer = client.get("/diagnostics/echo?user=anna&password=hunter2")
    queries = {
        service: stack.lines_of(answer.headers["X-Request-ID"], service)[0]["url"]["query"]
        for service in ("nginx", "app")
    }
    assert queries == {"nginx": "[masked]", "app": "user=anna&password=***"}
