"""The request id."""

import os
import re
import socket

import pytest
from webapp import create_app


def test_taken_from_the_proxy(client):
    answer = client.get("/diagnostics/echo", headers={"X-Request-ID": "aB3._-9"})
    assert answer.headers.getlist("X-Request-ID") == ["aB3._-9"]
    assert answer.json["request_id"] == "aB3._-9"


@pytest.mark.parametrize("sent", [None, "", "a" * 65, "a b", "é", '"}', "a,b", "a\t"])
def test_made_here_when_absent_or_not_valid(client, sent):
    headers = {} if sent is None else {"X-Request-ID": sent}
    first, second = (client.get("/livez", headers=headers) for _ in "12")
    assert re.fullmatch("[0-9a-f]{32}", first.headers["X-Request-ID"])
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/", "/nowhere", "/static/error.css", "/diagnostics/error"])
def test_on_every_answer(client, path):
    answer = client.get(path, headers={"X-Request-ID": "mine"})
    assert answer.headers["X-Request-ID"] == "mine"


def test_a_view_cannot_replace_it(app):
    @app.get("/other")
    def other():
        return "", {"X-Request-ID": "other"}

    answer = app.test_client().get("/other", headers={"X-Request-ID": "mine"})
    assert answer.headers.getlist("X-Request-ID") == ["mine"]


# For nginx's access line


@pytest.fixture
def behind_nginx():
    return create_app({"APP_ENV": "development", "X_ACCEL_REDIRECT": "on"})


def test_nginx_learns_route_replica_and_worker(behind_nginx):
    @behind_nginx.get("/größe/<int:number>")
    def size(number):
        return ""

    headers = behind_nginx.test_client().get("/größe/7").headers
    assert headers["X-App-Route"] == r"/gr\xf6\xdfe/<int:number>"
    assert headers["X-App-Worker"] == f"{socket.gethostname()}/{os.getpid()}"


def test_a_request_without_a_route_has_a_worker_only(behind_nginx):
    headers = behind_nginx.test_client().get("/nowhere").headers
    assert "X-App-Worker" in headers
    assert "X-App-Route" not in headers


def test_clients_learn_neither_where_no_nginx_is_in_front(client):
    headers = client.get("/diagnostics/echo").headers
    assert not {"X-App-Route", "X-App-Worker"} & {*headers.keys()}
