"""Certificates that a person supplies: nothing of theirs is overwritten, whatever is wrong with it.

docs/certificates.md has a deploy hook for certbot, which a test here runs as certbot does.
"""

import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from clone import ROOT, wait_until
from reloads import served

SCRIPT = "/docker-entrypoint.d/15-self-signed-certificate.sh"
NAMES = ("fullchain.pem", "privkey.pem")


def make_pair(folder: Path, number: str = "") -> str:
    """Write a new pair for localhost; returns the certificate."""
    folder.mkdir(parents=True, exist_ok=True)
    pem, key = folder / f"fullchain{number}.pem", folder / f"privkey{number}.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30"
    command += " -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", pem], check=True, capture_output=True)
    for file in (pem, key):
        file.chmod(0o644)
    return pem.read_text()


def lineage(certbot: Path, number: int) -> str:
    """What certbot does at a renewal: another pair in `archive`, the links in `live` changed."""
    made = make_pair(certbot / "archive/site", str(number))
    live = certbot / "live/site"
    live.mkdir(parents=True, exist_ok=True)
    for name in ("fullchain", "privkey"):
        with suppress(FileNotFoundError):
            (live / f"{name}.pem").unlink()
        (live / f"{name}.pem").symlink_to(f"../../archive/site/{name}{number}.pem")
    for folder in ("archive", "live"):
        (certbot / folder).chmod(0o700)
    return made


def contents(folder: Path) -> dict:
    """Links by where they lead, files by their bytes."""
    return {
        file.name: os.readlink(file) if file.is_symlink() else file.read_bytes()
        for file in folder.iterdir()
    }


@pytest.fixture
def supplied(tmp_path):
    """A folder with a pair, which user 101 may read and write."""
    folder = tmp_path / "certificates"
    make_pair(folder)
    folder.chmod(0o777)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(parent.stat().st_mode | 0o011)
    return folder


def start(stack, folder: Path, names: str = "localhost"):
    """What nginx's container does with this folder before nginx starts."""
    image = stack.inspect("nginx")[0]["Config"]["Image"]
    return stack.run(
        *("docker", "run", "--rm", "--network=none", f"--env=SERVER_NAME={names}"),
        *(f"--volume={folder}:/etc/nginx/certificates", f"--entrypoint={SCRIPT}", image),
        check=False,
    )


def links_outside(folder: Path, names=NAMES) -> None:
    """As certbot has them."""
    outside = folder.parent / "archive"
    outside.mkdir()
    for name in names:
        (folder / name).rename(outside / name)
        (folder / name).symlink_to(f"../archive/{name}")


BROKEN = {
    "links outside": (links_outside, "fullchain.pem is a link to ../archive/fullchain.pem"),
    "one link outside": (
        lambda folder: links_outside(folder, NAMES[1:]),
        "privkey.pem is a link to ../archive/privkey.pem",
    ),
    "no key": (lambda folder: (folder / NAMES[1]).unlink(), "privkey.pem is not"),
    "no certificate": (lambda folder: (folder / NAMES[0]).unlink(), "fullchain.pem is not"),
    "unreadable": (lambda folder: (folder / NAMES[1]).chmod(0), "privkey.pem cannot be read"),
    "folder not entered": (lambda folder: folder.chmod(0o700), "cannot be entered by user 101"),
    "half a file": (
        lambda folder: (folder / NAMES[0]).write_text("-----BEGIN CERTIFICATE-----\nMII"),
        "is not a certificate in PEM form",
    ),
}


@pytest.mark.parametrize(("break_", "words"), BROKEN.values(), ids=BROKEN)
def test_a_bad_pair_is_one_line_and_nothing_is_overwritten(stack, supplied, break_, words):
    break_(supplied)
    before = contents(supplied)
    answer = start(stack, supplied)
    assert answer.returncode
    (line,) = answer.stderr.splitlines()
    assert re.match(r"error: .+ -> .+", line)
    assert words in line
    assert contents(supplied) == before


