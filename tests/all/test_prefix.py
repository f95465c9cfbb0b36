"""The site below a path of its host, /shop."""

import json
import re

import pytest
import raw
from clone import require


@pytest.fixture(scope="module")
def shop(stack):
    with stack.changed(SCRIPT_NAME="/shop"):
        yield stack


@pytest.fixture
def client(shop):
    with shop.client(headers={"Accept": "text/html"}) as client:
        yield client


def links(page: str) -> set[str]:
    return set(re.findall(r'(?:href|src|data-url)="([^"#]+)"', page))


@pytest.mark.parametrize(("path", "number"), [("/shop/", 4), ("/shop/nowhere", 2), ("/nowhere", 2)])
def test_pages_link_only_what_is_below_the_prefix(client, path, number):
    if path == "/shop/":
        require("app/webapp/pages.py")
    found = links(client.get(path).text)
    assert len(found) >= number
    assert [link for link in found if not link.startswith("/shop/")] == []
    assert {client.get(link).status_code for link in found} == {200}


def test_static_files_below_the_prefix_are_still_nginxs(client):
    (path,) = (link for link in links(client.get("/nowhere").text) if "/static/" in link)
    answer = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert answer.headers["Content-Encoding"] == "gzip"
    # The application would have had something to do with it.
    assert "X-Cache-Status" not in answer.headers
    missing = client.get("/shop/static/not-in-nginx.css")
    assert (missing.status_code, missing.headers["X-Cache-Status"]) == (404, "MISS")
    assert client.get(path.removeprefix("/shop")).status_code == 404


@pytest.mark.parametrize("path", ["/", "/shop"])
def test_the_root_leads_to_the_start_page(client, path):
    answer = client.get(f"{path}?a=1")
    assert (answer.status_code, answer.headers["Location"]) == (307, "/shop/?a=1")


def test_errors_of_nginx_lead_to_the_start_page(client):
    assert links(client.request("FOOBAR", "/shop/").text) == {"/shop/"}


def test_errors_of_nginx_are_json_below_api(client):
    answer = client.request("FOOBAR", "/shop/api/request", headers={"Accept": "*/*"})
    assert json.loads(answer.text)["status"] == 405


def test_the_session_is_the_prefixs(client):
    client.get("/shop/diagnostics/session?value=mine")
    assert client.get("/shop/diagnostics/session").json() == {"value": "mine"}
    (cookie,) = client.cookies.jar
    assert (cookie.name, cookie.path, cookie.secure) == ("__Secure-session", "/shop", True)


INTERNAL = ["/metrics", "/livez", "/readyz", "//metrics", "/%6detrics", "/x/../readyz"]
HIDDEN = ["/.git/config", "/static/cache_manifest.json", "/static/error.css.gz"]


@pytest.mark.parametrize("path", [*INTERNAL, *HIDDEN])
def test_internals_are_not_found_at_the_root_or_below(shop, path):
    assert [raw.get(shop, prefix + path) for prefix in ("", "/shop")] == [404, 404]


def test_the_path_reaches_the_application_as_it_came(shop, client):
    path = "/shop/a%2Fb%20c/"
    request_id = client.get(path).headers["X-Request-ID"]
    (line,) = shop.lines_of(request_id, "app")
    assert line["url"]["path"] == path


def test_make_up_prints_the_prefix(shop):
    script = "from scripts import up; up.print_urls([])"
    assert shop.run("python3", "-c", script).stdout == f"{shop.url}/shop\n"
