"""One shape for every error."""

import errno
import socket

import pytest
from flask import abort, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable, Unauthorized

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"  # a browser's


@pytest.mark.parametrize(
    ("path", "accept", "mimetype"),
    [
        ("/nowhere", HTML, "text/html"),
        ("/nowhere", None, "text/html"),
        ("/nowhere", "*/*", "text/html"),
        ("/nowhere", "application/json", "application/problem+json"),
        ("/nowhere", "application/problem+json, */*;q=0.1", "application/problem+json"),
        ("/nowhere", "image/png", "text/html"),
        ("/nowhere", "\x00nonsense;;q=x", "text/html"),
        ("/api/nowhere", None, "application/problem+json"),
        ("/api/nowhere", "*/*", "application/problem+json"),
        ("/api/nowhere", HTML, "text/html"),
        ("/static/nowhere.css", "text/css,*/*;q=0.1", "text/html"),
    ],
)
def test_html_or_json_by_accept(client, path, accept, mimetype):
    answer = client.get(path, headers={"Accept": accept} if accept else {})
    assert answer.status_code == 404
    assert answer.mimetype == mimetype
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Accept" in answer.headers["Vary"]
    assert answer.headers["X-Request-ID"] in answer.text


def test_problem_details(client):
    answer = client.get("/api/nowhere", headers={"X-Request-ID": "mine"})
    assert answer.json.keys() == {"title", "status", "detail", "request_id"}
    assert (answer.json["title"], answer.json["status"]) == ("Not Found", 404)
    assert answer.json["request_id"] == "mine"


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_a_crash_shows_nothing_internal_and_is_logged_once(client, stdout, accept):
    headers = {"Accept": accept, "X-Request-ID": "crash-1"}
    answer = client.get("/diagnostics/error", headers=headers)
    assert answer.status_code == 500
    assert "crash-1" in answer.text
    for internal in ("nobody handles", "RuntimeError", "Traceback", "webapp"):
        assert internal not in answer.text
    (line,) = (line for line in stdout() if "error" in line)
    assert line["log"]["level"] == "error"
    assert line["http"]["request"]["id"] == "crash-1"
    assert line["error"]["type"] == "RuntimeError"
    assert "diagnostics.py" in line["error"]["stack_trace"]


@pytest.mark.parametrize(
    ("cause", "explained"),
    [
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (socket.gaierror(-3, "Temporary failure in name resolution"), True),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), False),
    ],
)
def test_a_call_that_cannot_leave_the_network_is_explained(app, stdout, cause, explained):
    """As a library reports it, around what the system said."""

    @app.get("/call")
    def call():
        try:
            raise cause
        except OSError as error:
            raise RuntimeError("max retries exceeded") from error

    assert app.test_client().get("/call").status_code == 500
    (line,) = (line for line in stdout() if "error" in line)
    assert ("BACKEND_INTERNAL=false" in line["error"]["stack_trace"]) is explained


def test_descriptions_of_our_own_failures_are_not_shown(app):
    @app.get("/database")
    def database():
        abort(503, "password=hunter2 refused by 10.1.1.1")

    assert "hunter2" not in app.test_client().get("/database").text


def test_headers_are_kept(app):
    @app.get("/busy")
    def busy():
        raise ServiceUnavailable(retry_after=7)

    client = app.test_client()
    assert client.get("/busy").headers["Retry-After"] == "7"
    answer = client.post("/livez")
    assert answer.status_code == 405
    assert set(answer.allow) == {"GET", "HEAD", "OPTIONS"}


def test_redirects_stay_redirects(app):
    class SeeOther(HTTPException):
        code = 303

    def see_other():
        raise SeeOther

    app.add_url_rule("/folder/", view_func=lambda: "", endpoint="folder")
    app.add_url_rule("/moved", view_func=lambda: abort(app.redirect("/", 302)), endpoint="moved")
    app.add_url_rule("/other", view_func=see_other, endpoint="other")
    client = app.test_client()
    for path, status in [("/folder", 308), ("/moved", 302), ("/other", 303)]:
        answer = client.get(path)
        assert (answer.status_code, "error.css" in answer.text) == (status, False)
    assert client.get("/folder").headers["Location"] == "http://localhost/folder/"


def test_a_ready_made_response_is_left_alone(app):
    @app.get("/own")
    def own():
        abort(app.response_class("mine", 418))

    @app.get("/login")
    def login():
        raise Unauthorized(response=app.response_class("sign in", 401))

    client = app.test_client()
    assert client.get("/own").text == "mine"
    assert client.get("/login").text == "sign in"


def test_what_a_client_sends_is_escaped(app):
    @app.get("/echo-error")
    def echo_error():
        abort(400, request.args["text"])

    answer = app.test_client().get("/echo-error?text=<script>alert(1)</script>")
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_the_error_page_passes_the_strict_csp(client):
    page = client.get("/nowhere").text
    assert "style=" not in page
    assert "<style" not in page
    assert "<script" not in page


@pytest.mark.parametrize(("size", "status"), [(2048, 200), (2049, 413)])
def test_body_limit(make_app, size, status):
    client = make_app(APP_ENV="testing", MAX_BODY_SIZE="2k").test_client()
    answer = client.post("/diagnostics/echo", data=b"x" * size)
    assert answer.status_code == status
    if status == 200:
        assert answer.json["body_length"] == size


@pytest.mark.parametrize("path", ["/%ff%fe", "/%00", "/%0d%0aX-Evil:1", "/..%2f..%2fetc"])
def test_odd_paths_are_not_found(client, path):
    assert client.get(path).status_code == 404
