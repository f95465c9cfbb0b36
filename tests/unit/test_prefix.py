"""The application below a path."""

import re

import pytest
from clone import require
from flask import url_for

ROOT = "http://localhost"
OUTSIDE = [
    "/nowhere",
    "/static/error.css",
    "/api/request",
    "/shopping",
    "/shop2/",
    "/x/shop/",
]


@pytest.fixture
def app(make_app):
    return make_app(APP_ENV="testing", SCRIPT_NAME="/shop")


@pytest.fixture
def get(client):
    """get(PATH): the answer for the whole path, as a server hands it over that knows no prefix."""
    return lambda path, **options: client.get(path, base_url=ROOT, **options)


def test_what_is_below_is_the_applications(app, get):
    @app.get("/links")
    def links():
        return {"view": url_for("links"), "static": url_for("static", filename="error.css")}

    assert get("/shop/links").json == {"view": "/shop/links", "static": "/shop/static/error.css"}
    assert get("/shop/static/error.css").status_code == 200
    assert get("/shop/diagnostics/echo").json["path"] == "/diagnostics/echo"


def test_the_page_links_only_what_is_below(get):
    require("app/webapp/pages.py")
    page = get("/shop/").text
    links = re.findall(r'(?:href|src|data-url)="(/[^"]*)"', page)
    assert len(links) > 4
    assert {get(link).status_code for link in links} == {200}
    assert get("/shop/favicon.ico").headers["Location"].startswith("/shop/static/")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_internal_paths_are_at_the_root_alone(get, path):
    assert get(path, headers={"Host": "10.0.0.7:8000"}).status_code == 200
    assert get(f"/shop{path}").status_code == 404


@pytest.mark.parametrize("path", [*OUTSIDE, "/shop/nowhere"])
def test_elsewhere_is_the_usual_error_page(get, path):
    answer = get(path, headers={"Accept": "text/html"})
    assert answer.status_code == 404
    assert answer.headers["X-Request-ID"] in answer.text
    assert 'href="/shop/static/error.css"' in answer.text
    assert 'href="/shop/"' in answer.text


def test_no_route_is_found_outside_whatever_it_matches(app, get):
    @app.get("/<path:anything>")
    def anything(anything):
        return anything

    assert [get(path).status_code for path in ("/nowhere", "/shopping")] == [404, 404]
    assert get("/shop/nowhere").text == "nowhere"
    metrics = get("/metrics").text
    assert re.search(r'_count\{.*route="none",status="404"\} 2', metrics)


@pytest.mark.parametrize("path", ["/", "/shop"])
def test_the_root_leads_to_the_start_page(client, path):
    answer = client.post(f"{path}?a=%2F&b", base_url=ROOT)
    assert (answer.status_code, answer.headers["Location"]) == (307, "/shop/?a=%2F&b")
    assert client.get(path, base_url=ROOT).headers["Location"] == "/shop/"


def test_a_server_that_divides_the_path_itself(client):
    """As mod_wsgi and uWSGI do; and Flask's test client, so that tests need not know the prefix."""
    assert client.get("/diagnostics/echo").json["path"] == "/diagnostics/echo"


@pytest.mark.parametrize(("path", "json"), [("/shop/api/x", True), ("/shop/x/api/", False)])
def test_errors_of_the_api_are_json(get, path, json):
    assert get(path).is_json is json


def test_links_outside_of_a_request(app):
    app.config["SERVER_NAME"] = "example.org"
    with app.app_context():
        assert url_for("health.livez") == "http://example.org/shop/livez"
