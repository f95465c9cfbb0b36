"""Trusted hosts, and whose forwarded headers are believed."""

import pytest

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
