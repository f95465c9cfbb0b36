"""Where the add-on's images cannot be had, one line says so, and what runs stays as it is."""

import re

import pytest
from clone import ROOT

# Each with what the other add-ons have, too.
CHOICES = ["logging", *(["monitoring logging"] if (ROOT / "prometheus").exists() else [])]


@pytest.fixture
def out_of_reach(stack):
    """The stack's clone, in which the images are those of a registry that nobody runs."""
    dockerfiles = {}
    for file in (stack.folder / "logstash").glob("*/Dockerfile"):
        dockerfiles[file] = file.read_text()
        pin = r"(ELASTICSEARCH|LOGSTASH|KIBANA)_IMAGE="
        changed = re.sub(pin, r"\g<0>localhost:1/", dockerfiles[file], count=1)
        file.write_text(changed)
    yield stack
    for file, text in dockerfiles.items():
        file.write_text(text)
    stack.write_settings()


@pytest.mark.parametrize("choice", CHOICES)
def test_before_anything_is_written_built_or_started(out_of_reach, choice):
    stack, secrets = out_of_reach, out_of_reach.folder / "secrets"
    before = snapshot(stack)
    (secrets / "logging_ca").rename(stack.folder / "logging_ca")
    answer = stack.make("up", f"WITH={choice}", check=False)
    made = (secrets / "logging_ca").exists()
    (stack.folder / "logging_ca").rename(secrets / "logging_ca")
    assert answer.returncode
    assert answer.stdout == ""
    # make adds a line of its own.
    (line,) = (line for line in answer.stderr.splitlines() if not line.startswith("make: ***"))
    assert re.match(r"error: \w+ cannot run here: localhost:1/\S+ is out of reach .* -> \S", line)
    assert not made
    assert snapshot(stack) == before


def snapshot(stack) -> tuple:
    """What there is of the stack, by ids that a change would change."""
    kinds = (["ps", "--all"], ["images"], ["volume", "ls"], ["network", "ls"])
    ours = f"label=com.docker.compose.project={stack.name}"
    listed = [
        sorted(stack.run("docker", *kind, "--quiet", "--filter", ours).stdout.split())
        for kind in kinds
    ]
    return (stack.folder / ".env").read_text(), listed, stack.make("doctor").stdout
