"""What scripts/ decides without an engine."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import APP

from scripts import build, clean, compose, doctor, polling, release
from scripts.checks import settings
from scripts.messages import NoResponseError
from scripts.swarm import (
    cluster,
    convergence,
    deploy,
    images,
    rollback,
    secrets,
    specs,
    status,
    undeploy,
    versions,
)
from scripts.swarm.convergence import NotServingError, State
from scripts.swarm.secrets import digest
from scripts.swarm.specs import rollback_would_change

# As versions.build_paths() has them: the folders that go into each image.
FOLDERS = {
    "app": ["app"],
    "nginx": ["nginx", "app/webapp/static"],
    "node-exporter": ["add-on/node"],
}


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ("site", False),
        ("team/site", False),
        ("registry.example.org/site", True),
        ("localhost/site", True),
        ("registry:5000/team/site", True),
        ("registry.example.org/app", True),
    ],
)
def test_where_images_are_pushed(images, expected):
    assert versions.has_registry(images) is expected


@pytest.mark.parametrize("tag", ["latest", "-v1", "a/b", "a b", "x" * 129])
def test_tags_that_are_no_version(tag):
    with pytest.raises(SystemExit, match="is no version"):
        versions.image_tags({"APP_VERSION": tag}, FOLDERS)


def test_a_given_version_is_that_of_all_images_but_those_that_have_their_own():
    one = dict.fromkeys(FOLDERS, "1.0")
    assert versions.image_tags({"APP_VERSION": "1.0"}, FOLDERS) == one
    given = {"APP_VERSION": "1.1", "NGINX_VERSION": "1.0", "NODE_EXPORTER_VERSION": "1.0"}
    assert versions.image_tags(given, FOLDERS) == one | {"app": "1.1"}


def test_the_version_in_an_image_name():
    for image in ("site/app:v1", "127.0.0.1:5000/site/app:v1@sha256:0a1b"):
        assert cluster.version({"ContainerSpec": {"Image": image}}) == "v1"


def test_a_task_is_its_services_although_the_engine_fills_in_defaults_for_one_of_them():
    service = {"Image": "site/app:v1", "StopGracePeriod": 10_000_000_000, "DNSConfig": {}}
    task = {"Image": "site/app:v1"}
    assert specs.same_spec({"ContainerSpec": task}, {"ContainerSpec": service})
    service["StopGracePeriod"] *= 4
    assert not specs.same_spec({"ContainerSpec": task}, {"ContainerSpec": service})


@pytest.fixture
def history(tmp_path, monkeypatch):
    """A repository with a commit for each image, the application's last; git in it."""

    def git(*words):
        name = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        command = ["git", *name, *words]
        return subprocess.run(
            command, cwd=folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    folder = tmp_path / "origin"
    folder.mkdir()
    git("init", "--quiet")
    for name, paths in reversed(FOLDERS.items()):
        (folder / paths[0]).mkdir(parents=True)
        (folder / paths[0] / "file").write_text(name)
        git("add", ".")
        git("commit", "--quiet", "--message", name)
    monkeypatch.setattr(compose, "ROOT", folder)
    return git


def test_an_image_has_the_version_of_its_own_last_change(history):
    before = dict(zip(FOLDERS, history("log", "--format=%h").split(), strict=True))
    assert versions.image_tags({}, FOLDERS) == before
    for file, expected in (
        ("app/webapp/static", {"app", "nginx"}),
        ("add-on/node", {"node-exporter"}),
    ):
        (compose.ROOT / file).mkdir(parents=True, exist_ok=True)
        (compose.ROOT / file / "page.css").write_text("two")
        history("add", ".")
        history("commit", "--quiet", "--message", "two")
        after = versions.image_tags({}, FOLDERS)
        assert {name for name in FOLDERS if after[name] != before[name]} == expected
        before = after
    history("tag", "v1.0")
    assert versions.image_tags({}, FOLDERS) == before | {"app": "v1.0"}


def test_what_is_not_committed_has_a_name_of_its_own(history):
    names = [build.name()]
    for file, text in (("app/file", "1"), ("app/file", "2"), ("app/new", "1"), ("app/new", "2")):
        (compose.ROOT / file).write_text(text)
        names.append(build.name())
    assert len({*names}) == len(names)
    assert all(name.startswith(f"{names[0]}-dirty-") for name in names[1:])
    history("stash", "--include-untracked")
    (compose.ROOT / "notes").write_text("outside of the image")
    assert build.name() == names[0]


def test_a_shallow_clone_does_not_know_that(history, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    history("clone", "--quiet", "--depth=1", f"file://{compose.ROOT}", str(clone))
    monkeypatch.setattr(compose, "ROOT", clone)
    with pytest.raises(SystemExit, match=r"this clone is shallow.*git fetch --unshallow"):
        versions.image_tags({}, FOLDERS)


def test_what_git_does_not_know_is_not_built_in(history):
    (compose.ROOT / "notes").write_text("outside of the images")
    versions.image_tags({}, FOLDERS)
    for name in ("app/forgotten.py", "add-on/node/forgotten.yml"):
        (compose.ROOT / name).write_text("")
        with pytest.raises(SystemExit, match=f"{name} is not committed"):
            versions.image_tags({}, FOLDERS)
        (compose.ROOT / name).unlink()


def test_a_command_that_is_not_there_has_failed():
    answer = compose.run("no-such-command")
    assert answer.returncode == 127
    assert compose.last_error_line(answer) == "no-such-command: command not found"


def test_an_engine_that_does_not_answer_for_a_moment_ends_no_watch(monkeypatch):
    answers = [NoResponseError("no leader"), NoResponseError("no leader"), {"app": {}}]
    monkeypatch.setattr(cluster, "services", lambda: give(answers))
    monkeypatch.setattr(
        convergence,
        "service_state",
        lambda *of: State("app", "v1", wanted=1, running=1),
    )
    monkeypatch.setattr(polling.time, "sleep", lambda seconds: None)
    convergence.wait_converged(60, 0, frozenset(), allowed=set(), of={"app"})
    assert answers == []


def give(answers):
    answer = answers.pop(0)
    if isinstance(answer, Exception):
        raise answer
    return answer


def test_services_that_are_removed_meanwhile_serve_nobody(monkeypatch):
    monkeypatch.setattr(cluster, "services", dict)
    with pytest.raises(NotServingError, match="removed meanwhile"):
        convergence.wait_converged(60, 0, frozenset(), allowed=set(), of={"app"})


def test_a_container_that_is_removed_meanwhile_is_not_ready(monkeypatch):
    one = {"Id": "one", "Image": "new", "State": {"Health": {"Status": "healthy"}}}
    answers = [[one, one], [one], [one]]
    monkeypatch.setattr(release, "inspect", lambda ids: give(answers))
    monkeypatch.setattr(release, "id_of", lambda image: "new")
    assert "was removed" in release.wait_until_ready(["one", "two"], "site-app", wanted=2)
    assert "did not start" in release.wait_until_ready(["one"], "site-app", wanted=2)


def test_what_a_failed_release_has_started_goes_even_without_nginx(monkeypatch):
    done = []

    def run(*command):
        done.append(command[1:])
        return subprocess.CompletedProcess(command, int("exec" in command), "", "no nginx")

    monkeypatch.setattr(release, "run", run)
    monkeypatch.setattr(release, "inspect", lambda ids: [])
    monkeypatch.setattr(release, "app_containers", lambda *options: ["old", "new"])
    monkeypatch.setattr(release.signal, "signal", lambda *words: None)
    with pytest.raises(SystemExit, match="no nginx"):
        release.switch(["old"], 1, "site-app", "before")
    assert ("rm", "--force", "new") in done
    assert ("tag", "before", "site-app") in done


@pytest.mark.parametrize(
    "images",
    ["Site", "registry.example.org/Team/site", "site/", "https://r.example.org/site"],
)
def test_names_of_images_that_docker_would_refuse(images):
    with pytest.raises(SystemExit, match=r"IMAGES: .* -> write lower case"):
        versions.require_names("site", images)


def test_names_of_images_that_are_good():
    for name in ("site", "a__b/c.d-e", "localhost/site", "R.example.org:5000/team/site"):
        versions.require_names("site", name)


def test_a_stacks_name_leaves_space_for_that_of_each_secret():
    root = APP.parent
    files = [root / "docker-stack.yml", *root.glob("*/docker-stack.yml")]
    text = "".join(file.read_text() for file in files)
    middles = re.findall(r"COMPOSE_PROJECT_NAME:-[a-z-]+}(-[a-z-]+-)\$", text)
    assert max(map(len, middles)) + versions.LONGEST_NAME + len(digest(b"")) == 64
    versions.require_names("x" * 35, "site")
    with pytest.raises(SystemExit, match="has 36 characters -> write 35 at most"):
        versions.require_names("x" * 36, "site")


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A folder for a key; what `make rotate` does there."""

    def rotate():
        subprocess.run(["bash", "scripts/rotate.sh"], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "scripts").mkdir()
    for name in ("rotate.sh", "messages.sh"):
        shutil.copy(APP.parent / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/secret_key_fallbacks").write_text("older\n")
    monkeypatch.setattr(secrets, "ROOT", tmp_path)
    monkeypatch.setattr(cluster, "stack_name", lambda: "site")
    return rotate


def with_key(key: bytes) -> dict:
    secret = {
        "File": {"Name": "secret_key"},
        "SecretName": f"site-secret-key-{digest(key)}",
    }
    other = {"File": {"Name": "logging_ca"}, "SecretName": "site-logging-ca-0123456789ab"}
    container = {"Image": "site/app:v1", "Secrets": [other, secret]}
    return {"app": {"Spec": {"TaskTemplate": {"ContainerSpec": container}}}}


@pytest.mark.parametrize("first", [b"first\n", b"first"])
def test_a_deploy_has_the_key_that_is_deployed_or_one_rotated_to(clone, monkeypatch, first):
    key = secrets.ROOT / "secrets/secret_key"
    key.write_bytes(first)
    monkeypatch.setattr(cluster, "services", lambda: with_key(first))
    for _ in range(3):
        # Before a rotation, between its steps, and after it.
        secrets.require_deployed_key()
        clone()
    assert key.read_bytes() != first
    monkeypatch.setattr(cluster, "services", lambda: with_key(b"another's\n"))
    for remove in (lambda: None, key.unlink):
        remove()
        with pytest.raises(SystemExit, match=r"key that is not here.* -> copy the folder secrets"):
            secrets.require_deployed_key()
    monkeypatch.setattr(cluster, "services", dict)
    secrets.require_deployed_key()


class Engine:
    """Images here and in a registry; what was asked of it."""

    def __init__(self, here=(), registry=()):
        self.here, self.registry, self.done = {*here}, {*registry}, []

    def run(self, *command, **options):
        verb, image = command[1], command[-1]
        self.done.append((verb, image))
        if verb == "pull" and image in self.registry:
            self.here.add(image)
        missing = image not in (self.registry if verb == "pull" else self.here)
        words = "2026-01-31T12:00:00Z" if "{{.Created}}" in command else ""
        return subprocess.CompletedProcess(command, int(missing), words, "not found")

    @property
    def pushed(self):
        return [image for verb, image in self.done if verb == "push"]


@pytest.fixture
def engine(monkeypatch):
    def use(**found):
        engine = Engine(**found)
        monkeypatch.setattr(images, "run", engine.run)
        monkeypatch.setattr(build, "git_version", lambda: "0a1b2c3")
        return engine

    return use


def test_what_the_registry_has_is_not_pushed_over(engine):
    image = "r.example.org/site/app:v1"
    somebody_elses = engine(here=[image], registry=[image])
    assert images.ensure_images({"app": image}, {}) == []
    assert ("pull", image) in somebody_elses.done
    assert somebody_elses.pushed == []
    ours = engine(here=[image])
    assert images.ensure_images({"app": image}, {}) == []
    assert ours.pushed == [image]


def test_a_name_that_is_given_a_second_time_is_said_to_be_old(engine, monkeypatch, capsys):
    engine(here=["site/app:v1"])
    images.ensure_images({"app": "site/app:v1"}, {})
    assert capsys.readouterr().out == ""
    for given in ({"APP_VERSION": "v1"}, {"APP_VERSION": "", "NODE_EXPORTER_VERSION": "v1"}):
        images.ensure_images({"node-exporter": "site/app:v1"}, given)
        said = capsys.readouterr().out
        assert said == "site/app:v1 was built on 2026-01-31 and is not built again\n"
    monkeypatch.setattr(build, "git_version", lambda: "0a1b2c3-dirty")
    with pytest.raises(SystemExit, match=r"app:v1 is there already, .* not committed"):
        images.ensure_images({"app": "site/app:v1"}, {"APP_VERSION": "v1"})


def service(image="site/app:v2", replicas=3, forced=0, state="completed", **changes) -> dict:
    """As the engine describes one."""
    task = {"ContainerSpec": {"Image": image} | changes, "ForceUpdate": forced}
    mode = {"Replicated": {"Replicas": replicas}}
    return {"Spec": {"TaskTemplate": task, "Mode": mode}, "UpdateStatus": {"State": state}}


@pytest.mark.parametrize(
    ("now", "other"),
    [
        ({}, False),
        ({"replicas": 6}, False),
        ({"forced": 1}, False),
        ({"StopGracePeriod": 10_000_000_000, "DNSConfig": {}}, False),
        ({"image": "site/app:v3"}, True),
        ({"image": "site/app:v3", "replicas": 6, "forced": 1}, True),
        ({"Env": ["LOG_LEVEL=debug"]}, True),
        ({"Secrets": [{"SecretName": "site-secret-key-0123456789ab"}]}, True),
        ({"StopGracePeriod": 40_000_000_000}, True),
    ],
)
def test_what_a_rollback_would_bring_back(now, other):
    assert rollback_would_change(service(**now) | {"PreviousSpec": service()["Spec"]}) is other
    assert not rollback_would_change(service(**now))


def test_a_rollback_says_what_it_goes_back_to(monkeypatch, capsys):
    def before(**how):
        return {"PreviousSpec": service(**how)["Spec"]}

    back = []
    found = {
        "app": service() | before(image="site/app:v1"),
        "nginx": service(forced=1) | before(),
        "grafana": service(Env=["PORT=1"]) | before(),
        "prometheus": service(state="rollback_completed") | before(image="site/app:v1"),
    }
    monkeypatch.setattr(cluster, "require_manager", lambda on_one_host: None)
    monkeypatch.setattr(cluster, "timeout", lambda: 600)
    monkeypatch.setattr(cluster, "services", lambda: found)
    monkeypatch.setattr(convergence, "roll_back", lambda names, *rest, of: back.extend(names))
    rollback.main()
    assert back == ["app", "grafana"]
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["app v2 -> v1", "grafana v2 -> its settings and secrets of before"]
    found["app"], found["grafana"] = found["nginx"], found["nginx"]
    with pytest.raises(SystemExit, match="prometheus: rolled back already"):
        rollback.main()
    del found["prometheus"]
    with pytest.raises(SystemExit, match="Swarm knows no other version"):
        rollback.main()


@pytest.mark.parametrize(
    ("command", "on_one_host"),
    [
        (rollback.main, "make release-rollback"),
        (status.main, "make ps"),
        (undeploy.main, "make down"),
        (deploy.main, "make release"),
    ],
)
def test_without_a_swarm_the_command_for_one_host_is_named(monkeypatch, command, on_one_host):
    monkeypatch.setattr(doctor, "require", lambda groups: None)
    monkeypatch.setattr(deploy, "handle_signals", lambda: None)
    answer = subprocess.CompletedProcess([], 0, '{"LocalNodeState": "inactive"}', "")
    monkeypatch.setattr(cluster, "run", lambda *words: answer)
    with pytest.raises(SystemExit, match=f"this engine is in no Swarm -> {on_one_host}, which"):
        command()


def test_secrets_of_addons_that_are_off_are_not_made(tmp_path):
    shutil.copytree(APP.parent / "scripts", tmp_path / "scripts")
    for folder in ("prometheus", "logstash"):
        (tmp_path / folder).mkdir()
    made = []
    # Each makes what is still missing.
    for files in (["docker-compose.yml"], ["docker-compose.yml:prometheus/docker-compose.yml"], []):
        command = ["bash", "scripts/secrets.sh", *files]
        said = subprocess.check_output(command, cwd=tmp_path, text=True)
        made.append(re.findall(r"secrets/(secret_key|grafana_password|elastic_password)\n", said))
    assert made == [["secret_key"], ["grafana_password"], ["elastic_password"]]


def test_a_name_in_env_that_no_compose_file_passes_on_is_reported(tmp_path, monkeypatch):
    for name in (".env.example", "docker-compose.yml"):
        (tmp_path / name).write_text((compose.ROOT / name).read_text())
    (tmp_path / "extra.yml").write_text("# ${MINE:-}\n")
    names = ["RATE_LIMIT", "BASE_IMAGES", "COMPOSE_PROJECT_NAME", "MINE", "BY_NAME"]
    names += ["RATE_LIMT", "SECRET_KEY"]
    (tmp_path / ".env").write_text("".join(f"{name}=1\n" for name in names) + "# NOT=1\n")
    services = {"app": {"environment": {"BY_NAME": "1", "SECRET_KEY": None}}, "nginx": {}}
    monkeypatch.setattr(settings, "ROOT", tmp_path)
    monkeypatch.setattr(compose, "config", lambda: {"services": services})
    monkeypatch.setattr(compose, "setting", lambda name: "" if name == "COMPOSE_FILE" else "1")
    found = [problem.what.split()[2] for problem in settings.unread_settings()]
    assert found == ["RATE_LIMT,", "SECRET_KEY,"]
    (tmp_path / ".env").unlink()
    assert [*settings.unread_settings()] == []


def test_a_network_that_is_to_change_is_seen(monkeypatch):
    networks = {name: {"name": f"site_{name}"} for name in ("edge", "new")}
    options = {"inhibit": "true"}
    networks["backend"] = {"name": "site_backend", "internal": False, "driver_opts": options}
    found = '["site_edge", false, {}]\n\n["site_backend", true, {"inhibit": "true", "mtu": "9"}]\n'
    answer = subprocess.CompletedProcess([], 1, found, "")
    monkeypatch.setattr(compose, "config", lambda: {"networks": networks})
    monkeypatch.setattr(compose, "run", lambda *words: answer)
    assert compose.changed_networks() == ["site_backend"]
    networks["backend"]["internal"] = True
    assert compose.changed_networks() == []
    options["inhibit"] = "false"
    assert compose.changed_networks() == ["site_backend"]


def test_a_version_that_was_rolled_back_to_is_not_left_by_the_next_rollback(monkeypatch):
    """Its tag is gone; tests/stack/test_release.py types it twice."""
    done = []
    monkeypatch.setattr(release, "app_image", lambda: "site-app")
    monkeypatch.setattr(release, "id_of", lambda image: "v1")
    monkeypatch.setattr(release, "run", lambda *words: done.append(words[1:]))
    release.tag_previous("v2", back=True)
    release.tag_previous("v2")
    unhold = ("rmi", "site-app:running")
    tag = ("tag", "site-app:running", "site-app:previous")
    assert done == [("rmi", "site-app:previous"), unhold, tag, unhold]


def test_an_update_that_is_under_way_is_not_deployed_over(monkeypatch):
    for state in ("completed", "paused", "rollback_started", "rollback_completed"):
        specs.require_no_update({"app": service(state=state)})
    specs.require_no_update({"app": service() | {"UpdateStatus": None}})
    before = {"PreviousSpec": service()["Spec"]}
    specs.require_no_update({"app": service(state="updating", forced=1) | before})
    under_way = service("site/app:v3", state="updating") | before
    monkeypatch.setattr(deploy, "run", lambda *command, **options: pytest.fail("handed in"))
    monkeypatch.setattr(cluster, "stack_name", lambda: "site")
    monkeypatch.setattr(cluster, "timeout", lambda: 600)
    monkeypatch.setattr(convergence, "snapshot_ids", frozenset)
    monkeypatch.setattr(cluster, "services", lambda: {"nginx": service(), "app": under_way})
    with pytest.raises(SystemExit, match=r"an update of app is under way -> .*make swarm-rollback"):
        deploy.deploy({"app"}, [], {}, {}, with_registry=True)


def test_a_deploy_handed_in_by_half_is_taken_back(monkeypatch):
    before = {"app": service(), "nginx": service()}
    half = before | {"app": service("site/app:v3")}
    states, back = [before, half], []
    failed = subprocess.CompletedProcess((), 1, "", "no leader")
    monkeypatch.setattr(deploy, "run", lambda *command, **options: failed)
    monkeypatch.setattr(cluster, "stack_name", lambda: "site")
    monkeypatch.setattr(cluster, "timeout", lambda: 600)
    monkeypatch.setattr(convergence, "snapshot_ids", frozenset)
    monkeypatch.setattr(cluster, "services", lambda: states.pop(0) if states else before)
    monkeypatch.setattr(convergence, "show_last_failure", lambda before: None)
    monkeypatch.setattr(convergence, "roll_back", lambda names, *rest, of: back.extend(names))
    with pytest.raises(SystemExit, match=r"deploy: no leader; .* serves again: app v2, nginx v2"):
        deploy.deploy({"app", "nginx"}, [], {}, {}, with_registry=True)
    assert back == ["app"]


def test_one_rollback_that_is_refused_keeps_no_other_from_its_own(monkeypatch):
    back = []

    def run(*command):
        back.append(command[-1])
        return subprocess.CompletedProcess(command, int("app" in command[-1]), "", "no leader")

    monkeypatch.setattr(convergence, "run", run)
    monkeypatch.setattr(cluster, "stack_name", lambda: "site")
    monkeypatch.setattr(convergence, "snapshot_ids", frozenset)
    with pytest.raises(NotServingError, match="app: no leader"):
        convergence.roll_back(["app", "nginx"], 60, of={"app", "nginx"})
    assert back == ["site_app", "site_nginx"]


def test_many_tasks_have_more_time(monkeypatch):
    now = iter(range(0, 10_000, 100))
    monkeypatch.setattr(polling.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(polling.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(cluster, "services", lambda: {"app": {}})
    for wanted, seconds in ((3, 600), (10, 600), (40, 600 + 30 * 45)):
        monkeypatch.setattr(
            convergence, "service_state", lambda *of, n=wanted: State("app", "v1", n)
        )
        with pytest.raises(NotServingError, match=f"not within {seconds} s"):
            convergence.wait_converged(600, 0, frozenset(), allowed=set(), of={"app"})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_deploy_that_is_cancelled_says_so(tmp_path, number):
    (tmp_path / "docker").write_text(f"#!/bin/sh\necho >{tmp_path}/asked\nexec sleep 60\n")
    (tmp_path / "docker").chmod(0o755)
    os.mkfifo(tmp_path / "asked")
    with subprocess.Popen(
        [sys.executable, "-m", "scripts", "swarm-deploy"],
        cwd=compose.ROOT,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        Path(tmp_path / "asked").read_text()
        process.send_signal(number)
        assert process.communicate(timeout=20)[1] == "error: interrupted -> make swarm-status\n"


def test_an_optional_image_is_not_missed_where_fallback_images_are_forbidden(monkeypatch):
    """It is left out, as it is with BASE_IMAGES=auto."""
    optional = {"labels": {"optional": "true"}}
    services = {"prometheus": {}, "grafana": optional}
    monkeypatch.setattr(compose, "config", lambda: {"services": services})
    images = {name: {f"{name.upper()}_IMAGE": f"{name}:1"} for name in services}
    monkeypatch.setattr(compose, "base_images", lambda: images)
    monkeypatch.setenv("BASE_IMAGES", "registry")
    there = {"prometheus:1"}
    monkeypatch.setattr(
        settings,
        "run",
        lambda *command: subprocess.CompletedProcess(command, int(command[-1] not in there)),
    )
    assert list(settings.registry()) == []
    there.clear()
    (problem,) = settings.registry()
    assert problem.what.startswith("no registry gives prometheus:1, and")


def test_clean_removes_no_image_that_was_built_from_ours(monkeypatch):
    monkeypatch.setattr(compose, "config", lambda: {"name": "site"})
    monkeypatch.setattr(compose, "setting", {"IMAGES": "registry:5000/team"}.get)
    # Labels are inherited.
    service = {
        "site-app:latest": "app",
        "site-app:previous": "app",
        "registry:5000/team/app:v1": "app",
        "registry:5000/team/node-exporter:v1": "node-exporter",
        "my-worker:latest": "app",
        "site-worker:latest": "app",
        "registry:5000/other/app:v1": "app",
    }
    removed = []

    def docker(*command):
        if command[1] == "images":
            return subprocess.CompletedProcess(command, 0, "\n".join(service))
        if command[1] == "rmi":
            removed.append(command[2])
        return subprocess.CompletedProcess(command, 0, service.get(command[-1], ""))

    monkeypatch.setattr(clean, "run", docker)
    clean.remove_images()
    assert removed == list(service)[:4]


def test_lint_says_what_to_install_where_shellcheck_has_no_package(tmp_path):
    """On Linux on arm64."""
    for name in ("bash", "dirname", "mktemp", "rm", "uname"):
        (tmp_path / name).symlink_to(Path(shutil.which(name)).resolve())
    answer = subprocess.run(
        ["bash", compose.ROOT / "scripts/lint.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert answer.stderr == (
        f"error: shellcheck is not here, and has no Python package for {os.uname().machine}"
        " -> apt-get install shellcheck\n"
    )


@pytest.mark.parametrize("pushed", [True, False])
def test_attestations_are_refused_where_nothing_would_keep_them(monkeypatch, pushed):
    monkeypatch.setattr(compose, "engine_info", lambda: {"DriverStatus": [["a", "b"]]})
    assert images.attestations({}, pushed=pushed) == []
    with pytest.raises(SystemExit, match="SBOM=true needs a registry"):
        images.attestations({"SBOM": "true"}, pushed=pushed)
