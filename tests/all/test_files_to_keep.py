"""The recipe "Files to keep" of docs/fork.md, followed word for word in a clone."""

import re
import subprocess

import pytest
from clone import ROOT, Clone, leftovers

RECIPE = (ROOT / "docs/fork.md").read_text().partition("**Files to keep")[2].partition("\n\n**")[0]

WRITE = """
import sqlite3
open("/data/upload.txt", "w").write("kept")
with sqlite3.connect("/data/site.db") as database:
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("CREATE TABLE orders (item TEXT)")
    database.execute("INSERT INTO orders VALUES ('kept')")
"""
READ = """
import sqlite3
print(open("/data/upload.txt").read(), *sqlite3.connect("/data/site.db").execute(
    "SELECT item FROM orders").fetchone())
"""


def with_lines(text: str, lines: str) -> str:
    """The file with these lines added, each under the line above it, which has to be there."""
    place = 0
    for line in lines.splitlines():
        indent = len(line) - len(line.lstrip())
        # To the end of the block: another service may have such a line, too.
        end = re.compile(rf"^ {{0,{indent - 1}}}[a-z]", re.MULTILINE).search(text, place)
        within = (place, end.start()) if indent and end else (place,)
        found = re.compile(f"^{re.escape(line)}\n", re.MULTILINE).search(text, *within)
        if found:
            place = found.end()
        else:
            text = f"{text[:place]}{line}\n{text[place:]}"
            place += len(line) + 1
    return text


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "clone")
    file = clone.folder / "docker-compose.yml"
    lines = re.search(r"\n\n((?:    .*\n)+)", RECIPE)[1]
    file.write_text(with_lines(file.read_text(), re.sub("^    ", "", lines, flags=re.MULTILINE)))
    try:
        clone.make("up")
        yield clone
    finally:
        clone.remove()
    assert leftovers(clone.name) == []


def volumes(name: str) -> str:
    command = ["docker", "volume", "ls", "--quiet", "--filter", f"name={name}_data"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_files_and_sqlite_are_kept_by_everything_but_clean(clone):
    clone.execute("app", "python", "-c", WRITE)
    first = clone.containers("app")
    view = clone.folder / "app/webapp/__init__.py"
    for target in ("up", "release"):
        view.write_text(f"{view.read_text()}# {target}\n")
        clone.make(target)
        assert not {*first} & {*clone.containers("app")}
        first = clone.containers("app")
        assert clone.execute("app", "python", "-c", READ) == "kept kept\n"
    # The backups of the recipe: the database's copy first, so that it is in the other.
    commands = re.findall(r"`(docker compose exec --no-TTY [^`]+)`", RECIPE)
    tar, copy = (" ".join(command.split()) for command in commands)
    for command in (copy, tar):
        clone.run("sh", "-c", command)
    listed = clone.run("tar", "-tzf", "data.tar.gz").stdout.split()
    assert {"./upload.txt", "./site.db", "./copy.db"} <= {*listed}
    clone.make("down")
    # As an image without the folder made it: owned by root, until the recipe's command.
    everything = "chown -R 0:0 /data"
    root = "docker compose run --rm --no-deps --user 0 --cap-add CHOWN app"
    clone.run("sh", "-c", f"{root} {everything}")
    command = next(line for line in re.findall(r"`([^`]+)`", RECIPE) if root in line)
    clone.run("sh", "-c", command)
    clone.make("up")
    assert clone.execute("app", "python", "-c", READ) == "kept kept\n"
    clone.execute("app", "touch", "/data/another")
    assert volumes(clone.name)
    clone.make("clean")
    assert not volumes(clone.name)
