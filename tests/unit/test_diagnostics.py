"""The diagnostics blueprint, and that only the test configuration has it."""

import hashlib
import io

import pytest


@pytest.mark.parametrize("app_env", ["production", "development"])
def test_absent_elsewhere(make_app, app_env):
    app = make_app(APP_ENV=app_env)
    assert "diagnostics" not in app.blueprints
    assert app.test_client().get("/diagnostics/echo").status_code == 404


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_echo(client, method):
    answer = client.open("/diagnostics/echo?a=b&c", method=method, data=b"\x00body")
    echo = answer.json
    assert (echo["method"], echo["path"], echo["query"]) == (method, "/diagnostics/echo", "a=b&c")
    assert echo["body_length"] == 5
    assert echo["body_sha256"] == hashlib.sha256(b"\x00body").hexdigest()
    assert ["Host", "localhost"] in echo["headers"]
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("kind", ["sleep", "cpu"])
def test_work(client, kind):
    assert client.get(f"/diagnostics/work?ms=5&kind={kind}").json["ms"] == 5


def test_memory(client):
    assert client.get("/diagnostics/memory?mb=3").json["mb"] == 3


@pytest.mark.parametrize(
    "path",
    ["work?ms=600001", "work?ms=-1", "work?ms=x", "work?ms=٣", "work?ms=", "work?ms=1&kind=rest",
     "memory?mb=99999", "memory?seconds=601", "status/199", "status/600"],
)  # fmt: skip
def test_what_is_out_of_bounds_is_refused(client, path):
    answer = client.get(f"/diagnostics/{path}")
    assert answer.status_code == 400
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("code", [200, 204, 301, 404, 429, 503])
def test_status(client, code):
    assert client.get(f"/diagnostics/status/{code}").status_code == code


def test_session(client):
    secure = {"base_url": "https://localhost"}
    assert client.get("/diagnostics/session", **secure).json == {"value": None}
    client.get("/diagnostics/session?value=7", **secure)
    assert client.get("/diagnostics/session", **secure).json == {"value": "7"}


def test_page_is_as_cacheable_as_it_is_asked_to_be(client):
    answers = [client.get("/diagnostics/page?cache=public&vary=Accept&bytes=9") for _ in range(2)]
    assert answers[0].headers["Cache-Control"] == "public"
    assert answers[0].headers["Vary"] == "Accept"
    assert answers[0].json["padding"] == "x" * 9
    assert answers[0].json["id"] != answers[1].json["id"]
    assert "Set-Cookie" in client.get("/diagnostics/page?cookie=1").headers
    assert client.get("/diagnostics/page?cache=a%0d%0ab").status_code == 400


def test_every_answer_says_who_gave_it(client, make_app):
    for path in ("/", "/nowhere"):
        assert {"X-Replica", "X-Version"} <= set(client.get(path).headers.keys())
    production = (
        make_app(APP_ENV="production").test_client().get("/", headers={"Host": "localhost"})
    )
    assert "X-Replica" not in production.headers


def test_upload(client):
    data = {"file": (io.BytesIO(b"x" * 600_000), "name.bin")}
    assert client.post("/diagnostics/upload", data=data).json == {"file": 600_000}


def test_stream_sends_its_parts(client):
    answer = client.get("/diagnostics/stream?parts=3&bytes=2")
    assert (answer.text, answer.headers["Content-Length"]) == ("xx" * 3, "6")
    assert client.get("/diagnostics/stream?parts=1&ms=1").headers["X-Accel-Buffering"] == "no"


def test_file_has_its_size(client):
    assert len(client.get("/diagnostics/file?mb=1").data) == 1024 * 1024
