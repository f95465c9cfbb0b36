"""docs/faults.md names tests; they have to exist."""

import re

from conftest import APP

ROOT = APP.parent


def test_every_test_that_is_named_exists():
    text = (ROOT / "docs/faults.md").read_text()
    named = re.findall(r"`(\w+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    # Two folders may have a file of the same name.
    there = {
        (path.name, test)
        for path in (ROOT / "tests").glob("*/*.py")
        for test in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    assert {*named} - there == set()
