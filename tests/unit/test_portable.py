"""What `make` runs every day, written for bash 3.2, BSD's tools and Python 3.9, as macOS has them.

tests/all/test_old_tools.py runs it. Lint reads the Python files as ruff's target-version has it.
"""

import os
import re
import subprocess
import sys

import pytest
from clone import FOREIGN, ROOT, require

# Newer than bash 3.2: arrays by name, other letters, references, waiting for any.
BASH = (
    r"\b(mapfile|readarray|coproc|EPOCH\w+)\b",
    r"\b(declare|local|typeset|readonly) -\w*[Agnlu]",
    r"\$\{\w+(\[.\])?(,|\^|@)",
    r"&>>|\|&|;;?&",
    r"\bwait -n|\[\[? -v |printf '?%\(",
    # Without elements it is unbound there.
    r"(?<!\+)\"\$\{\w+\[@\]\}\"",
)
# Missing on macOS, or known there by other options.
TOOLS = (
    r"(?<!fcntl\.)\bflock\b|\b(sha\d+sum|md5sum|timeout|nproc|realpath|tac|shuf|numfmt)\b",
    r"\breadlink -[efm]|\bdate -d|\bstat -c|\bxargs -\w*r|\bsed -\w*[irsz]|\bgrep -\w*P",
)
# Names and words newer than Python 3.9, of which its grammar says nothing.
PYTHON = (
    r"\bUTC\b|\btomllib\b|\bStrEnum\b|\bpairwise\b|\bbatched\b|\bExceptionGroup\b|\bfile_digest\b",
    r"\bstrict=|\bslots=|\bkw_only=|\bwalk_up=|\bdelete_on_close=|\.walk\(|\bchdir\b|\banext\b",
    r"\bParamSpec\b|\bTypeAlias\b|\bSelf\b|\bassert_never\b|\bbit_count\b|\badd_note\b",
)
EVERYDAY = ("Makefile", "images/*.sh", "scripts/*.sh")
# Need Linux, or run what pip has installed: what they have is new enough.
OTHERS = {"lint.sh", "test.sh"}


def found(patterns: tuple[str, ...], *files: str) -> list[str]:
    pattern = re.compile("|".join(patterns))
    return [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for name in files
        for path in ROOT.glob(name)
        if path.name not in OTHERS
        for line in path.read_text().splitlines()
        if pattern.search(line.partition("# ")[0])
    ]


def test_shell_scripts_need_no_more_than_macos_has():
    assert found(BASH + TOOLS, *EVERYDAY) == []


def test_scripts_use_no_name_that_python_3_9_lacks():
    assert found(PYTHON, "scripts/**/*.py") == []


def test_files_are_read_as_utf_8_in_every_locale():
    command = [
        "make",
        "--no-print-directory",
        "--eval",
        "mode: ; @python3 -c 'import sys; print(sys.flags.utf8_mode)'",
    ]
    # As in a locale that has another encoding, which may not be installed here.
    environment = os.environ | {"PYTHONUTF8": "0"}
    answer = subprocess.run(
        [*command, "mode"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "1\n"


@pytest.fixture
def machine(tmp_path):
    """run(command): on a machine with Python 3.8 that is no Linux; what it said and did."""
    old = "import sys; sys.version_info = (3, 8, 18); sys.version = '3.8.18 (of a test)'"
    for name, text in {
        "python3": f'[ "$1" = -V ] && exec echo Python 3.8.18\n'
        f'exec {sys.executable} -c "{old}; exec(sys.argv[1])" "$2"',
        "uname": "echo Darwin",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def run(*command: str) -> subprocess.CompletedProcess:
        # The tests run in a make of their own, which leaves variables.
        environ = {name: text for name, text in os.environ.items() if name not in FOREIGN}
        environ["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
        return subprocess.run(
            command,
            # Without .venv, whose Python comes first.
            cwd=tmp_path,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("target", ["up", "release", "doctor", "clean"])
def test_an_older_python_is_said_in_one_line(machine, target):
    answer = machine("make", f"--file={ROOT}/Makefile", target)
    assert answer.stderr.splitlines()[0] == (
        "error: Python 3.9 or newer is needed, python3 is 3.8.18 -> install a newer python3"
    )
    assert len(answer.stderr.splitlines()) == 2  # make's own line
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("venv.sh", "need Python 3.11 or newer, python3 is Python 3.8.18, and make test a Linux"),
        ("test.sh", "make test needs Linux, with the Docker engine on this machine -> make unit"),
    ],
)
def test_tests_say_what_they_need(machine, tmp_path, script, words):
    answer = machine("bash", f"{ROOT}/scripts/{script}", str(tmp_path / "venv"))
    (line,) = answer.stderr.splitlines()
    assert words in line
    assert answer.returncode
    assert answer.stdout == ""


def test_the_lock_of_the_base_images_is_nobody_elses(tmp_path):
    """In /tmp, anybody could have put a link there before: it was opened for writing, as root."""
    require("images/base-images.sh")
    nothing = tmp_path / "Dockerfile"
    nothing.write_text("FROM scratch\n")
    home = tmp_path / "home"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "BASE_IMAGES": "registry"}
    script = ROOT / "images/base-images.sh"
    for folder in ({}, {"XDG_CACHE_HOME": str(tmp_path / "cache")}):
        answer = subprocess.run(
            ["bash", script, nothing], env=environment | folder, capture_output=True, check=True
        )
        assert answer.stdout == answer.stderr == b""
    assert (home / ".cache/base-images.lock").is_file()
    assert (tmp_path / "cache/base-images.lock").is_file()


def test_no_script_writes_to_a_known_name_in_tmp():
    """Anybody may have put a link there. In a container nobody else can: nginx's have their own."""
    assert found((r">\s*\"?/tmp/|\b(touch|tee|mkdir) (-\w+ )*\"?/tmp/",), *EVERYDAY) == []
