"""Liveness and readiness."""

import pytest
from webapp import health


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(health, "DRAINING", str(tmp_path / "draining"))
    return tmp_path


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_ok(client, path):
    answer = client.get(path)
    assert (answer.status_code, answer.text) == (200, "ok\n")
    assert answer.headers["Cache-Control"] == "no-store"
    assert client.head(path).status_code == 200


def test_draining_is_alive_but_not_ready(client, temporary_folder):
    (temporary_folder / "draining").touch()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "draining\n")
    assert client.get("/livez").status_code == 200
    (temporary_folder / "draining").unlink()
    assert client.get("/readyz").status_code == 200


def test_a_check_can_be_added(client, monkeypatch):
    monkeypatch.setattr(health, "checks", list(health.checks))
    problems = []

    @health.check
    def queue():
        return problems[0] if problems else None

    assert client.get("/readyz").status_code == 200
    problems.append("queue is gone")
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "queue is gone\n")
