"""docs/faults.md names tests; they have to exist."""

import re

from conftest import APP

ROOT = APP.parent


def test_every_test_that_is_named_exists():
    text = (ROOT / "docs/faults.md").read_text()
    named = re.findall(r"`(\w+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    files = {path.name: path.read_text() for path in (ROOT / "tests").glob("*/*.py")}
    assert [name for name in named if f"def {name[1]}(" not in files.get(name[0], "")] == []
