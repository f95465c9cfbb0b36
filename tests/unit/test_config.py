"""Settings: what is read, and every refusal."""

import os
import subprocess
import sys

import pytest
from conftest import APP, KEY
from flask import request
from webapp import config


def load(**variables):
    return config.load({"SECRET_KEY": KEY, **variables})


def test_defaults_are_those_of_production():
    settings = load()
    assert settings["APP_ENV"] == "production"
    assert settings["SECRET_KEY"] == KEY
    assert settings["SECRET_KEY_FALLBACKS"] == []
    assert settings["PORT"] == 8000
    assert settings["PROXY_COUNT"] == 0
    assert settings["WEB_CONCURRENCY"] is None
    assert settings["TRUSTED_HOSTS"] is None
    assert settings["MAX_CONTENT_LENGTH"] == 10 * 1024**2
    assert settings["LOG_FORMAT"] == "json"
    assert settings["SESSION_COOKIE_SECURE"]
    assert settings["SHIP_LOGS"] is False
    assert (settings["SCRIPT_NAME"], settings["APPLICATION_ROOT"]) == ("", "/")


def test_empty_variables_count_as_unset():
    names = "WEB_CONCURRENCY WEB_THREADS SERVER_NAME LOG_LEVEL SECRET_KEY_FILE MAX_BODY_SIZE"
    assert load(**dict.fromkeys(names.split(), " ")) == load()


def test_development_makes_a_key_for_each_start_and_allows_debug():
    first, second = (config.load({"APP_ENV": "development", "FLASK_DEBUG": "1"}) for _ in "12")
    assert first["SECRET_KEY"] != second["SECRET_KEY"]
    assert not first["SESSION_COOKIE_SECURE"]
    assert config.load({"APP_ENV": "development", "SECRET_KEY": "dev"})["SECRET_KEY"] == "dev"


def test_secrets_from_files(tmp_path):
    key, old = tmp_path / "key", tmp_path / "old"
    key.write_text(f"{KEY}\n")
    old.write_text(f"{KEY[::-1]}\n{KEY[1:]},{KEY[2:]} \n")
    settings = config.load({"SECRET_KEY_FILE": str(key), "SECRET_KEY_FALLBACKS_FILE": str(old)})
    assert settings["SECRET_KEY"] == KEY
    assert settings["SECRET_KEY_FALLBACKS"] == [KEY[::-1], KEY[1:], KEY[2:]]


def test_an_empty_file_of_fallbacks_is_no_fallback(tmp_path):
    (tmp_path / "old").touch()
    settings = load(SECRET_KEY_FALLBACKS_FILE=str(tmp_path / "old"))
    assert settings["SECRET_KEY_FALLBACKS"] == []


@pytest.mark.parametrize(
    ("text", "size"), [("10m", 10 * 1024**2), ("1K", 1024), ("2g", 2 * 1024**3), ("77", 77)]
)
def test_sizes_are_written_as_in_nginx(text, size):
    settings = load(MAX_BODY_SIZE=text)
    assert settings["MAX_CONTENT_LENGTH"] == size
    assert settings["MAX_FORM_MEMORY_SIZE"] == min(size, 500 * 1024)


def test_fields_of_forms_have_a_limit_of_their_own_within_that_of_bodies():
    assert load(MAX_FORM_MEMORY_SIZE="2m")["MAX_FORM_MEMORY_SIZE"] == 2 * 1024**2
    settings = load(MAX_FORM_MEMORY_SIZE="2m", MAX_BODY_SIZE="1m")
    assert settings["MAX_FORM_MEMORY_SIZE"] == 1024**2


@pytest.mark.parametrize(("limit", "status"), [("500k", 413), ("700k", 200)])
def test_a_long_text_field_of_a_form(make_app, limit, status):
    app = make_app(MAX_FORM_MEMORY_SIZE=limit)
    app.add_url_rule("/form", view_func=lambda: request.form["text"][:1], methods=["POST"])
    form = {"text": "x" * 600_000}
    answer = app.test_client().post("/form", data=form, content_type="multipart/form-data")
    assert answer.status_code == status


def test_origins_are_separated_by_spaces_or_commas():
    settings = load(CORS_ORIGINS="https://a.example, https://b.example http://localhost:3000")
    assert settings["CORS_ORIGINS"] == [
        "https://a.example",
        "https://b.example",
        "http://localhost:3000",
    ]


def test_hosts_are_separated_by_spaces_or_commas():
    settings = load(SERVER_NAME="Example.com, www.example.com .example.org 10.0.0.1")
    hosts = ["example.com", "www.example.com", ".example.org", "10.0.0.1"]
    assert settings["TRUSTED_HOSTS"] == hosts


@pytest.mark.parametrize("path", ["/shop", "/a/b", "/v1.2_x~y-z", "/metrics2"])
def test_paths_that_can_be_a_prefix(path):
    settings = load(SCRIPT_NAME=path)
    assert settings["SCRIPT_NAME"] == settings["APPLICATION_ROOT"] == path


def test_addons_that_are_on():
    names = {"ADDON_LOGGING": "1", "ADDON_MONITORING": "on", "ADDON_A": "", "ADDON_B": "off"}
    assert load(**names, ADDON_C="0")["ADDONS"] == ["logging", "monitoring"]


