"""Broken machines and bad settings: one line with what is wrong and what to type, nothing started.

Every fault is real, apart from two that would need another machine: an engine that is too old and a
disk that is too small. There the clone asks for more than this machine has.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from clone import ROOT, Clone, leftovers, require


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "clone")
    yield clone
    assert leftovers(clone.name) == [], "something was started"


def refusal(answer) -> str:
    """The one error line of a command that refused."""
    assert answer.returncode
    # make adds a line of its own: «make: *** [Makefile:21: up] Error 1».
    lines = [line for line in answer.stderr.splitlines() if not line.startswith("make: ***")]
    assert len(lines) == 1, answer.stderr
    assert re.match(r"error: .+ -> .+", lines[0]), lines[0]
    return lines[0]


def test_port_in_use(clone):
    with socket.create_server(("", clone.https_port)):
        line = refusal(clone.make("up", check=False))
    assert f"port {clone.https_port} is in use" in line
    assert "make up HTTPS_PORT=" in line


def test_address_that_this_machine_does_not_have(clone):
    clone.write_settings(PUBLISH_ADDRESS="192.0.2.1")
    assert "no address 192.0.2.1" in refusal(clone.make("up", check=False))


def test_pip_config_that_does_not_exist(clone):
    clone.write_settings(PIP_CONFIG="./nowhere/pip.conf")
    assert "nowhere/pip.conf does not exist" in refusal(clone.make("up", check=False))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_low_port_in_use_is_seen_by_a_user_who_may_not_bind_it():
    """`free` alone, since a user who may use the engine needs a group that CI does not have."""
    with socket.socket() as server:
        port = next(port for port in range(1023, 900, -1) if server.connect_ex(("127.0.0.1", port)))
    script = (
        "import sys; from scripts.checks.machine import free; sys.exit(free('', int(sys.argv[1])))"
    )
    command = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ]
    command += ["python3", "-c", script, str(port)]
    path = {"PYTHONPATH": str(ROOT), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert subprocess.run(command, env=path, check=False).returncode == 1
    with socket.create_server(("", port)):
        assert subprocess.run(command, env=path, check=False).returncode == 0


def test_no_engine_and_not_allowed_to_make_one(clone, tmp_path):
    """A PATH without Docker is what a machine without Docker has."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "make", "python3", "dirname", "id", "grep", "sed", "env", "sh"):
        (tools / name).symlink_to(shutil.which(name))
    line = refusal(clone.make("up", check=False, BOOTSTRAP="0", PATH=str(tools)))
    assert "no Docker engine answers" in line


def test_remote_engine_that_does_not_answer_is_not_replaced(clone):
    line = refusal(clone.make("up", check=False, DOCKER_HOST="tcp://127.0.0.1:9"))
    assert "DOCKER_HOST" in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_user_who_may_not_use_the_engine(clone):
    temporary = Path(tempfile.gettempdir())
    for path in [clone.folder, *clone.folder.rglob("*"), *clone.folder.parents]:
        if path.is_relative_to(temporary) and path != temporary:
            path.chmod(path.stat().st_mode | 0o055)
    os.chown(clone.folder, 65534, -1)
    answer = clone.run(
        *("setpriv", "--reuid=65534", "--clear-groups", shutil.which("make"), "up"),
        check=False,
        HOME="/tmp",  # noqa: S108
        PATH="/usr/local/bin:/usr/bin:/bin",
    )
    assert "usermod -aG docker" in refusal(answer)


@pytest.mark.parametrize(
    ("name", "product"),
    [("MINIMUM_ENGINE", "Docker engine"), ("MINIMUM_COMPOSE", "Docker Compose")],
)
def test_too_old(clone, name, product):
    file = clone.folder / "scripts/minimum-versions.sh"
    file.write_text(re.sub(rf"{name}=.*", f"{name}=999.0", file.read_text()))
    line = refusal(clone.make("up", check=False))
    assert product in line
    assert "is older than 999.0" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [("NEEDED_DISK_GB", "GB free in"), ("NEEDED_MEMORY_GB", "GB of memory")],
)
def test_too_small(clone, name, words):
    file = clone.folder / "scripts/checks/machine.py"
    file.write_text(
        re.sub(rf"^{name} = .*", f"{name} = 10**6", file.read_text(), flags=re.MULTILINE)
    )
    assert words in refusal(clone.make("up", check=False))


@pytest.mark.parametrize(
    ("service", "words"),
    [
        ("labels: {needs-disk-gb: '1000000'}", "1000003 GB are needed"),
        ("labels: {needs-memory: its limit}, mem_limit: 1000000g", "or less in .env: NGINX_MEMORY"),
        ("labels: {needs-program: no-such}", "nginx needs no-such -> apt-get install no-such"),
        ("labels: {needs-max-map-count: '9999999999'}", "sysctl -w vm.max_map_count=9999999999 &&"),
    ],
    ids=["disk", "memory", "program", "kernel"],
)
def test_what_a_addon_needs_beyond_that(clone, service, words):
    """As add-ons say it of their services (logstash/docker-compose.yml)."""
    override = clone.folder / "docker-compose.override.yml"
    override.write_text(f"services: {{nginx: {{{service}}}}}\n")
    assert words in refusal(clone.make("up", check=False))


