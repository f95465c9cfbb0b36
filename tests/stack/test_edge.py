"""What nginx does to requests and answers."""

import json
import re
import time

import headers
import httpx
import pytest
import raw

HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/diagnostics/hello", 200),
        ("/static/error.css", 200),
        ("/nowhere", 404),
        ("/static/nowhere.css", 404),
        ("/metrics", 404),
        ("/diagnostics/status/301", 301),
        ("/diagnostics/status/403", 403),
        ("/diagnostics/error", 500),
        ("/diagnostics/status/502", 502),
    ],
)
def test_security_headers_are_on_every_answer_once(client, path, status):
    answer = client.get(path)
    assert answer.status_code == status
    headers.check(answer)
    # Only with HSTS set: tests/stack/test_proxies.py.
    assert "Strict-Transport-Security" not in answer.headers


def test_security_headers_on_a_body_too_large_and_on_the_redirect(stack, client):
    answers = [
        client.post("/diagnostics/echo", content=b"x" * (10 * 1024**2 + 1)),
        httpx.get(f"http://localhost:{stack.http_port}/"),
    ]
    assert [answer.status_code for answer in answers] == [413, 308]
    for answer in answers:
        headers.check(answer)


CONDITIONS = {
    "a part": ({"Range": "bytes=0-1"}, 206),
    "two parts": ({"Range": "bytes=0-1,4-5"}, 200),
    "a part that does not exist": ({"Range": "bytes=99999999-"}, 416),
    "a state that it never had": ({"If-Match": '"x"'}, 412),
    "the state it has": ({"If-None-Match": "*"}, 304),
}


@pytest.mark.parametrize(("condition", "status"), CONDITIONS.values(), ids=CONDITIONS)
def test_security_headers_on_conditional_answers(client, condition, status):
    answer = client.get("/static/error.css", headers={**condition, "Accept-Encoding": "gzip"})
    assert answer.status_code == status
    headers.check(answer)


