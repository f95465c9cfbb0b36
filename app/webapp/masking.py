"""Masks secrets in texts and fields, by the table in sensitive.txt, which nginx has as well."""

import os
import re

TABLE = os.path.join(os.path.dirname(__file__), "sensitive.txt")


def read(lines):
    """Its sections, by their names: lists of regular expressions."""
    sections, section = {}, None
    for line in map(str.strip, lines):
        if title := re.fullmatch(r"\[([A-Z]+)\]", line):
            section = sections[title[1]] = []
        elif line and line[0] != "#":
            # A part stands above what it is a part of.
            section.append(re.sub("<([A-Z]+)>", lambda part: "|".join(sections[part[1]]), line))
    return sections


with open(TABLE, encoding="ascii") as table:
    SECTIONS = read(table)
# First of each pair: whether a text has the form. Python searches ten times as fast if case counts.
SENSITIVE_TEXT = [
    (re.compile(form, re.A), re.compile(form, re.A | re.I)) for form in SECTIONS["MASKED"]
]
SENSITIVE_KEY, UNCLEAR_KEY = (
    re.compile("|".join(SECTIONS[name]), re.I | re.A) for name in ("KEY", "UNCLEAR")
)


def mask(text):
    """The text without secrets in forms that are known."""
    lower = text.lower()
    for lower_form, form in SENSITIVE_TEXT:
        if lower_form.search(lower):
            text = form.sub(r"\1***", text)
    return text


def is_sensitive(key, value):
    """Whether a field of this name holds a secret."""
    if SENSITIVE_KEY.search(key):
        return True
    if not isinstance(value, str) or not UNCLEAR_KEY.fullmatch(key):
        return False
    return mask(f"{key}={value}") != f"{key}={value}"