REFUSED = [
    ("APP_ENV", "prod"),
    ("LOG_FORMAT", "xml"),
    ("LOG_LEVEL", "INFO!"),
    ("FLASK_DEBUG", "1"),
    ("FLASK_DEBUG", "yes"),
    ("SECRET_KEY", ""),
    ("SECRET_KEY", "short-7fa2Kq"),
    ("SECRET_KEY", "a" * 64),
    ("SECRET_KEY", "changeme"),
    ("SECRET_KEY", "change-me-please-change-me-please-now"),
    ("SECRET_KEY", "this-is-an-example-key-of-enough-length"),
    ("SECRET_KEY", "qwertyuiqwertyuiqwertyuiqwertyui"),
    ("SECRET_KEY", "dev"),
    ("SECRET_KEY_FALLBACKS", "old"),
    pytest.param(
        "SECRET_KEY_FALLBACKS", f"{KEY},password-password-password-password", id="one of two"
    ),
    ("SECRET_KEY_FILE", "/nowhere/secret_key"),
    ("PORT", "http"),
    ("PORT", "0"),
    ("PORT", "65536"),
    ("PROXY_COUNT", "-1"),
    ("PROXY_COUNT", "one"),
    ("WEB_CONCURRENCY", "0"),
    ("WEB_CONCURRENCY", "auto"),
    ("WEB_CONCURRENCY", "2.5"),
    ("WEB_THREADS", "٤"),
    ("MAX_BODY_SIZE", "ten"),
    ("MAX_BODY_SIZE", "0"),
    ("MAX_BODY_SIZE", "10mb"),
    ("MAX_BODY_SIZE", "-1m"),
    ("SCRIPT_NAME", "shop"),
    ("SCRIPT_NAME", "/"),
    ("SCRIPT_NAME", "/shop/"),
    ("SCRIPT_NAME", "/a//b"),
    ("SCRIPT_NAME", "/a/../b"),
    ("SCRIPT_NAME", "/.shop"),
    ("SCRIPT_NAME", "/a b"),
    ("SCRIPT_NAME", "/a%20b"),
    ("SCRIPT_NAME", "/café"),
    ("SCRIPT_NAME", "/a\n/b"),
    ("SCRIPT_NAME", "/metrics"),
    ("SCRIPT_NAME", "/livez/shop"),
    ("SERVER_NAME", "https://example.com"),
    ("SERVER_NAME", "example.com:8443"),
    ("SERVER_NAME", "exa_mple.com"),
    ("SERVER_NAME", "_"),
    ("SERVER_NAME", "-example.com"),
    ("SERVER_NAME", "example..com"),
    ("SERVER_NAME", "bücher.example"),
    ("SERVER_NAME", "*.example.com"),
    ("SERVER_NAME", "a" * 64),
    ("SHIP_LOGS", "yes"),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_refused_with_one_line_that_names_the_variable(name, value):
    variables = {name: value}
    if name == "SECRET_KEY_FILE":
        variables["SECRET_KEY"] = ""
    with pytest.raises(config.ConfigError) as caught:
        load(**variables)
    (problem,) = caught.value.problems
    assert problem.startswith(f"webapp: {name}: ")
    assert "\n" not in problem


@pytest.mark.parametrize("app_env", ["production", "testing"])
def test_testing_is_as_strict_as_production(app_env):
    with pytest.raises(config.ConfigError, match="SECRET_KEY: is missing"):
        config.load({"APP_ENV": app_env})


def test_a_secret_given_twice_is_refused(tmp_path):
    (tmp_path / "key").write_text(KEY)
    with pytest.raises(config.ConfigError, match="SECRET_KEY: is set, and so is SECRET_KEY_FILE"):
        load(SECRET_KEY_FILE=str(tmp_path / "key"))


def test_files_that_are_no_key(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").touch()
    for name, reason in [("folder", "a directory"), ("binary", "UTF-8"), ("empty", "missing")]:
        with pytest.raises(config.ConfigError, match=reason) as caught:
            config.load({"SECRET_KEY_FILE": str(tmp_path / name)})
        assert len(caught.value.problems) == 1


def test_a_file_without_permission(monkeypatch):
    """Not with a real file: root, who runs the tests in many a container, reads every file."""

    def forbidden(path, **kwargs):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(config, "open", forbidden, raising=False)
    with pytest.raises(config.ConfigError, match=r"SECRET_KEY_FILE: .*Permission denied"):
        config.load({"SECRET_KEY_FILE": "/run/secrets/secret_key"})


def test_no_message_shows_a_secret():
    key = "unsafe-but-still-nobodys-business-47"
    with pytest.raises(config.ConfigError) as caught:
        load(SECRET_KEY=key, SECRET_KEY_FALLBACKS=key)
    assert key not in str(caught.value)


def test_all_problems_are_listed_without_a_traceback():
    answer = subprocess.run(
        [sys.executable, "-c", "import wsgi"],
        cwd=APP,
        env={"PATH": os.environ["PATH"], "PORT": "x", "LOG_LEVEL": "loud"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 78
    starts = [line.split(": ")[1] for line in answer.stderr.splitlines()]
    assert sorted(starts) == ["LOG_LEVEL", "PORT", "SECRET_KEY"]


def test_in_this_process_bad_settings_end_it(monkeypatch, capsys):
    monkeypatch.setenv("PORT", "x")
    config.from_environment.cache_clear()
    with pytest.raises(SystemExit) as caught:
        config.from_environment()
    assert caught.value.code == 78
    assert capsys.readouterr().err.count("\n") == 2


def test_settings_are_read_once_a_process(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", KEY)
    config.from_environment.cache_clear()
    first = config.from_environment()
    monkeypatch.setenv("SECRET_KEY", "changeme")
    assert config.from_environment() is first
    config.from_environment.cache_clear()


def test_the_command_in_the_message_makes_an_accepted_key():
    assert config.NEW_KEY.startswith("python3 -c '")
    code = config.NEW_KEY.removeprefix("python3 -c ").strip("'")
    key = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert load(SECRET_KEY=key)["SECRET_KEY"] == key.strip()
