"""`make up`: from a fresh clone to a stack that serves, in the order below."""

import os
import re
import subprocess
import sys

from scripts import addons, build, compose, containers, doctor, release
from scripts.compose import ROOT, run
from scripts.messages import fail, say, show_log
from scripts.polling import attempts


def main() -> None:
    addons.choose()
    doctor.require(doctor.BEFORE_ENGINE)
    script("scripts/engine.sh", "if-needed")
    doctor.require(doctor.GROUPS)
    environment = build.environment()
    # Not before: a choice that cannot be had leaves everything as it is.
    addons.remember()
    script("scripts/secrets.sh", compose.setting("COMPOSE_FILE") or addons.CORE)
    os.environ.update(environment)
    left_out = build.without_image(environment)
    services = [name for name in compose.config()["services"] if name not in left_out]
    start(services if left_out else [])
    finish_release()
    wait_for_nginx()
    print_urls(services)
    # Last, where it is seen: the build may have taken minutes.
    for service, image in left_out.items():
        say(f"{service} is left out: {image} is out of reach and has no fallback image")
    for problem in doctor.unread_settings():
        say(f"warning: {problem}")
    if "/" not in compose.setting("CERTIFICATES"):
        say("browsers warn of the self-signed certificate; your own: docs/certificates.md")
    say("next: make logs, make ps, make down; after a change: make release")


def script(*command: str) -> None:
    """Run one of the shell scripts; it has said what is wrong when it fails."""
    if subprocess.run(["bash", *command], cwd=ROOT, check=False).returncode:  # noqa: S603, S607
        sys.exit(1)


def start(services: list[str]) -> None:
    """Start these services; all when empty."""
    before = containers.ids(service="app")
    old_image = containers.inspect(before)[0]["Image"] if before else ""
    changed = [
        service
        for service, its in compose.config()["services"].items()
        if its.get("secrets")
        and containers.with_old_secrets(containers.ids(service=service), service)
    ]
    # What takes long comes before what stops anything, and so does what may be wrong.
    if old_image:
        release.tag_running(old_image)
    build_ = ["docker", "compose", "build", *services]
    if subprocess.run(build_, cwd=ROOT, check=False).returncode:  # noqa: S603
        fail("an image cannot be built, Docker's words are above", "make doctor")
    if networks := compose.changed_networks():
        say(f"{', '.join(networks)} changes: stopping what is connected to it")
        # Orphans, too: a service of the version before would hold the network.
        run("docker", "compose", "down", "--remove-orphans")
    recreated = would_be_recreated()
    check_nginx(recreated)
    check_app({*recreated, *changed})
    for service in changed:
        say(f"secrets have changed: restarting {service}")
        run("docker", "compose", "rm", "--stop", "--force", service)
    # A broken container ends it sooner. Elasticsearch and then Kibana take minutes on a small
    # machine.
    timeout = compose.setting("UP_TIMEOUT") or "600"
    command = ["docker", "compose", "up", "--detach", "--remove-orphans", "--wait"]
    command += ["--wait-timeout", timeout, *services]
    done = subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603
    # Compose 2.40.3 sometimes ends with 0 when the time is over.
    if done.returncode or any(map(is_starting, containers.inspect(containers.ids()))):
        report_unhealthy(timeout)
    if old_image:
        release.tag_previous(old_image)


def is_starting(container: dict) -> bool:
    return container["State"].get("Health", {}).get("Status") == "starting"


