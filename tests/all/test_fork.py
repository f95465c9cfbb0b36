"""What docs/fork.md says can be deleted is, by its own commands; what is left works as before."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from clone import ROOT, Clone, leftovers, project_files

TEXT = (ROOT / "docs/fork.md").read_text().partition("\n## Delete\n")[2].partition("\n## ")[0]
# The commands of each part, by the word that the text before them begins with.
PARTS = {
    title.removeprefix("- "): textwrap.dedent(commands)
    for title, commands in re.findall(
        r"^(- \S+|\S+ sample)[^\n]*\n(?:\S.*\n|  \S.*\n)*\n((?: {4,}git rm .*\n)+)", TEXT, re.M
    )
}
# What the text says of files that stay, by a word of the part.
EDITS = {
    "sample": r"sed -i '/^    pages,$/d; /pages.init_app/d' app/webapp/__init__.py",
    "logging": "sed -i /LOGSTASH_HOST/d app/webapp/config.py",
}
# Of the unit tests, those that read files of several parts.
READERS = ("defaults", "dockerfiles", "faults_list", "limits", "stack_file", "supply_chain")


def edit(part: str) -> str:
    return "".join(command for word, command in EDITS.items() if word in part)


class Fork:
    """A repository; made(): with what is here as its first commit."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def made(cls, folder: Path) -> "Fork":
        for file in project_files():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
        fork = cls(folder)
        fork.init()
        return fork

    def init(self) -> None:
        self.run("git", "init", "--quiet", "--initial-branch=main")
        self.commit("One")

    def run(self, *command: str, check: bool = True) -> str:
        path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CI": ""}
        answer = subprocess.run(
            command,
            cwd=self.folder,
            env=os.environ | path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or not answer.returncode, f"{answer.stdout[-5000:]}{answer.stderr[-3000:]}"
        return answer.stdout

    def commit(self, message: str) -> None:
        self.run("git", "add", "--all")
        name = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self.run("git", *name, "commit", "--quiet", "--message", message)

    def delete(self, *parts: str) -> None:
        """As often as wanted."""
        for part in parts:
            commands = re.sub("git rm", "git rm --quiet --force --ignore-unmatch", PARTS[part])
            self.run("bash", "-ec", f"{commands}\n{edit(part)}")

    def collect(self) -> None:
        """Every test file can be read."""
        for folder in sorted({file.parent for file in self.folder.glob("tests/**/*.py")}):
            if any(folder.glob("test_*.py")):
                self.run("pytest", "--collect-only", "-qq", str(folder))

    def read(self) -> str:
        """The quick tests that read what may be gone; what they print."""
        tests = [f"tests/unit/test_{name}.py" for name in READERS]
        return self.run("pytest", "-q", *(it for it in tests if (self.folder / it).exists()))


@pytest.fixture
def fork(tmp_path):
    return Fork.made(tmp_path / "fork")


def test_every_part_is_found():
    assert len(PARTS) == TEXT.count("\n\n    git rm") + TEXT.count("\n\n      git rm") == 8


def test_without_a_deletion_nothing_is_skipped(fork):
    assert "this part was deleted" not in fork.read()


@pytest.mark.parametrize("part", PARTS)
def test_one_part_is_deleted(fork, part):
    fork.run("bash", "-ec", f"{PARTS[part]}\n{edit(part)}")
    fork.run("ruff", "check", "--quiet", ".")
    fork.collect()
    fork.read()


def test_all_parts_are_deleted(fork):
    """Lint, all unit tests, and a stack on the base images that are here."""
    fork.delete(*PARTS)
    fork.commit("Two")
    fork.run("bash", "scripts/lint.sh")
    fork.collect()
    fork.run("pytest", "-q", "--numprocesses=2", "tests/unit")
    assert fork.run("git", "grep", "--ignore-case", "logstash", "app", check=False) == ""


@pytest.mark.timeout(900)
def test_a_stack_without_all_parts(tmp_path):
    clone = Clone(tmp_path / "clone")
    try:
        clone.make("up")
        # Without images/ nobody but a registry has what these name: the fork's own, here.
        for service, name in (("app", "PYTHON_IMAGE"), ("nginx", "NGINX_IMAGE")):
            labels = clone.inspect(service)[0]["Config"]["Labels"]
            base = labels["org.opencontainers.image.base.name"]
            file = clone.folder / service / "Dockerfile"
            text = file.read_text()
            file.write_text(re.sub(rf"^ARG {name}=.*", f"ARG {name}={base}", text, flags=re.M))
        fork = Fork(clone.folder)
        fork.init()
        fork.delete(*PARTS)
        for _ in range(2):
            clone.make("up")
        with clone.client() as client:
            assert client.get(clone.style_sheet()).status_code == 200
        clone.make("release", APP_VERSION="v2")
    finally:
        clone.remove()
    assert leftovers(clone.name) == []


def test_upstream_is_merged_into_a_fork(fork, tmp_path):
    """Upstream goes on with what the fork has deleted, and with what it has kept."""
    fork.run("git", "clone", "--quiet", str(fork.folder), str(tmp_path / "upstream"))
    upstream = Fork(tmp_path / "upstream")
    for name in ("prometheus/README.md", "docker-stack.yml", "app/webapp/pages.py", "CHANGELOG.md"):
        with (upstream.folder / name).open("a") as file:
            file.write("# Later\n")
    (upstream.folder / "logstash/later.md").write_text("Later\n")
    health = upstream.folder / "app/webapp/health.py"
    health.write_text(health.read_text() + "\n# Later\n")
    upstream.commit("Later")

    fork.delete(*PARTS)
    view = fork.folder / "app/webapp/views.py"
    view.write_text(VIEW)
    init = fork.folder / "app/webapp/__init__.py"
    init.write_text(
        init.read_text()
        .replace("    static_files,\n", "    static_files,\n    views,\n")
        .replace(
            "    static_files.init_app(app)\n",
            "    static_files.init_app(app)\n    views.init_app(app)\n",
        )
    )
    fork.commit("Ours")
    fork.run("git", "remote", "add", "upstream", str(upstream.folder))
    fork.run("git", "fetch", "--quiet", "upstream")
    name = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    fork.run("git", *name, "merge", "--quiet", "upstream/main", check=False)
    fork.delete(*PARTS)
    assert fork.run("git", "diff", "--name-only", "--diff-filter=U") == ""
    fork.commit("Merge")
    assert "# Later" in (fork.folder / "app/webapp/health.py").read_text()
    gone = ("prometheus", "logstash", "docker-stack.yml", "app/webapp/pages.py")
    assert [name for name in gone if (fork.folder / name).exists()] == []
    fork.run("ruff", "check", "--quiet", ".")
    script = (
        "import wsgi; print(wsgi.app.test_client().get('/ours', base_url='https://localhost').text)"
    )
    key = f"SECRET_KEY={'0123456789abcdef' * 3}"
    said = fork.run("env", "--chdir=app", key, "APP_ENV=production", sys.executable, "-c", script)
    assert said.splitlines()[-1] == "ours"


VIEW = """from flask import Blueprint

blueprint = Blueprint("views", __name__)


@blueprint.get("/ours")
def ours():
    return "ours"


def init_app(app):
    app.register_blueprint(blueprint)
"""
