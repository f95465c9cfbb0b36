"""Locked packages install from an index that has newer ones, whatever pip a Python brings."""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from clone import ROOT

# Of Python 3.11 in Debian 12, of Python 3.11.7 and 3.12.0, and the newest.
PIPS = ["pip==23.0.1", "pip==23.2.1", "pip"]
# The Pythons that lint and tests run on, and that of the image.
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]
UV = Path(sys.executable).with_name("uv")
TOOLS = ("app/requirements.txt", "tests/requirements.txt")


class Index:
    """A folder of packages without any content."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, version: str, *metadata: str, script: str = "") -> str:
        """Make the package and return its line of a lock."""
        wheel = self.folder / f"{name}-{version}-py3-none-any.whl"
        head = ("Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}")
        with zipfile.ZipFile(wheel, "w") as file:
            for path, text in {
                "dist-info/METADATA": "\n".join([*head, *metadata, ""]),
                "dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
                "dist-info/RECORD": "",
                **({f"data/scripts/{name}": script} if script else {}),
            }.items():
                part = zipfile.ZipInfo(f"{name}-{version}.{path}")
                part.external_attr = 0o100755 << 16
                file.writestr(part, text)
        return f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


class Project:
    """What of this project installs its tools, with a lock and an index of its own."""

    def __init__(self, folder: Path):
        self.folder = folder
        for name in ("Makefile", "scripts/venv.sh", "scripts/lock.sh", "scripts/messages.sh"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.index = Index(folder / "index")
        options = f"--no-index --find-links {self.index.folder}"
        self.uv = self.index.add("uv", "1.0", script=f'#!/bin/sh\nexec {UV} "$@" {options}\n')
        self.one = self.index.add("one", "1.0", "Requires-Dist: two[more]")
        self.two = self.index.add("two", "1.0", "Provides-Extra: more")
        self.write("app/requirements.in", "")
        self.write("app/requirements.txt", "")
        self.write("tests/requirements.in", "one\nuv\n")
        self.write("tests/soak/scanners/requirements.in", "")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / name).write_text(text)

    def bring(self, pip: str) -> None:
        """Let the Python on PATH make environments with this pip in them."""
        self.write(
            "bin/python3",
            f"""#!/bin/sh -e
            [ "$1 $2" = "-m venv" ] || exec {sys.executable} "$@"
            {sys.executable} -m venv --without-pip "$3"
            {UV} pip install --quiet --python "$3/bin/python" {pip}
            """,
        )
        (self.folder / "bin/python3").chmod(0o755)

    def run(self, *command: str) -> subprocess.CompletedProcess:
        path = {"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "PIP_CONFIG_FILE": os.devnull}
        index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index.folder)}
        return subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | path | index,
            capture_output=True,
            text=True,
            check=False,
        )

    def installed(self) -> set[str]:
        return {folder.stem for folder in self.folder.glob(".venv/lib/*/*/*-1.?.dist-info")}


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path / "project")


@pytest.mark.parametrize("pip", PIPS)
def test_a_lock_is_installed_where_newer_releases_exist(project, pip):
    project.write("tests/requirements.txt", project.one + project.two + project.uv)
    project.index.add("one", "1.1", "Requires-Dist: two[more]")
    project.index.add("two", "1.1", "Provides-Extra: more")
    project.bring(pip)
    answer = project.run("scripts/venv.sh", ".venv")
    assert answer.returncode == 0, answer.stderr
    assert project.installed() == {"one-1.0", "two-1.0", "uv-1.0"}


def test_an_incomplete_lock_is_an_error_and_can_be_completed(project):
    project.write("tests/requirements.txt", project.one + project.uv)
    project.bring("pip")
    answer = project.run("scripts/venv.sh", ".venv")
    assert answer.returncode == 1
    problem = "one 1.0 requires two, which is not installed."
    assert answer.stderr == f"error: the locks are incomplete: {problem} -> make requirements\n"
    assert not (project.folder / ".venv/ready").exists()
    answer = project.run("make", "requirements")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    answer = project.run("make", ".venv/ready")
    assert answer.returncode == 0, answer.stderr
    assert project.installed() == {"one-1.0", "two-1.0", "uv-1.0"}


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("locks", [TOOLS, ("tests/soak/scanners/requirements.txt",)])
def test_locks_are_complete_for_every_python(tmp_path, python, locks):
    """uv refuses a dependency that has no hash, and installs nothing here."""
    command = [UV, "pip", "install", "--dry-run", "--require-hashes", f"--target={tmp_path}"]
    command += [f"--python-version={python}", *(f"--requirements={ROOT / lock}" for lock in locks)]
    answer = subprocess.run(command, check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
