"""The sample. Delete this file together with it."""

import re

import pytest
from conftest import APP


@pytest.fixture
def client(make_app):
    return make_app(APP_VERSION="1.2.3", ADDON_MONITORING="on").test_client()


def test_the_shell_is_the_same_for_everybody_and_cacheable(client):
    first, second = (
        client.get("/", environ_base={"REMOTE_ADDR": address})
        for address in ("10.0.0.1", "10.0.0.2")
    )
    assert first.status_code == 200
    assert first.data == second.data
    assert first.headers["Cache-Control"].startswith("public, max-age=1,")
    assert "Set-Cookie" not in first.headers


def test_the_shell_passes_the_strict_csp(client):
    page = client.get("/").text
    assert not re.search(r"<style|\bstyle=|\bon\w+=|javascript:|data:(?!-)", page)
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    # Nothing from elsewhere.
    assert not re.search(r'(src|href)="(https?:)?//', page)
    names = re.findall(r"/static/([\w.-]+)", page)
    assert {name.rpartition(".")[2] for name in names} >= {"css", "js"}
    for name in names:
        assert client.get(f"/static/{name}").status_code == 200
        assert "data:" not in (APP / "webapp/static" / name).read_text()


def test_facts_about_the_request(client):
    answer = client.get("/api/request", headers={"X-Request-ID": "mine"})
    assert answer.headers["Cache-Control"] == "no-store"
    facts = answer.json
    assert facts.pop("replica")
    assert facts.pop("worker") > 1
    assert facts == {
        "client_address": "127.0.0.1",
        "scheme": "http",
        "host": "localhost",
        "request_id": "mine",
        "version": "1.2.3",
        "addons": ["monitoring"],
        "environment": "production",
    }


def test_each_fact_has_its_place_on_the_page(client):
    places = set(re.findall(r'data-field="(\w+)"', client.get("/").text))
    assert places == set(client.get("/api/request").json)


@pytest.mark.parametrize("path", ["/", "/api/request"])
def test_only_reading(client, path):
    assert client.head(path).status_code == 200
    assert client.post(path).status_code == 405


def test_favicon(client):
    assert client.get("/favicon.ico").headers["Cache-Control"] == "max-age=86400"
    answer = client.get("/favicon.ico", follow_redirects=True)
    assert answer.status_code == 200
    assert answer.mimetype == "image/svg+xml"
