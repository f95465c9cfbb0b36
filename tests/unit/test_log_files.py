"""The copy of log lines for a log forwarder."""

import json
import logging
import os

import pytest
from clone import require
from conftest import create_app
from prometheus_client import REGISTRY
from webapp import config, log_files


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "LOG_FOLDER", str(tmp_path))
    return tmp_path


def lines(folder, name):
    return [json.loads(line) for line in (folder / f"{name}.log").read_text().splitlines()]


@pytest.mark.parametrize("form", ["json", "text"])
def test_each_line_is_copied_whole_by_its_level(make_app, folder, capfd, form):
    app = make_app(SHIP_LOGS="on", LOG_FORMAT=form, LOG_LEVEL="debug")
    for level in ("debug", "info", "warning", "error"):
        app.logger.log(logging.getLevelNamesMapping()[level.upper()], "a line of %s", level)
    wanted = {"info": ["debug", "info"], "error": ["warning", "error"]}
    for name, levels in wanted.items():
        found = [entry for entry in lines(folder, name) if entry["log"]["logger"] == "webapp"]
        assert [entry["log"]["level"] for entry in found] == levels
    if form == "json":
        copied = [entry for name in wanted for entry in lines(folder, name)]
        printed = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
        by_id = lambda entry: entry["event"]["id"]  # noqa: E731
        assert sorted(copied, key=by_id) == sorted(printed, key=by_id)


def test_off_no_file_is_made(make_app, folder):
    make_app().logger.error("a line")
    assert list(folder.iterdir()) == []


def test_a_folder_that_is_missing_is_one_line(monkeypatch):
    monkeypatch.setattr(config, "LOG_FOLDER", "/nowhere")
    with pytest.raises(config.ConfigError) as caught:
        create_app({"APP_ENV": "development", "SHIP_LOGS": "on"})
    (problem,) = caught.value.problems
    assert problem.startswith("webapp: SHIP_LOGS: is on, and /nowhere cannot be written")


def test_the_old_setting_is_refused_in_a_line_that_names_the_new_one():
    require("logstash/forwarder")
    with pytest.raises(config.ConfigError) as caught:
        config.load({"APP_ENV": "development", "LOGSTASH_HOST": "logstash"})
    (problem,) = caught.value.problems
    assert "SHIP_LOGS=on" in problem


class Full:
    """os.write() on a volume that takes so many more bytes."""

    def __init__(self, left):
        self.left, self.write = left, os.write

    def __call__(self, file, data):
        if not self.left:
            raise OSError(28, "No space left on device")
        written = self.write(file, data[: self.left])
        self.left -= written
        return written


@pytest.mark.parametrize(("left", "lost"), [(0, 3), (5, 2), (10, 2), (15, 1), (29, 0), (30, 0)])
def test_lines_that_a_full_folder_does_not_take_are_counted(tmp_path, monkeypatch, left, lost):
    """The one that is cut short is counted by the forwarder, which finds it."""
    name = "app_log_lines_not_copied_total"
    before = REGISTRY.get_sample_value(name)
    made = log_files.LogFiles(tmp_path)
    monkeypatch.setattr(os, "write", Full(left))
    for _ in range(3):
        made.append(logging.INFO, b"123456789\n")
    assert REGISTRY.get_sample_value(name) - before == lost
