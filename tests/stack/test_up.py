"""`make up` and its siblings, as a newcomer meets them."""

import re
import shutil
import time

import httpx
import pytest
from clone import Clone, wait_until
from load import Load

# A service that does nothing; process 1 is deaf to SIGTERM.
SLEEP = "entrypoint: [sleep, infinity], stop_signal: KILL, healthcheck: {test: [CMD, 'true']}"


@pytest.fixture(scope="module")
def again(stack):
    """`make up` where all runs already: what it said, and which containers it met."""
    before = stack.containers("app") + stack.containers("nginx")
    return stack.make("up"), before


def test_prints_the_addresses_that_work(stack, again):
    address, *after = again[0].stdout.splitlines()[-3:]
    assert address == stack.url
    assert after == [
        "browsers warn of the self-signed certificate; your own: docs/certificates.md",
        "next: make logs, make ps, make down; after a change: make release",
    ]
    assert httpx.get(f"{address}/diagnostics/hello", verify=stack.tls()).status_code == 200


def test_again_it_changes_nothing(stack, again):
    assert stack.containers("app") + stack.containers("nginx") == again[1]


def test_output_is_plain_where_there_is_no_terminal(again):
    assert "\x1b" not in again[0].stdout + again[0].stderr


def test_with_images_built_it_is_healthy_within_ten_seconds(stack):
    """Other work beside it slows it down as it does the start of any container, which takes a third
    of a second on a machine that has nothing else to do.
    """
    image = stack.inspect("app")[0]["Image"]

    def seconds(*command: str) -> float:
        start = time.monotonic()
        stack.run(*command)
        return time.monotonic() - start

    stack.make("down")
    taken = seconds("make", "up")
    of_any = seconds("docker", "run", "--rm", "--entrypoint=true", image)
    assert taken < max(10, 30 * of_any)
    assert stack.is_healthy("nginx")
    assert stack.is_healthy("app")


def test_every_target_is_listed(stack):
    makefile = (stack.folder / "Makefile").read_text()
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    listed = re.findall("^  make ([a-z-]+) ", stack.make().stdout, re.MULTILINE)
    assert listed == targets


@pytest.mark.parametrize(("target", "word"), [("ps", "(healthy)"), ("config", "read_only: true")])
def test_small_targets(stack, target, word):
    assert word in stack.make(target).stdout


def test_doctor_finds_nothing_wrong_while_the_stack_holds_its_ports(stack):
    answer = stack.make("doctor")
    assert answer.stderr == ""
    assert "ok     ports" in answer.stdout


def test_secrets_are_made_once_and_readable_to_the_containers_only(stack):
    secret = stack.folder / "secrets/secret_key"
    before = secret.read_text()
    stack.make("secrets")
    assert secret.read_text() == before
    assert len(before.strip()) >= 64
    assert secret.parent.stat().st_mode & 0o777 == 0o700


def test_changed_style_sheet_is_served_after_make_up(stack, client):
    """A volume of static files would keep the old bytes: the users' "stale after a rebuild"."""
    source = stack.folder / "app/webapp/static/error.css"
    old, original = stack.style_sheet(), source.read_bytes()
    # Left by `flask digest compile` outside the image, which app/.dockerignore keeps out.
    stale = source.with_name(f"left-behind-{'0a' * 16}.css")
    stale.write_text("stale")
    try:
        source.write_bytes(original + b"\n/* changed by a test */\n")
        stack.make("up")
        new = stack.style_sheet()
        assert new != old
        assert client.get(new).content.endswith(b"/* changed by a test */\n")
        assert client.get(old).status_code == 404
        assert stale.name not in stack.execute("app", "ls", "webapp/static")
    finally:
        stale.unlink()
        source.write_bytes(original)
        stack.make("up")
    assert stack.style_sheet() == old
    assert client.get(old).content == original


