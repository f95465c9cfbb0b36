"""What every Dockerfile has, whichever image it is for."""

import re

import pytest
from clone import ROOT, require

FOLDERS = ("app", "nginx", "images", "logstash", "prometheus")
FILES = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("Dockerfile"))]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_copied_is_readable_whatever_the_umask_of_the_checkout(file):
    text = file.read_text()
    if "chmod -R u=rwX,go=rX" in text:
        return
    copies = re.findall(r"^COPY (.+)", text, re.MULTILINE)
    assert [copy for copy in copies if not copy.startswith(("--chmod=", "--from="))] == []
    # One mode for what is in a folder and for itself, which needs the x.
    for copy in copies:
        sources = copy.split()[1:-1]
        if any(source.endswith("/") for source in sources):
            assert copy.startswith("--chmod=0755 ")
        for source in sources:
            if not source.startswith("-"):
                assert source.endswith("/") == (file.parent / source).is_dir()


def test_versions_that_differ_from_debians_are_listed():
    require("images/README.md")
    text = (ROOT / "images/README.md").read_text()
    listed = dict(re.findall(r"^\| (\S+) \| ([0-9.]+) \| [0-9.]+ \|", text, re.MULTILINE))
    pins = "".join(file.read_text() for file in FILES)
    pinned = dict(re.findall(r"^ARG [A-Z_]+_IMAGE=(\S+):v?([0-9.]+)", pins, re.MULTILINE))
    assert "nginx" in listed
    # A fork may have deleted the monitoring.
    assert {image: pinned.get(image, version) for image, version in listed.items()} == listed
