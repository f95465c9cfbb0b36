"""The recipes of docs/fork.md, which tests follow word for word."""

import re
import textwrap

from clone import ROOT


def recipe(title: str) -> str:
    text = (ROOT / "docs/fork.md").read_text()
    return text.partition(f"\n**{title}")[2].partition("\n\n**")[0]


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


def blocks(recipe: str) -> list[str]:
    """The indented parts of a recipe, without their indent."""
    found = re.findall(r"\n\n((?:(?:    .*)?\n)+)(?=\S)", f"{recipe}\n\n.")
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]