def test_two_clones_run_side_by_side(stack, client, tmp_path):
    """The second one runs with the defaults of production, and is removed by its own means."""
    other = Clone(tmp_path / "other")
    try:
        other.make("up")
        with other.client() as its:
            assert its.get(other.style_sheet()).status_code == 200
            assert its.get("/diagnostics/echo").status_code == 404
        assert client.get("/diagnostics/hello").status_code == 200
        # The self-signed certificates differ: neither clone reads the other's volume.
        assert other.certificate != stack.certificate
        supplied = other.folder / "certificates"
        supplied.mkdir()
        (supplied / "fullchain.pem").write_text("a person's own")
        other.write_settings(CERTIFICATES="./certificates")
    finally:
        other.make("clean")
    # A person wrote these two.
    assert (other.folder / ".env").exists()
    assert (supplied / "fullchain.pem").read_text() == "a person's own"
    assert not (other.folder / "secrets").exists()
    # Cleaning one clone leaves the other alone.
    assert client.get("/diagnostics/hello").status_code == 200


def test_addons_are_switched_on_remembered_and_switched_off(stack, client):
    """With an overlay of the test's own, in a folder that an add-on of that name would have."""
    overlay = stack.folder / "prometheus/docker-compose.yml"
    overlay.parent.mkdir(exist_ok=True)
    original = overlay.read_bytes() if overlay.exists() else None
    overlay.write_text("services: {app: {environment: {ADDON_MONITORING: 'on'}}}\n")

    def addon() -> int:
        return stack.compose("config").stdout.count("ADDON_MONITORING")

    before = (stack.folder / ".env").read_text()
    try:
        stack.make("up", "WITH=monitoring")
        assert addon() == 1
        stack.make("up")
        assert addon() == 1
        stack.make("up", "WITH=")
        assert addon() == 0
        assert (stack.folder / ".env").read_text() == before
    finally:
        stack.write_settings()
        overlay.unlink() if original is None else overlay.write_bytes(original)


def test_without_its_image_a_service_is_left_out_if_it_is_optional(stack):
    base = stack.inspect("app")[0]["Config"]["Labels"]["org.opencontainers.image.base.name"]
    if not base.startswith("fallback/"):
        pytest.skip("the base images come from a registry")
    folder, overlay = stack.folder / "nowhere", stack.folder / "docker-compose.override.yml"
    image = "localhost:1/nowhere:1.0"
    folder.mkdir()
    (folder / "Dockerfile").write_text(f"ARG NOWHERE_IMAGE={image}\nFROM ${{NOWHERE_IMAGE}}\n")
    optional, needed = (
        f"nowhere: {{build: nowhere, {SLEEP}, labels: {{{label}: 'true'}}}}"
        for label in ("optional", "needed")
    )
    guest = f"guest: {{image: {stack.name}-app, {SLEEP}}}"

    def services() -> set[str]:
        ours = f"label=com.docker.compose.project={stack.name}"
        name = '{{.Label "com.docker.compose.service"}}'
        answer = stack.run("docker", "ps", "--all", "--filter", ours, "--format", name)
        return {*answer.stdout.split()}

    before = stack.containers("app")
    try:
        overlay.write_text(f"services: {{{optional}, {guest}}}\n")
        lines = stack.make("up").stdout.splitlines()
        assert f"nowhere is left out: {image} is out of reach and has no fallback image" in lines
        assert services() == {"app", "nginx", "guest"}
        assert stack.make("doctor").stderr == ""
        # What is not in the files any more goes, as it does when nothing is left out.
        overlay.write_text(f"services: {{{optional}}}\n")
        stack.make("up")
        assert services() == {"app", "nginx"}
        # Brought in by `docker load`, say.
        stack.run("docker", "tag", f"{stack.name}-app", image)
        stack.make("up")
        assert services() == {"app", "nginx", "nowhere"}
        stack.compose("rm", "--stop", "--force", "nowhere")
        stack.run("docker", "rmi", image, f"{stack.name}-nowhere")
        overlay.write_text(f"services: {{{needed}, {guest}}}\n")
        answer = stack.make("up", check=False)
        assert answer.returncode
        (error,) = (line for line in answer.stderr.splitlines() if line.startswith("error: "))
        assert error.startswith(f"error: nowhere cannot run here: {image} is out of reach")
        assert services() == {"app", "nginx"}
    finally:
        overlay.unlink()
        shutil.rmtree(folder)
    assert stack.containers("app") == before


