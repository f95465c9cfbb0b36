"""docs/faults.md and those of the add-ons name tests; they have to exist."""

import re

from clone import ROOT


def test_every_test_that_is_named_exists():
    lists = [ROOT / "docs/faults.md", *ROOT.glob("*/faults.md")]
    text = "".join(file.read_text() for file in lists)
    named = {*re.findall(r"`(\w+\.py)::(test_\w+)`", text)}
    assert len(named) > 40
    # Two folders may have a file of the same name.
    files = [*(ROOT / "tests").rglob("*.py")]
    there = {
        (path.name, test)
        for path in files
        for test in re.findall(r"def (test_\w+)\(", path.read_text())
    }
    # A fork may have deleted whole files, by the commands of docs/fork.md.
    deletable = "\n".join(re.findall(r"git rm .*", (ROOT / "docs/fork.md").read_text()))
    gone = {name for name, _ in named} - {path.name for path in files}
    assert [name for name in gone if not re.search(rf"\b{name[:-3]}\b", deletable)] == []
    assert {(name, test) for name, test in named - there if name not in gone} == set()
