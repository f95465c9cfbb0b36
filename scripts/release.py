"""`make release`: a new version of the application on one host, without losing a request.

New containers start beside the old ones. When all are ready, nginx sends requests to them alone,
and only then the old ones are stopped: one that is told to stop closes its kept-alive connections,
and a POST that is just coming in on one of them would be lost. When they do not become ready, they
go and the old ones stay. `make release-rollback` does the same with the image of before; settings
stay.

nginx itself is not replaced: new static files come from the application until the next `make up`.
"""

import os
import signal
import subprocess
from contextlib import suppress

from scripts import build, compose, containers, doctor
from scripts.compose import ROOT, last_error_line, run
from scripts.containers import inspect, settings
from scripts.messages import fail, handle_signals, say, show_log
from scripts.polling import attempts

READY_WITHIN = 120  # seconds


def back() -> None:
    """`make release-rollback`"""
    main(back=True)


def main(*, back: bool = False) -> None:
    handle_signals()
    # The way back takes neither a registry nor space on the disk.
    doctor.require(doctor.BEFORE_START if back else doctor.GROUPS)
    old, nginx = app_containers(), containers.ids(service="nginx")
    if not old or not nginx:
        fail("the stack is not running, so there is nothing to replace", "make up")
    wanted = compose.config()["services"]["app"].get("scale", 1)
    if not wanted:
        fail("APP_REPLICAS=0 leaves nobody to serve", "fix .env")
    require_same_settings(nginx[0])
    # Compose would start again what an interrupted release has left, and count it in.
    run("docker", "compose", "rm", "--force", "app")
    image = app_image()
    before = inspect(old)[0]
    if back:
        restore_previous(image)
    else:
        tag_running(before["Image"])
        build_new(image)
    if len(old) == wanted and is_this_version(old, image):
        set_upstream([])
        say("this version is running already")
        return
    switch(old, wanted, image, before["Image"], back)
    now = inspect(app_containers())[0]
    now, then = (settings(it)["APP_VERSION"] for it in (now, before))
    say(f"released {now} in place of {then}")


def app_containers(*options: str) -> list[str]:
    return containers.ids(*options, service="app")


def require_same_settings(nginx: str) -> None:
    """Of what both have to agree on: nginx, which stays, would pass on what new ones refuse.

    They would be ready all the same: /readyz is spared the check of the host name.
    """
    if changed := compose.changed_networks():
        fail(f"the network {changed[0]} is to change", "make up")
    services = compose.config()["services"]
    its, running = services["nginx"]["environment"], settings(inspect([nginx])[0])
    for name in its.keys() & services["app"]["environment"].keys():
        if running.get(name) != its[name]:
            fail(f"nginx runs with another {name}", "make up")


def build_new(image: str) -> None:
    """Build the image, under the name by which Compose finds it."""
    os.environ.update(build.environment())
    command = ["docker", "compose", "build", "app"]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:  # noqa: S603
        fail("the application cannot be built, Docker's words are above", "make doctor")


def restore_previous(image: str) -> None:
    """Give the image of before that name."""
    if run("docker", "tag", f"{image}:previous", image).returncode:
        fail(
            "no earlier version is kept: only one is, and a release-rollback uses it up",
            "git checkout VERSION && make release",
        )


def is_this_version(old: list[str], image: str) -> bool:
    """Do all of them run the image, the settings and the secrets that new ones would?"""
    hash_ = run("docker", "compose", "config", "--hash", "app").stdout.split()[-1]
    return not containers.with_old_secrets(old) and all(
        container["Image"] == id_of(image)
        and container["Config"]["Labels"]["com.docker.compose.config-hash"] == hash_
        for container in inspect(old)
    )


def app_image() -> str:
    """The name that Compose gives to what it builds."""
    return f"{compose.config()['name']}-app"


def id_of(image: str) -> str:
    return run("docker", "image", "inspect", "--format", "{{.Id}}", image).stdout.strip()


def tag_running(old_image: str) -> None:
    """Name what runs before a build takes its name: images in containerd are gone without one."""
    run("docker", "tag", old_image, f"{app_image()}:running")


