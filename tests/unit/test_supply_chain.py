"""What docs/supply-chain.md says of what comes in, compared with the tree."""

import re
import subprocess

import pytest
from clone import ROOT, project_files, require

TEXTS = {
    str(file): (ROOT / file).read_text(errors="ignore")
    for file in project_files()
    # This one and the documentation name what must not be.
    if file.suffix != ".md" and file.name != "test_supply_chain.py"
}
DOCKERFILES = {name: text for name, text in TEXTS.items() if name.endswith("Dockerfile")}
SHIPPED = {name: text for name, text in TEXTS.items() if not name.startswith("tests/")}
WORKFLOWS = {name: text for name, text in TEXTS.items() if name.startswith(".github/")}


def found(pattern: str, texts: dict[str, str] = TEXTS) -> list[str]:
    """The lines that match, those that go on in the next put together."""
    return [
        f"{name}: {line.strip()}"
        for name, text in texts.items()
        for line in re.sub(r"\\\n\s*", "", text).splitlines()
        if re.search(pattern, line)
    ]


def test_every_test_that_is_named_exists():
    text = (ROOT / "docs/supply-chain.md").read_text()
    named = re.findall(r"`(?:(test_\w+\.py)::)?(test_\w+)`", text)
    assert len(named) > 6
    for file, test in named:
        path = ROOT / "tests/unit" / (file or "test_supply_chain.py")
        assert f"def {test}(" in path.read_text(), test


def test_base_images_have_exact_versions():
    pins = [
        pin
        for text in DOCKERFILES.values()
        for pin in re.findall(r"^ARG \w+_IMAGE=(.+)", text, re.M)
    ]
    assert len(pins) >= 2
    assert [pin for pin in pins if not re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+[\w.-]*", pin)] == []
    bases = {
        base for text in DOCKERFILES.values() for base in re.findall(r"^FROM (\S+)", text, re.M)
    }
    assert {base for base in bases if not re.fullmatch(r"\$\{\w+_IMAGE\}", base)} == set()
    # Compose and Swarm run what is built here, and nothing else.
    images = found(r"^\s+image: ", {n: t for n, t in SHIPPED.items() if n.endswith(".yml")})
    ours = r"image: (\$\{COMPOSE_PROJECT_NAME\}-|\$\{IMAGES:-)"
    assert [line for line in images if not re.search(ours, line)] == []


def test_actions_are_pinned_by_commit():
    require(".github/workflows")
    uses = found(r"\buses:", WORKFLOWS)
    assert uses
    assert [line for line in uses if not re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_the_scanner_is_pinned():
    require(".github/workflows")
    installs = found(
        r"\bgo (install|run|get)\b|\bnpx\b|\bnpm (i|install)\b|\bpipx\b|\buvx\b", WORKFLOWS
    )
    assert installs
    assert [
        line for line in installs if not re.search(r"go install \S+@v\d+\.\d+\.\d+$", line)
    ] == []


def test_nothing_is_run_as_it_comes():
    shells = r"\b(curl|wget)\b[^|]*\|\s*(sudo )?(ba|da|z)?(sh|python3?|perl|tar|gpg|apt-key)\b"
    assert found(shells + r"|<\((curl|wget)|\$\((curl|wget)[^)]*\)\"?$") == []
    assert found(r"^ADD +(--\S+ +)*(https?|git)", DOCKERFILES) == []


def test_apt_checks_what_it_gets():
    unsigned = (
        r"allow-unauthenticated|AllowUnauthenticated|--force-yes|trusted=yes|Trusted: yes"
        r"|--no-gpg-check|allow-insecure|AllowInsecure|AllowWeak|AllowDowngradeToInsecure|apt-key"
    )
    assert found(unsigned) == []
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in TEXTS["scripts/engine.sh"]
    # Only after is_frozen.
    off = found(r"Check-Valid-Until", SHIPPED)
    assert {line.partition(":")[0] for line in off} <= {
        "images/debian.sh",
        "scripts/engine.sh",
        "scripts/debian.sh",
    }


# The words of apt (apt-pkg/acquire-item.cc), of which only the second means a frozen mirror.
GOOD = "Reading package lists...\n"
EXPIRED = (
    "E: Release file for http://me:password@mirror/dists/forky/InRelease is expired"
    " (invalid since 23d 16h 57min 34s). Updates for this repository will not be applied.\n"
)
NOT_YET = "E: Release file for http://mirror/InRelease is not valid yet (invalid for another 2d).\n"


@pytest.mark.parametrize(
    ("said", "frozen"),
    [(GOOD, False), (EXPIRED, True), (GOOD + EXPIRED * 2, True), (NOT_YET, False)],
)
def test_a_frozen_mirror_is_recognized(said, frozen):
    script = ". scripts/messages.sh; . scripts/debian.sh; is_frozen"
    answer = subprocess.run(
        ["bash", "-c", script], input=said, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (answer.returncode == 0) == frozen
    assert answer.stdout.count("note: the Debian mirror is frozen (invalid since 23d ") == frozen
    assert "password" not in answer.stdout
