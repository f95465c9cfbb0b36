"""Every command of this project that installs a lock installs it as it is."""

import itertools
import re

from clone import ROOT, project_files

INSTALL = re.compile(r"\bpip3?\b.* install .*(-r|--requirement)\b")
CHECK = re.compile(r"\bpip3?\b.* check\b")


def commands(text: str) -> list[str]:
    """Its lines that name pip: those that go on in the next put together, `a && b` apart."""
    lines = re.split(r"\n|&&", re.sub(r"\\\n\s*", "", text))
    return [line.strip() for line in lines if re.search(r"\bpip3?\b", line)]


def test_locks_are_installed_with_hashes_alone_and_checked():
    found, wrong = 0, []
    for file in project_files():
        lines = commands((ROOT / file).read_text(errors="ignore"))
        for line, after in itertools.pairwise([*lines, ""]):
            if INSTALL.search(line):
                found += 1
                exact = "--require-hashes" in line and "--no-deps" in line
                if not exact or not CHECK.search(after):
                    wrong.append(f"{file}: {line}")
    assert wrong == []
    assert found >= 4