def test_windows_line_ends(clone):
    """As a checkout with autocrlf has them: everywhere, the Makefile too."""
    for file in clone.folder.rglob("*"):
        if file.is_file() and b"\0" not in (content := file.read_bytes()):
            file.write_bytes(content.replace(b"\n", b"\r\n"))
    assert "Windows line ends" in refusal(clone.make("up", check=False))


def test_no_registry_and_fallback_images_forbidden(clone):
    file = clone.folder / "app/Dockerfile"
    file.write_text(re.sub(r"^ARG PYTHON_IMAGE=", r"\g<0>registry.invalid/", file.read_text()))
    line = refusal(clone.make("up", check=False, BASE_IMAGES="registry"))
    assert "registry.invalid/python" in line
    assert "BASE_IMAGES=auto" in line


def test_an_image_without_a_fallback_is_left_out_and_others_stay_what_they_are(stack, tmp_path):
    require("images")
    file = tmp_path / "Dockerfile"
    here = stack.inspect("app")[0]["Config"]["Image"]
    file.write_text(f"ARG PYTHON_IMAGE={here}\nARG NOWHERE_IMAGE=registry.invalid/nowhere:0\n")
    for choice in ("auto", "registry"):
        answer = stack.run("bash", "images/base-images.sh", str(file), BASE_IMAGES=choice)
        assert answer.stdout == "NOWHERE_IMAGE=\n"


def test_unknown_choice_of_base_images(clone):
    line = refusal(clone.make("up", check=False, BASE_IMAGES="alpine"))
    assert "BASE_IMAGES=alpine is none of auto, registry, debian" in line


def test_variable_compose_cannot_use(clone):
    clone.write_settings(HTTPS_PORT="eighty")
    assert "eighty" in refusal(clone.make("up", check=False))


def test_clean_with_a_configuration_that_compose_refuses(clone):
    clone.write_settings(HTTPS_PORT="eighty")
    assert "eighty" in refusal(clone.make("clean", check=False))


def test_setting_beyond_a_limit_replaces_nothing(stack):
    """Also before a release and by `make doctor`."""
    before = {service: stack.containers(service) for service in ("app", "nginx")}
    for target in ("up", "release", "doctor"):
        line = refusal(stack.make(target, check=False, WEB_THREADS="100"))
        assert "2000m needed, APP_TMP is" in line
        assert "APP_TMP=2000m, APP_MEMORY=" in line
    assert {service: stack.containers(service) for service in before} == before
    assert all(one["State"]["Running"] for name in before for one in stack.inspect(name))


def test_addon_that_does_not_exist(clone):
    assert "there is no add-on named kitchen" in refusal(
        clone.make("up", "WITH=kitchen", check=False)
    )


def test_remembered_addon_whose_folder_was_deleted(clone):
    clone.write_settings(COMPOSE_FILE="docker-compose.yml:gone/docker-compose.yml")
    line = refusal(clone.make("up", check=False))
    assert ".env remembers gone/docker-compose.yml" in line
    assert "make up WITH=" in line


def test_setting_the_application_refuses(clone):
    """Containers were started here; what the application said is shown, and how to look further."""
    try:
        answer = clone.make("up", check=False, LOG_FORMAT="xml")
        assert answer.returncode
        assert "webapp: LOG_FORMAT: 'xml' is unknown" in answer.stderr
        assert "error: the stack did not become healthy (app)" in answer.stderr
        assert "make logs" in answer.stderr
    finally:
        clone.make("clean")


def test_slow_is_not_broken(stack):
    """A service of a fork that is still starting when the time is over."""
    override = stack.folder / "docker-compose.override.yml"
    override.write_text(
        "services: {slow: {extends: {file: docker-compose.yml, service: app}, init: true,"
        " command: [sleep, '600'],"
        " healthcheck: {test: ['CMD', 'false'], interval: 1s, start_period: 600s}}}\n"
    )
    try:
        answer = stack.make("up", check=False, UP_TIMEOUT="5")
        assert answer.returncode
        assert "error: not healthy after 5 s, but not broken either: slow" in answer.stderr
    finally:
        override.unlink()
        stack.make("up")


SECRETS = {
    "missing": (None, "SECRET_KEY"),
    "empty": ("", "SECRET_KEY"),
    "short": ("tooshort", "SECRET_KEY"),
    "placeholder": ("changeme-changeme-changeme-changeme", "SECRET_KEY"),
}


@pytest.mark.parametrize(("content", "name"), SECRETS.values(), ids=SECRETS)
def test_image_refuses_a_bad_secret(stack, tmp_path, content, name):
    """The image by itself, as a platform would start it."""
    options = []
    if content is not None:
        secret = tmp_path / "secret_key"
        secret.write_text(content)
        secret.chmod(0o644)
        tmp_path.chmod(0o755)
        options = ["--volume", f"{secret}:/run/secrets/secret_key:ro"]
        options += ["--env", "SECRET_KEY_FILE=/run/secrets/secret_key"]
    assert_refused(stack, options, name)