def test_a_part_of_a_static_file(client):
    """Players and resumed downloads request them."""
    path, plain = "/static/error.css", {"Accept-Encoding": "identity"}
    whole = client.get(path, headers=plain)
    assert whole.headers["Accept-Ranges"] == "bytes"
    part = client.get(path, headers={**plain, "Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, whole.content[5:10])
    assert part.headers["Content-Range"] == f"bytes 5-9/{len(whole.content)}"
    beyond = client.get(path, headers={**plain, "Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    assert beyond.headers["Content-Range"] == f"bytes */{len(whole.content)}"
    # A cache must not give it to others in place of the file.
    assert beyond.headers["Cache-Control"] == "no-store"


def test_the_health_check_of_a_load_balancer_is_for_trusted_proxies(stack):
    connection = raw.socket.create_connection(("127.0.0.1", stack.http_port))
    assert raw.exchange(connection, b"GET /healthz HTTP/1.0\r\n\r\n") == b""


OF_THE_VIEW = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors https://a.example",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "unsafe-none",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self)",
}


@pytest.mark.parametrize(("name", "value"), OF_THE_VIEW.items(), ids=OF_THE_VIEW)
def test_a_view_decides_on_a_header_of_its_response(client, name, value):
    answer = client.get("/diagnostics/headers", params={name: value})
    assert answer.headers.get_list(name) == [value]
    usual = client.get("/diagnostics/hello").headers
    for other in {*OF_THE_VIEW} - {name}:
        assert answer.headers.get_list(other) == usual.get_list(other)


def test_events_are_passed_on_as_they_come(client):
    path = "/diagnostics/stream?events=1&parts=3&ms=1000"
    with client.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as answer:
        assert "Content-Encoding" not in answer.headers
        assert answer.headers["Content-Type"] == "text/event-stream"
        moments = []
        for event in answer.iter_text():
            assert event == "data: xxxxxxxx\n\n"
            moments.append(time.monotonic())
    assert len(moments) == 3
    assert moments[-1] - moments[0] > 1


def test_body_at_the_limit_reaches_the_application_and_one_byte_more_does_not(stack, client):
    limit = 10 * 1024**2
    assert client.post("/diagnostics/echo", content=b"x" * limit).json()["body_length"] == limit
    refused = client.post("/diagnostics/echo", content=b"x" * (limit + 1))
    assert refused.status_code == 413
    later = client.get("/diagnostics/hello")
    assert stack.lines_of(later.headers["X-Request-ID"], "app")
    reached = {line["http"]["request"]["id"] for line in stack.log("app") if "url" in line}
    assert refused.headers["X-Request-ID"] not in reached


INTERNAL = [
    "/metrics",
    "/livez",
    "/readyz",
    "/hashed-files",
    "//metrics",
    "/metrics/",
    "/%6detrics",
    "/x/../readyz",
]


@pytest.mark.parametrize("path", [*INTERNAL, "/healthz"])
def test_internals_are_not_found_from_outside(stack, path):
    assert raw.get(stack, path) == 404


def test_hashed_names_are_immutable_compressed_and_the_same_bytes(stack, client):
    path = stack.style_sheet()
    answer = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Content-Type"] == "text/css; charset=utf-8"
    assert answer.headers["Vary"] == "Accept-Encoding"
    plain = client.get(path, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert plain.content == answer.content
    assert client.get("/static/error.css").headers["Cache-Control"] == "public, max-age=60"


def test_static_files_come_from_nginx_and_a_name_it_lacks_from_the_application(stack, client):
    """During a rollout a new page asks for files that only the new application has."""

    served = client.get(stack.style_sheet())
    missing = client.get("/static/not-in-nginx.css")
    assert served.status_code == 200
    assert missing.status_code == 404
    assert stack.lines_of(missing.headers["X-Request-ID"], "app")
    of_app = {line["http"]["request"]["id"] for line in stack.log("app") if "url" in line}
    # Had it been asked, its line would stand before the missing file's.
    assert served.headers["X-Request-ID"] not in of_app


# A path, by which it would be a file that is there, and the status.
OUTSIDE = {
    # Beside nginx's static files, in /usr/share/nginx/static/static.
    "/static../static/error.css": 404,
    "/static/static/error.css": 404,
    "/static/../pages/error/busy.html": 404,
    "/pages/error/busy.html": 404,
    # Beside the application's, in /app/webapp/static.
    "/static/../config.py": 404,
    "/static/%2e%2e/config.py": 404,
    "/static/..%2fconfig.py": 404,
    "/static/..%2ftemplates/error.html": 404,
    "/static/%2e%2e/%2e%2e/wsgi.py": 400,
    "/static/..%2f..%2fwsgi.py": 400,
    # Anywhere.
    "//etc/passwd": 404,
    "/static/%00/error.css": 400,
    "/static/error.css%00": 400,
}


@pytest.mark.parametrize(("path", "status"), OUTSIDE.items())
def test_no_file_outside_the_static_ones(stack, path, status):
    assert raw.get(stack, path) == status


def test_the_files_that_they_aim_at_are_there(stack):
    folder = "/usr/share/nginx"
    stack.execute(
        "nginx", "ls", f"{folder}/static/static/error.css", f"{folder}/pages/error/busy.html"
    )
    stack.execute(
        "app", "ls", "webapp/static", "webapp/config.py", "webapp/templates/error.html", "wsgi.py"
    )


@pytest.mark.parametrize("name", [".env", "cache_manifest.json", "error.css.bak", "error.css.gz"])
def test_what_is_beside_static_files_for_other_reasons(stack, name):
    """Whether it is there or not: otherwise the application would be asked for one that is not."""
    path = f"/static/{name}"
    assert raw.get(stack, path) == 404
    assert stack.asked(path) == 0


@pytest.mark.parametrize(
    "name", [".git", ".svn", ".vscode", ".aws", ".ssh", ".htpasswd", ".env.bak"]
)
def test_files_that_editors_and_tools_leave_are_not_found(client, name):
    answer = client.get(f"/shop/{name}/config")
    assert answer.status_code == 404
    assert "X-Cache-Status" not in answer.headers  # the application has not received it


@pytest.mark.parametrize("path", ["/tag/.net", "/.well-known/security.txt", "/static/no.csv.gz"])
def test_other_names_with_a_dot_are_the_applications(client, path):
    assert client.get(path).headers["X-Cache-Status"] == "MISS"


def test_request_id_is_made_at_the_edge_and_goes_everywhere(stack, client):
    answer = client.get("/diagnostics/echo", headers={"X-Request-ID": "mine"})
    request_id = answer.headers["X-Request-ID"]
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    assert answer.json()["request_id"] == request_id
    for service in ("nginx", "app"):
        assert len(stack.lines_of(request_id, service)) == 1


@pytest.mark.parametrize(
    "spoofed",
    [
        {"X-Forwarded-For": "203.0.113.9"},
        {"X-Forwarded-Proto": "http"},
        {"X-Forwarded-Host": "example.org"},
        {"X-Forwarded-Prefix": "/evil"},
        {"X-Real-IP": "203.0.113.9"},
        {"Forwarded": "for=203.0.113.9;proto=http;host=example.org"},
        {"Script-Name": "/evil"},
        {"Script_Name": "/evil"},
    ],
    ids=lambda headers: next(iter(headers)),
)
def test_spoofed_headers_change_nothing(client, spoofed):
    def seen(headers: dict) -> dict:
        echo = client.get("/diagnostics/echo", headers=headers).json()
        return {key: echo[key] for key in ("remote_addr", "scheme", "host", "path")}

    assert seen(spoofed) == seen({})
    assert seen({})["scheme"] == "https"


@pytest.mark.parametrize("name", ["Host", "Port", "Prefix", "Proto", "For"])
def test_no_forwarded_header_of_a_client_is_passed_on(client, name):
    sent = {f"X-Forwarded-{name}": "spoofed", "Forwarded": "spoofed", "X-Real-IP": "spoofed"}
    assert "spoofed" not in str(client.get("/diagnostics/echo", headers=sent).json()["headers"])


def test_trace_context_goes_into_the_logs(stack, client):
    trace = "0af7651916cd43dd8448eb211c80319c"
    header = {"traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    request_id = client.get("/diagnostics/hello", headers=header).headers["X-Request-ID"]
    for service in ("nginx", "app"):
        line = stack.lines_of(request_id, service)[0]
        assert line["trace"]["id"] == trace


def test_answers_of_the_application_are_compressed(client):
    path = "/diagnostics/echo"
    padding = {"X-Padding": "x" * 1000}
    answer = client.get(path, headers={"Accept-Encoding": "gzip", **padding})
    assert answer.headers["Content-Encoding"] == "gzip"
    plain = client.get(path, headers={"Accept-Encoding": "identity", **padding})
    assert "Content-Encoding" not in plain.headers


@pytest.mark.parametrize(
    ("method", "status"), [("FOOBAR", 405), ("PROPFIND", 405), ("TRACE", 405), ("get", 400)]
)
def test_unknown_methods_stop_at_the_edge(stack, client, method, status):
    request = f"{method} /diagnostics/echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    answer = raw.exchange(raw.handshake(stack), request.encode())
    assert int(answer.split()[1]) == status
    last = client.get("/diagnostics/hello").headers["X-Request-ID"]
    assert stack.lines_of(last, "app")
    assert method not in {
        line["http"]["request"]["method"] for line in stack.log("app") if "http" in line
    }


def test_405_of_the_edge_says_what_is_allowed(client):
    answer = client.request("FOOBAR", "/")
    assert answer.status_code == 405
    assert "PATCH" in answer.headers["Allow"]
    of_the_application = client.delete("/diagnostics/hello")
    assert of_the_application.status_code == 405
    assert "PATCH" not in of_the_application.headers["Allow"]


REFUSED = {
    "not shown": ("GET", "/metrics", 404),
    "unknown method": ("FOOBAR", "/", 405),
    "too large": ("POST", "/diagnostics/echo", 413),
}


@pytest.mark.parametrize(("method", "path", "status"), REFUSED.values(), ids=REFUSED)
def test_errors_of_the_edge_are_html_or_json_by_accept(client, method, path, status):
    content = b"x" * (10 * 1024**2 + 1) if status == 413 else None
    page = client.request(method, path, headers=HTML, content=content)
    assert page.status_code == status
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert page.headers["X-Request-ID"] in page.text

    answer = client.request(method, path, headers=JSON, content=content)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    problem = json.loads(answer.text)
    assert problem["status"] == status
    assert problem["title"] not in ("", "Error")
    assert problem["request_id"] == answer.headers["X-Request-ID"]


def test_below_api_errors_of_the_edge_are_json_for_who_accepts_anything(client):
    answer = client.request("FOOBAR", "/api/request", headers={"Accept": "*/*"})
    assert answer.headers["Content-Type"] == "application/problem+json"
