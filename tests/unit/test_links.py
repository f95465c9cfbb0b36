"""A link that a person made stays, whatever scripts/ replaces or removes, and so does its target.

Each test works on a copy of the scripts in a folder of its own; none needs an engine.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import APP


@pytest.fixture
def project(tmp_path):
    """The project's root, with the scripts and an empty folder `store` beside it."""
    (tmp_path / "store").mkdir()
    root = tmp_path / "project"
    shutil.copytree(APP.parent / "scripts", root / "scripts")
    (root / "prometheus").mkdir()
    (root / "prometheus/docker-compose.yml").touch()
    (root / "secrets").mkdir()
    return root


def run(project: Path, *command: str, **environment: str):
    """A command's completed process, with an engine that does not answer."""
    own = {"DOCKER_HOST": "tcp://127.0.0.1:9"}
    return subprocess.run(
        command,
        cwd=project,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"} | own | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def link(file: Path, content: str | None = None) -> Path:
    """Make it a link to a file in `store`, which exists if it gets a content; returns that."""
    target = file.parent.parent.parent / "store" / file.name
    if content is not None:
        target.write_text(content)
    file.symlink_to(target)
    return target


def refused(answer, words: str) -> None:
    assert answer.returncode
    (line,) = answer.stderr.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert " -> " in line


def test_secrets_are_not_made_over_a_dangling_link(project):
    secret = project / "secrets/secret_key"
    target = link(secret)
    refused(run(project, "bash", "scripts/secrets.sh"), "secrets/secret_key is a link to")
    assert secret.readlink() == target
    assert not target.exists()
    target.write_text("a person's own")
    assert run(project, "bash", "scripts/secrets.sh").returncode == 0
    assert target.read_text() == "a person's own"
    assert (project / "secrets/secret_key_fallbacks").exists()


def test_no_key_is_made_for_an_authority_whose_mount_is_missing(project):
    (project / "logstash").mkdir()
    link(project / "secrets/logging_ca")
    refused(run(project, "bash", "scripts/secrets.sh"), "secrets/logging_ca is a link to")
    assert not (project / "secrets/logging_ca_key").exists()


def test_a_folder_of_secrets_that_is_a_link_keeps_its_mode(project):
    folder, store = project / "secrets", project.parent / "store"
    folder.rmdir()
    folder.symlink_to(store)
    store.chmod(0o750)
    assert run(project, "bash", "scripts/secrets.sh").returncode == 0
    assert store.stat().st_mode & 0o777 == 0o750
    assert (store / "secret_key").exists()
    # What was made goes, the folder stays.
    assert run(project, "python3", "-m", "scripts", "clean").returncode == 0
    assert folder.readlink() == store
    assert list(store.iterdir()) == []
    store.rmdir()
    refused(run(project, "bash", "scripts/secrets.sh"), "secrets is a link to")


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("rotate.sh", "secret_key"),
        ("rotate.sh", "secret_key_fallbacks"),
        ("grafana-password.sh", "grafana_password"),
    ],
)
def test_a_new_secret_replaces_no_link(project, script, name):
    run(project, "bash", "scripts/secrets.sh")
    file = project / "secrets" / name
    content = file.read_text()
    file.unlink()
    target = link(file, content)
    files = {*file.parent.iterdir()}
    refused(run(project, "bash", f"scripts/{script}"), f"secrets/{name} is a link to")
    assert file.readlink() == target
    assert target.read_text() == content
    assert {*file.parent.iterdir()} == files


def test_clean_removes_no_link_nor_what_it_leads_to(project):
    run(project, "bash", "scripts/secrets.sh")
    store, key = project.parent / "store", project / "secrets/secret_key"
    # As it was made, and then moved to where secrets are kept.
    shutil.move(key, store)
    key.symlink_to(store / "secret_key")
    (store / "venv").mkdir()
    (store / "venv/kept").touch()
    (project / ".venv").symlink_to(store / "venv")
    (project / ".ruff_cache").mkdir()
    answer = run(project, "python3", "-m", "scripts", "clean")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert (project / ".venv").readlink() == store / "venv"
    assert (store / "venv/kept").exists()
    assert key.readlink() == store / "secret_key"
    assert (store / "secret_key").exists()
    assert not (project / ".ruff_cache").exists()
    assert not (project / "secrets/secret_key_fallbacks").exists()


REMEMBER = "from scripts import addons; addons.remember()"


def test_what_is_remembered_goes_through_a_link(project):
    file = project / ".env"
    target = project.parent / "store/settings"
    target.write_text("RATE_LIMIT=7\n")
    target.chmod(0o640)
    file.symlink_to(target)
    assert run(project, "python3", "-c", REMEMBER, WITH="monitoring").returncode == 0
    remembered = "COMPOSE_FILE=docker-compose.yml:prometheus/docker-compose.yml"
    assert target.read_text() == f"RATE_LIMIT=7\n{remembered}\n"
    assert file.readlink() == target
    assert target.stat().st_mode & 0o777 == 0o640
    assert [*target.parent.iterdir()] == [target]


def test_settings_survive_a_disk_that_is_full(project):
    """A limit on the size of files stands for the disk: a write fails after the first bytes."""
    file = project / ".env"
    file.write_text(f"# {'x' * 100}\n")
    before = file.read_text(), os.listdir(project)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16, 16));"
    answer = run(project, "python3", "-c", limit + REMEMBER, WITH="monitoring")
    refused(answer, f"{file} cannot be written")
    assert (file.read_text(), os.listdir(project)) == before


def test_settings_whose_mount_is_missing_are_not_ignored(project):
    """Compose would take every setting's default, the project's name among them."""
    (project / ".env").symlink_to(project.parent / "store/settings")
    (project / "docker-compose.yml").write_text("services: {}\n")
    refused(run(project, "python3", "-m", "scripts", "up"), ".env is a link to")