def test_a_pair_made_here_is_not_replaced_over_a_link(stack, supplied):
    """Expired or for other names, it would be, if it were no link."""
    for name in NAMES:
        (supplied / name).unlink()
    assert start(stack, supplied).returncode == 0
    inside = supplied / "kept"
    inside.mkdir(mode=0o755)
    for name in NAMES:
        (supplied / name).rename(inside / name)
        (supplied / name).symlink_to(f"kept/{name}")
    before = contents(inside)
    assert start(stack, supplied, "other.example").returncode == 0
    assert all((supplied / name).is_symlink() for name in NAMES)
    assert contents(inside) == before
    for name in NAMES:
        (supplied / name).unlink()
        (inside / name).rename(supplied / name)
    inside.rmdir()
    assert start(stack, supplied, "other.example").returncode == 0
    assert contents(supplied).keys() == before.keys()
    assert contents(supplied) != before


@pytest.mark.parametrize(
    ("break_", "words"),
    [
        (links_outside, "fullchain.pem is a link to"),
        (shutil.rmtree, "No such file or directory"),
        (lambda folder: (shutil.rmtree(folder), folder.symlink_to("nowhere")), "No such file"),
    ],
    ids=["links outside", "no folder", "dangling folder"],
)
def test_make_up_refuses_such_a_folder_before_it_builds(stack, supplied, break_, words):
    break_(supplied)
    answer = stack.make("up", check=False, CERTIFICATES=str(supplied))
    assert answer.returncode
    error, _ = answer.stderr.splitlines()
    assert error.startswith("error: CERTIFICATES: ")
    assert words in error
    assert "Built" not in answer.stderr


def test_what_serves_keeps_serving_while_the_files_are_bad(stack, supplied):
    good = (supplied / NAMES[0]).read_text()
    with stack.changed(CERTIFICATES=str(supplied)):
        started = stack.inspect("nginx")[0]["State"]["StartedAt"]
        key = supplied / NAMES[1]
        for target, error, break_, fix in (
            ("up", "nginx would not start", lambda: key.chmod(0), lambda: key.chmod(0o644)),
            (
                "reload",
                "/etc/nginx/certificates/fullchain.pem is there, but",
                lambda: key.rename(f"{key}.away"),
                lambda: Path(f"{key}.away").rename(key),
            ),
        ):
            break_()
            before = contents(supplied)
            answer = stack.make(target, check=False)
            assert answer.returncode
            assert f"error: {error}" in answer.stderr
            assert "privkey.pem" in answer.stderr
            assert contents(supplied) == before
            assert served(stack) == good.strip()
            fix()
        assert stack.inspect("nginx")[0]["State"]["StartedAt"] == started


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_certbots_hook_of_the_docs_loads_each_renewed_pair(stack, tmp_path):
    """Word for word but for the certificate's folder and the project's."""
    certbot, hook = tmp_path / "letsencrypt", tmp_path / "site"
    first = lineage(certbot, 1)
    text = (ROOT / "docs/certificates.md").read_text()
    script = re.search(r"(?:^    .*\n|^\n)+", text[text.index("    #!/bin/sh") :], re.MULTILINE)[0]
    script = re.sub("^    ", "", script, flags=re.MULTILINE)
    for words, ours in (
        ("/etc/letsencrypt/live/example.org", certbot / "live/site"),
        ("/srv/flask-in-production", stack.folder),
    ):
        assert words in script
        script = script.replace(words, str(ours))
    hook.write_text(script)
    hook.chmod(0o755)
    folder = stack.folder / "certificates"

    def renewed(name: str, **environment: str) -> None:
        """As certbot runs it: in another folder, with the lineage in the environment."""
        folder_of_certbot = str(certbot / "live" / name)
        environment["RENEWED_LINEAGE"] = folder_of_certbot
        stack.run("env", f"--chdir={tmp_path}", str(hook), **environment)

    try:
        renewed("another")
        assert not folder.exists()
        # Of that name nothing runs that could load it.
        renewed("site", COMPOSE_PROJECT_NAME=f"{stack.name}-not-started")
        with stack.changed(CERTIFICATES="./certificates"):
            assert served(stack) == first.strip()
            nginx = stack.containers("nginx")
            second = lineage(certbot, 2)
            renewed("site")
            wait_until(lambda: served(stack) == second.strip(), 5, "the renewed certificate")
            assert stack.containers("nginx") == nginx
            for file in folder.iterdir():
                status = file.stat()
                assert (file.name in NAMES, status.st_uid, status.st_mode & 0o777) == (
                    (True, 101, 0o400)
                )
        assert {*contents(certbot / "live/site").values()} == {
            f"../../archive/site/{name}2.pem" for name in ("fullchain", "privkey")
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)