def report_unhealthy(timeout: str) -> None:
    """What is broken, with its last lines; or that nothing is, and what is only slow."""
    broken, slow = [], []
    for its in containers.inspect(containers.ids("--all")):
        name, state = its["Config"]["Labels"]["com.docker.compose.service"], its["State"]
        health = state.get("Health", {}).get("Status")
        if state["Status"] == "exited" and not state["ExitCode"]:
            continue  # a set-up that is done
        if its["RestartCount"] and health != "healthy":
            broken.append(name)
        elif state["Status"] == "created" or health == "starting":
            slow.append(name)
        elif state["Status"] != "running" or health == "unhealthy":
            broken.append(name)
    if slow and not broken:
        fail(
            f"not healthy after {timeout} s, but not broken either: {', '.join(sorted({*slow}))}",
            "wait for it with: make ps; or: make up UP_TIMEOUT=1800",
        )
    logs = ("docker", "compose", "logs", "--tail", "50", "--no-log-prefix")
    show_log(run(*logs, *sorted({*broken})).stdout)
    which = f" ({', '.join(sorted({*broken}))})" if broken else ""
    fail(
        f"the stack did not become healthy{which}; its last lines are above",
        "make ps; make logs",
    )


def would_be_recreated() -> set[str]:
    """Which of the core's services Compose would stop, to start another container."""
    plan = run("docker", "compose", "--dry-run", "up", "--detach", "--no-deps", "nginx", "app")
    return {*re.findall(r"[-_](nginx|app)[-_]\d+ +Recreate$", plan.stderr, re.MULTILINE)}


def check_nginx(recreated: set[str]) -> None:
    """Test settings, files and certificate in a container of their own, before the old one stops.

    A certificate in a folder may have been replaced by one with which nginx would not start again.
    """
    if "nginx" in recreated or "/" in compose.setting("CERTIFICATES"):
        check("nginx", ["nginx", "nginx", "-e", "stderr", "-t", "-q"])


def check_app(recreated: set[str]) -> None:
    """Load settings and application, as each worker does, before the old container stops."""
    if "app" in recreated:
        # gunicorn ends a worker that takes longer to load than `timeout` (app/gunicorn.conf.py).
        # Not as process 1, as which `timeout` fails.
        command = "timeout --verbose 60 python serve.py --check-config || exit"
        check("the new application", ["app", "sh", "-c", command])


def check(what: str, command: list[str]) -> None:
    """Run a service's command in a container like its own, which receives no requests."""
    trial = run(
        *("docker", "compose", "--progress=quiet", "run", "--rm", "--no-deps", "--no-TTY"),
        *command,
    )
    if trial.returncode:
        show_log(trial.stdout + trial.stderr)
        fail(
            f"{what} would not start, its last words are above; what runs is as it was",
            "fix that, then: make up",
        )


def finish_release() -> None:
    """Let nginx find all containers again, whatever an interrupted `make release` left."""
    run("docker", "compose", "exec", "--no-TTY", "nginx", "upstream")


def wait_for_nginx() -> None:
    """Until nginx has found the application, which may be healthy a second earlier."""
    command = ("docker", "compose", "exec", "--no-TTY", "nginx", "healthcheck", "/application")
    for _ in attempts(20, pause=0.3):
        if not run(*command).returncode:
            return
    fail("nginx does not reach the application", "make ps; make logs")


def print_urls(services: list[str]) -> None:
    nginx = compose.config()["services"]["nginx"]
    port = nginx["environment"]["PUBLIC_PORT"] or nginx["environment"]["HTTPS_PORT"]
    suffix = "" if port == "443" else f":{port}"
    suffix += nginx["environment"]["SCRIPT_NAME"]
    for name in nginx["environment"]["SERVER_NAME"].replace(",", " ").split():
        # .example.org takes in its subdomains.
        say(f"https://{name.removeprefix('.')}{suffix}")
    for name in services:
        for port in compose.config()["services"][name].get("ports", []):
            # Of a service that is published by another, if it is not left out.
            page = port.get("name")
            if page not in compose.config()["services"]:
                page = name
            if name != "nginx" and port.get("host_ip") == "127.0.0.1" and page in services:
                login = compose.config()["services"][page].get("labels", {}).get("login", "")
                say(f"http://127.0.0.1:{port['published']} ({page}){login and ': user '}{login}")
