"""Static files, as the image serves them when it is alone."""

import gzip
import re
import shutil
import subprocess
import sys

import pytest
from conftest import APP
from flask import send_file
from webapp import static_files


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A copy of the application in which `flask digest compile` ran, as in the image."""
    folder = tmp_path_factory.mktemp("app") / "app"
    ignored = shutil.ignore_patterns("__pycache__", "*.gz", "cache_manifest.json")
    shutil.copytree(APP, folder, ignore=ignored)
    # It takes part in nothing: it may need settings that a build does not have.
    (folder / "webapp/__init__.py").write_text("raise RuntimeError")
    subprocess.run(
        [sys.executable, "-m", "flask", "--app", "digest", "digest", "compile"],
        cwd=folder,
        env={},
        capture_output=True,
        check=True,
    )
    return folder / "webapp/static"


@pytest.fixture
def make_compiled(make_app, compiled, monkeypatch):
    def make(**variables):
        init = static_files.init_app

        def init_with_folder(app):
            app.static_folder = str(compiled)
            init(app)

        monkeypatch.setattr(static_files, "init_app", init_with_folder)
        return make_app(**variables)

    return make


@pytest.fixture
def client(make_compiled):
    return make_compiled().test_client()


def hashed(client):
    return client.application.extensions["static_manifest"]["error.css"]


def test_hashed_names_are_immutable_for_a_year_and_compressed(client, compiled):
    url = f"/static/{hashed(client)}"
    answer = client.get(url, headers={"Accept-Encoding": "gzip"})
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "max-age=31536000, public, immutable"
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(answer.data) == (compiled / "error.css").read_bytes()
    plain = client.get(url)
    assert "Content-Encoding" not in plain.headers
    assert plain.data == (compiled / "error.css").read_bytes()


def test_plain_names_are_cached_shortly(client):
    answer = client.get("/static/error.css")
    assert answer.headers["Cache-Control"] == "max-age=60, public"
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_a_name_that_only_looks_hashed_is_not_immutable(compiled, client, make_compiled):
    name = f"own-{'a' * 32}.txt"
    (compiled / name).write_text("x")
    try:
        answer = make_compiled().test_client().get(f"/static/{name}")
    finally:
        (compiled / name).unlink()
    assert answer.headers["Cache-Control"] == "max-age=60, public"


@pytest.mark.parametrize(
    "name",
    ["nowhere.css", "", "../config.py", "%2e%2e/config.py", "..%2fconfig.py", "x%00.css",
     "cache_manifest.json", "error.css.gz"],
)  # fmt: skip
def test_anything_else_is_the_normal_404(client, compiled, name):
    assert (compiled.parent / "config.py").exists()
    answer = client.get(f"/static/{name}", headers={"Accept": "application/json"})
    assert answer.status_code == 404
    assert answer.json["request_id"]


def test_two_slashes_lead_to_the_name_with_one(client):
    answer = client.get("/static//error.css")
    assert (answer.status_code, answer.location) == (308, "http://localhost/static/error.css")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.vtt", "text/vtt; charset=utf-8"), ("a.opus", "audio/ogg"), ("a.ttf", "font/ttf"),
     ("a.geojson", "application/geo+json"), ("a.webmanifest", "application/manifest+json"),
     ("a.JS", "text/javascript; charset=utf-8"), ("a.swf", "application/octet-stream"),
     ("a.csv.gz", "application/gzip")],
)  # fmt: skip
def test_a_file_has_the_type_of_the_table(compiled, make_compiled, name, kind):
    (compiled / name).touch()
    try:
        answer = make_compiled().test_client().get(f"/static/{name}")
    finally:
        (compiled / name).unlink()
    assert answer.headers["Content-Type"].replace('"', "") == kind


def test_files_that_views_send_have_the_type_of_the_table(make_app, tmp_path):
    (tmp_path / "a.geojson").touch()
    with make_app().test_request_context():
        assert send_file(tmp_path / "a.geojson").mimetype == "application/geo+json"


def test_nginx_names_the_charset_of_the_same_types():
    line = re.search(
        r"charset_types (.+);", (APP.parent / "nginx/templates/static.conf.template").read_text()
    )
    types = {
        kind for kind in static_files.types_by_extension().values() if kind.startswith("text/")
    }
    assert {*line[1].split()} == types - {"text/html"}


def test_error_pages_use_the_hashed_name(client):
    assert f"/static/{hashed(client)}" in client.get("/nowhere").text
    # Here url_for cannot work: Flask refuses the host before it has an adapter.
    host = {"Host": "a b"}
    assert f"/static/{hashed(client)}" in client.get("/nowhere", headers=host).text


def test_without_a_manifest_the_plain_names_are_used(make_compiled, compiled, tmp_path):
    manifest = compiled / "cache_manifest.json"
    manifest.rename(tmp_path / "manifest")
    try:
        client = make_compiled().test_client()
    finally:
        (tmp_path / "manifest").rename(manifest)
    assert '"/static/error.css"' in client.get("/nowhere").text
    assert client.get("/static/error.css").status_code == 200


def test_development_serves_what_is_being_edited(make_compiled, compiled):
    client = make_compiled(APP_ENV="development").test_client()
    assert "/static/error.css" in client.get("/nowhere").text
    answer = client.get("/static/error.css")
    assert answer.headers["Cache-Control"] == "no-cache"
    (compiled / "new.css").write_text("x")
    assert client.get("/static/new.css").text == "x"
    (compiled / "new.css").unlink()


def test_a_link_that_leads_nowhere_keeps_no_other_file_away(make_compiled, compiled):
    """As an editor makes one beside a file that is open."""
    link = compiled / ".#error.css"
    link.symlink_to("nobody@nowhere.1234")
    try:
        client = make_compiled().test_client()
    finally:
        link.unlink()
    assert client.get(f"/static/{hashed(client)}").status_code == 200
    assert client.get("/static/error.css").status_code == 200
    assert client.get("/static/.%23error.css").status_code == 404