def test_what_has_a_secret_that_changed_is_started_anew_and_nothing_else(stack):
    overlay, secret = stack.folder / "docker-compose.override.yml", stack.folder / "word"
    guest = f"guest: {{image: {stack.name}-app, secrets: [word], {SLEEP}}}"
    overlay.write_text(f"services: {{{guest}}}\nsecrets: {{word: {{file: word}}}}\n")
    secret.write_text("one")
    try:
        stack.make("up")
        before, app = stack.containers("guest"), stack.containers("app")
        stack.make("up")
        assert stack.containers("guest") == before
        secret.unlink()
        secret.write_text("two")
        assert "secrets have changed: restarting guest" in stack.make("up").stdout
        assert stack.containers("guest") != before
        assert stack.execute("guest", "cat", "/run/secrets/word") == "two"
        assert stack.containers("app") == app
    finally:
        stack.compose("rm", "--stop", "--force", "guest")
        overlay.unlink()
        secret.unlink()


def test_an_application_that_would_not_start_replaces_nothing(stack):
    """At build time root can write there; at run time the file system is read-only."""
    source = stack.folder / "app/webapp/__init__.py"
    original = source.read_text()
    before = stack.inspect("app") + stack.inspect("nginx")
    database = 'sqlite3.connect("/srv/site.db").execute("CREATE TABLE IF NOT EXISTS a (b)")'
    source.write_text(f"{original}\n\nimport sqlite3\n\n{database}\n")
    try:
        with Load(stack) as load:
            answer = stack.make("up", check=False)
            load.carry_on(100)
    finally:
        source.write_text(original)
    after = stack.inspect("app") + stack.inspect("nginx")
    stack.make("up")
    assert answer.returncode
    assert "unable to open database file" in answer.stderr
    assert "error: the new application would not start, its last words are above" in answer.stderr
    assert load.failed == [], load.summary
    assert [(it["Id"], it["State"]["StartedAt"]) for it in after] == [
        (it["Id"], it["State"]["StartedAt"]) for it in before
    ]


def test_an_addon_keeps_the_override_that_a_person_wrote(tmp_path):
    clone = Clone(tmp_path / "clone")
    (clone.folder / "prometheus").mkdir(exist_ok=True)
    overlay = clone.folder / "prometheus/docker-compose.yml"
    overlay.write_text("services: {app: {environment: {ADDON_MONITORING: 'on', WHO: add-on}}}\n")
    override = clone.folder / "docker-compose.override.yml"
    override.write_text("services: {app: {environment: {WHO: person}}}\n")
    script = "from scripts import addons; addons.remember()"
    clone.run("python3", "-c", script, WITH="monitoring")
    config = clone.compose("config").stdout
    assert "ADDON_MONITORING" in config
    assert "WHO: person" in config


@pytest.fixture(scope="module")
def named(stack):
    """The stack with names in .env, and the addresses that its `make up` prints."""
    stack.write_settings(APP_VERSION="1.2.3-test", SERVER_NAME=".localhost example.org")
    try:
        said = stack.make("up").stdout.splitlines()
        yield [line for line in said if line.startswith("https://")]
    finally:
        del stack.settings["APP_VERSION"], stack.settings["SERVER_NAME"]
        stack.write_settings()
        stack.make("up")


def test_version_named_in_env_is_the_one_that_runs(named, client):
    assert client.get("/diagnostics/echo").json()["version"] == "1.2.3-test"


def test_a_name_with_subdomains_is_printed_as_an_address(named, stack):
    assert named == [stack.url, f"https://example.org:{stack.https_port}"]


def test_clean_keeps_a_secret_that_a_person_wrote(tmp_path):
    clone = Clone(tmp_path / "clone")
    clone.make("secrets")
    own = clone.folder / "secrets/secret_key"
    own.write_text("a person's own key, longer than thirty-two characters")
    clone.make("clean")
    assert own.exists()
    assert not (clone.folder / "secrets/secret_key_fallbacks").exists()


def test_replicas_share_the_load(stack, client):
    try:
        stack.compose("up", "--detach", "--no-recreate", "--scale", "app=3")
        wait_until(lambda: stack.is_healthy("app"), 30, "three replicas healthy")
        wait_until(
            lambda: (
                len({client.get("/diagnostics/echo").json()["replica"] for _ in range(30)}) == 3
            ),
            10,
            "answers from three replicas",
        )
    finally:
        stack.make("up")
    assert len(stack.containers("app")) == 1
