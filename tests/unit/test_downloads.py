"""Large files with nginx in front, and without."""

import pytest
from webapp import downloads


@pytest.fixture
def get(make_app, tmp_path, monkeypatch):
    """get(path, **settings) of an application that sends what is in a folder."""
    monkeypatch.setattr(downloads, "FOLDER", str(tmp_path / "downloads"))
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads/a b.bin").write_bytes(b"content")
    (tmp_path / "secret").write_bytes(b"secret")

    def get(path, **settings):
        app = make_app(**settings)
        app.add_url_rule("/files/<path:name>", view_func=downloads.send)
        return app.test_client().get(path)

    return get


def test_nginx_gets_the_name_and_no_body(get):
    answer = get("/files/a b.bin", X_ACCEL_REDIRECT="on")
    assert answer.headers["X-Accel-Redirect"] == "/x-accel/a%20b.bin"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.data == b""
    assert "X-Sendfile" not in answer.headers


def test_without_nginx_the_application_sends_it(get):
    answer = get("/files/a b.bin")
    assert answer.data == b"content"
    assert "X-Accel-Redirect" not in answer.headers


@pytest.mark.parametrize("setting", ["on", "off"])
@pytest.mark.parametrize("path", ["none.bin", "..%2fsecret", "%2e%2e/secret"])
def test_other_files_are_not_found(get, path, setting):
    answer = get(f"/files/{path}", X_ACCEL_REDIRECT=setting)
    assert answer.status_code == 404
    assert "X-Accel-Redirect" not in answer.headers
