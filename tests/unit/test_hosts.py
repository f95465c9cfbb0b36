"""Trusted hosts, and whose forwarded headers are believed."""

import pytest
from flask import url_for

SPOOFED = {
    "X-Forwarded-For": "6.6.6.6, 203.0.113.9, 10.0.0.2",
    "X-Forwarded-Proto": "gopher, https, http",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Port": "666",
    "X-Real-IP": "6.6.6.6",
    "Forwarded": "for=6.6.6.6;proto=https;host=evil.example",
}


@pytest.mark.parametrize(
    ("count", "address", "scheme"),
    [("0", "127.0.0.1", "http"), ("1", "10.0.0.2", "http"), ("2", "203.0.113.9", "https")],
)
def test_as_many_proxies_are_believed_as_there_are(make_app, count, address, scheme):
    client = make_app(APP_ENV="testing", PROXY_COUNT=count).test_client()
    echo = client.get("/diagnostics/echo", headers=SPOOFED).json
    assert (echo["remote_addr"], echo["scheme"]) == (address, scheme)
    assert (echo["host"], echo["path"]) == ("localhost", "/diagnostics/echo")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "localhost:8443", "a.example.org"])
def test_hosts_that_are_served(make_app, host):
    client = make_app(SERVER_NAME="localhost .example.org").test_client()
    assert client.get("/nowhere", headers={"Host": host}).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1", "", "a b"])
def test_other_hosts_are_refused(client, host):
    answer = client.get("/nowhere", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.headers["X-Request-ID"] in answer.text


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "evil.example", "", "a b", "[::1]"])
@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probes_are_answered_whatever_the_host(client, path, host):
    assert client.get(path, headers={"Host": host}).status_code == 200


def test_without_server_name_every_host_is_served(make_app):
    answer = make_app().test_client().get("/nowhere", headers={"Host": "shop.platform.example"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "https://localhost/livez"),
        (
            {"SERVER_NAME": ".example.org b.example", "PUBLIC_PORT": "443"},
            "https://example.org/livez",
        ),
        ({"SERVER_NAME": "a.example", "HTTPS_PORT": "8443"}, "https://a.example:8443/livez"),
        ({"SCRIPT_NAME": "/shop", "APP_ENV": "development"}, "http://localhost/shop/livez"),
    ],
)
def test_links_outside_of_requests(make_app, variables, address):
    with make_app(**variables).app_context():
        assert url_for("health.livez", _external=True) == address


def test_links_in_requests_have_the_visitors_host(make_app):
    app = make_app(SERVER_NAME="a.example b.example", PUBLIC_PORT="8443")
    with app.test_request_context("/", base_url="https://b.example"):
        assert url_for("health.livez", _external=True) == "https://b.example/livez"


@pytest.mark.parametrize("name", ["Accept", "Accept-Language", "Accept-Encoding", "Accept-Charset"])
def test_preferences_longer_than_a_browsers_count_as_absent(client, name):
    """Comparing them takes a second of CPU time for some hundred error pages."""
    for text, seen in (("a/b," * 200, True), ("a/b," * 2000, False)):
        echo = client.get("/diagnostics/echo", headers={name: text}).json
        assert (name in dict(echo["headers"])) == seen
    assert client.get("/nowhere", headers={name: "a/b," * 6000}).status_code == 404
