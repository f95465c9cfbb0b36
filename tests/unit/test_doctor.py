"""What `make doctor` finds without an engine."""

import os
import subprocess

import pytest
from clone import ROOT, project_files

from scripts import compose
from scripts.checks import settings


@pytest.fixture
def project(tmp_path):
    """The scripts, the Makefile and the settings, in a folder of their own."""
    for file in project_files():
        if file.parts[0] in ("Makefile", "scripts", "docker-compose.yml", "docker-stack.yml"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            # As a zip unpacks them: without execute bits.
            (tmp_path / file).write_bytes((ROOT / file).read_bytes())
    return tmp_path


def make(project, *words):
    command = ["make", f"--directory={project}", "--no-print-directory", *words]
    engine = {"DOCKER_HOST": "tcp://127.0.0.1:9", "BOOTSTRAP": "0"}
    return subprocess.run(
        command, env=os.environ | engine, capture_output=True, text=True, check=False
    )


SWARM = ["swarm-deploy", "swarm-status", "swarm-rollback"]
if not (ROOT / "docker-stack.yml").exists():
    SWARM = []


@pytest.mark.parametrize("target", ["up", "release", "replay", *SWARM])
def test_settings_in_another_encoding_are_said_in_one_line(project, target):
    (project / ".env").write_bytes("RATE_LIMIT=7\n# Für alle\n".encode("latin-1"))
    line = make(project, target).stderr.splitlines()[0]
    assert line.startswith("error: .env is not UTF-8, in line 2 -> save it as UTF-8, or: iconv")


def test_scripts_need_no_execute_bits(project):
    assert make(project, "secrets").stderr == ""
    assert (project / "secrets/secret_key").exists()
    assert "step 1 of 2" in make(project, "rotate").stdout
    for target in ("grafana-password", "engine"):
        assert "ermission denied" not in make(project, target).stderr


@pytest.mark.parametrize(
    ("name", "refused"),
    [("certificates", True), ("./certificates", False), ("other", False), ("", False)],
)
def test_a_volume_that_has_the_name_of_a_folder_is_refused(tmp_path, monkeypatch, name, refused):
    (tmp_path / "certificates").mkdir()
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(compose, "setting", lambda of: name)
    found = [str(problem) for problem in settings.folder_or_volume()]
    assert len(found) == refused
    assert [
        problem.endswith("write CERTIFICATES=./certificates, or rename the folder")
        for problem in found
    ] == [True] * refused


@pytest.mark.parametrize(("value", "refused"), [("", 0), ("true", 0), ("false", 0), ("off", 1)])
def test_what_the_engine_takes_for_no_truth_is_refused(monkeypatch, value, refused):
    monkeypatch.setattr(compose, "setting", lambda of: value)
    assert len([*settings.way_out()]) == refused