def tag_previous(old_image: str, back: bool = False) -> None:
    """Keep what ran for `make release-rollback`, if something else runs now.

    Not after a rollback: the next would lead forward again.
    """
    if back:
        run("docker", "rmi", f"{app_image()}:previous")
    elif old_image != id_of(app_image()):
        run("docker", "tag", f"{app_image()}:running", f"{app_image()}:previous")
    run("docker", "rmi", f"{app_image()}:running")


def switch(old: list[str], wanted: int, image: str, old_image: str, back: bool = False) -> None:
    say(f"starting {wanted} beside {len(old)}")
    try:
        # The new ones are in Docker's DNS from their first moment on.
        set_upstream(old)
        up = run(
            *("docker", "compose", "up", "--detach", "--no-build", "--no-deps", "--no-recreate"),
            *("--scale", f"app={len(old) + wanted}", "app"),
        )
        new = [container for container in app_containers() if container not in old]
        problem = last_error_line(up) if up.returncode else wait_until_ready(new, image, wanted)
        if problem:
            fail(f"{problem}; the old version serves as before", "fix it, then: make release")
        set_upstream(new)
        purge()
    except BaseException as error:
        # Back to how it was. Nginx may have changed over already, so that comes first.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # Without nginx the rest is done all the same, and said is what went wrong first.
        with suppress(SystemExit):
            set_upstream(old)
            purge()
        new = [container for container in app_containers("--all") if container not in old]
        if new:
            run("docker", "rm", "--force", *new)
        run("docker", "tag", old_image, image)
        with suppress(SystemExit):
            set_upstream([])
        if isinstance(error, KeyboardInterrupt):
            fail("interrupted; the old version serves as before", "make release")
        raise
    tag_previous(old_image, back)
    say("they serve; stopping those of before")
    run("docker", "stop", *old)
    run("docker", "rm", *old)
    set_upstream([])


def wait_until_ready(new: list[str], image: str, wanted: int) -> str:
    """Empty when all are healthy; otherwise what is wrong, after their last lines."""
    images = [container["Image"] for container in inspect(new)]
    if len(images) < wanted or {*images} != {id_of(image)}:
        return "Compose did not start the new version"
    for _ in attempts(READY_WITHIN, pause=0.3):
        states = {container["Id"]: container["State"] for container in inspect(new)}
        if len(states) < len(new):
            return "a container of the new version was removed meanwhile"
        waiting = [name for name, state in states.items() if state["Health"]["Status"] != "healthy"]
        if not waiting:
            return ""
        failed = [
            name
            for name in waiting
            if states[name]["Health"]["Status"] == "unhealthy"
            or states[name]["Status"] == "restarting"
        ]
        if failed:
            break
    show_last_lines([*failed, *waiting][0])
    return "the new version does not become ready, its last lines are above"


def show_last_lines(container: str) -> None:
    logs = run("docker", "logs", "--tail", "50", container)
    health = inspect([container])[0]["State"]["Health"]["Log"] or [{"Output": ""}]
    show_log(logs.stdout + logs.stderr + health[-1]["Output"])


def set_upstream(some: list[str]) -> None:
    """Let nginx send requests to these containers only; to all that there are when empty."""
    addresses = [
        network["IPAddress"]
        for container in (inspect(some) if some else [])
        for name, network in container["NetworkSettings"]["Networks"].items()
        # One that is just restarting has none.
        if name.endswith("_backend") and network["IPAddress"]
    ]
    answer = run("docker", "compose", "exec", "--no-TTY", "nginx", "upstream", *addresses)
    if answer.returncode:
        fail(f"nginx: {last_error_line(answer)}", "make ps; make logs")


def purge() -> None:
    """Let nginx drop the pages of the other version, so that visitors see the switch at once."""
    answer = run("docker", "compose", "exec", "--no-TTY", "nginx", "purge")
    if answer.returncode:
        say(f"nginx may give out old pages for a minute: {last_error_line(answer)}")