SETTINGS = {
    "unreadable secret file": ("SECRET_KEY_FILE", "/etc/shadow"),
    "secret file that is not there": ("SECRET_KEY_FILE", "/nowhere"),
    "debug mode": ("FLASK_DEBUG", "1"),
    "workers": ("WEB_CONCURRENCY", "many"),
    "threads": ("WEB_THREADS", "-1"),
    "port": ("PORT", "http"),
    "proxies": ("PROXY_COUNT", "one"),
    "body size": ("MAX_BODY_SIZE", "10 MB"),
    "host names": ("SERVER_NAME", "https://example.org/"),
    "prefix": ("SCRIPT_NAME", "/shop/"),
    "environment": ("APP_ENV", "prod"),
    "log format": ("LOG_FORMAT", "xml"),
    "log level": ("LOG_LEVEL", "loud"),
}


@pytest.mark.parametrize(("name", "value"), SETTINGS.values(), ids=SETTINGS)
def test_image_refuses_a_bad_setting(stack, name, value):
    options = [] if name == "SECRET_KEY_FILE" else ["--env", f"SECRET_KEY={'0123456789abcdef' * 3}"]
    assert_refused(stack, [*options, "--env", f"{name}={value}"], name)


def test_image_refuses_threads_beyond_its_limit_of_processes(stack):
    """Alone, where nobody has checked."""
    options = ["--env", f"SECRET_KEY={'0123456789abcdef' * 3}", "--pids-limit=128"]
    settings = ["--env", "WEB_CONCURRENCY=2", "--env", "WEB_THREADS=100"]
    assert_refused(stack, options + settings, "set WEB_THREADS=55, or raise")


def assert_refused(stack, options: list[str], name: str) -> None:
    image = stack.inspect("app")[0]["Image"]
    command = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", *options, image]  # noqa: S108
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert answer.returncode == 78
    lines = (answer.stdout + answer.stderr).splitlines()
    assert len(lines) == 1, lines
    assert name in lines[0]


NGINX_SETTINGS = {
    "host names": ("SERVER_NAME", "localhost; return 200"),
    "prefix": ("SCRIPT_NAME", "/shop/"),
    "prefix of two lines": ("SCRIPT_NAME", "/a\n/b"),
    "prefix of an internal path": ("SCRIPT_NAME", "/metrics/shop"),
    "body size": ("MAX_BODY_SIZE", "10 MB"),
    "port": ("HTTPS_PORT", "8443/"),
    "port of visitors": ("PUBLIC_PORT", "https"),
    "address": ("SERVER_NAME", "localhost 256.1.1.1"),
    "origins": ("CORS_ORIGINS", "https://a.example/path"),
    "rate": ("RATE_LIMIT", "10r/s"),
    "burst": ("RATE_BURST", "0"),
    "connections": ("CONNECTION_LIMIT", "many"),
    "uploads": ("UPLOAD_LIMIT", "0"),
    "proxies": ("TRUSTED_PROXIES", "10.0.0.0/8 everybody"),
    "hsts": ("HSTS", "forever"),
    "hsts on localhost": ("HSTS", "max-age=300"),
    "proxy protocol": ("PROXY_PROTOCOL", "maybe"),
    "metrics": ("NGINX_METRICS", "yes"),
    "proxy protocol from nobody": ("PROXY_PROTOCOL", "on"),
}


@pytest.mark.parametrize(("name", "value"), NGINX_SETTINGS.values(), ids=NGINX_SETTINGS)
def test_nginx_refuses_a_bad_setting(stack, name, value):
    assert_nginx_refuses(stack, ["--env", f"{name}={value}"], name)


def test_nginx_refuses_a_key_without_its_certificate(stack, tmp_path):
    folder = certificates(tmp_path, "privkey.pem", "a key")
    assert_nginx_refuses(
        stack, ["--volume", f"{folder}:/etc/nginx/certificates:ro"], "fullchain.pem"
    )


def test_nginx_refuses_a_key_it_cannot_read(stack, tmp_path):
    folder = certificates(tmp_path, "fullchain.pem", stack.certificate)
    certificates(tmp_path, "privkey.pem", "a key").joinpath("privkey.pem").chmod(0o600)
    assert_nginx_refuses(stack, ["--volume", f"{folder}:/etc/nginx/certificates:ro"], "privkey.pem")


def certificates(folder: Path, name: str, content: str) -> Path:
    folder.chmod(0o755)
    (folder / name).write_text(content)
    return folder


def assert_nginx_refuses(stack, options: list[str], name: str) -> None:
    container = stack.inspect("nginx")[0]
    settings = [f"--env={setting}" for setting in container["Config"]["Env"]]
    command = ["docker", "run", "--rm", *settings, *options, container["Image"]]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert answer.returncode
    lines = (answer.stdout + answer.stderr).splitlines()
    assert len(lines) == 1, lines
    assert name in lines[0]
