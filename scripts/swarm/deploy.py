"""`make swarm-deploy`: from what is committed here to a Swarm that serves it, in the order below.

Ends with 0 only when every task that is wanted runs the new version and is healthy. Otherwise the
old version serves again by then. Add-ons (`make swarm-deploy WITH=monitoring`) are judged after the
core, which stays as it is whatever becomes of them.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from scripts import compose, doctor
from scripts.compose import ROOT, last_error_line, run
from scripts.messages import fail, handle_signals, say
from scripts.swarm import addons, cluster, convergence, images, secrets, specs, stack_file, versions
from scripts.swarm.convergence import NotServingError


def main() -> None:
    handle_signals()
    prepared = prepare()
    deploy(*prepared[:-1], with_registry=prepared[-1])


def print_environment() -> None:
    """`make swarm-deploy-environment`: the variables that `docker stack deploy` needs."""
    handle_signals()
    with os.fdopen(os.dup(1), "w") as output:
        # What is said on the way, by Docker too, is not part of it.
        os.dup2(2, 1)
        _, files, variables, *_ = prepare()
        text = "".join(Path(ROOT, file).read_text(encoding="utf-8") for file in files)
        for name in sorted({*re.findall(r"\$\{(\w+)", text)} & variables.keys()):
            print(f"export {name}={shlex.quote(variables[name])}", file=output)


def prepare() -> tuple[set[str], list[str], dict[str, str], dict[str, str], bool]:
    """All that comes before Swarm has anything to do: the arguments of deploy()."""
    doctor.require(doctor.BEFORE_BUILD)
    cluster.require_manager("make release")
    cluster.timeout()
    variables = compose.environment()
    prefix = variables.get("IMAGES") or cluster.stack_name()
    versions.require_names(cluster.stack_name(), prefix)
    secrets.require_deployed_key()
    addon_files = addons.choose_addons()
    stack_file.require_limits([stack_file.STACK_FILE, *addon_files], variables)
    core = stack_file.services_in(stack_file.STACK_FILE)
    all_ = stack_file.services_in(stack_file.STACK_FILE, *addon_files)
    tags = versions.image_tags(variables, versions.build_paths(all_))
    attached = images.attestations(variables, pushed=versions.has_registry(f"{prefix}/app"))
    names = {name: f"{prefix}/{name}:{tag}" for name, tag in tags.items()}
    left_out = images.ensure_images(names, variables, attached)
    make_secrets = ["bash", "scripts/secrets.sh", os.environ["COMPOSE_FILE"]]
    if subprocess.run(make_secrets, cwd=ROOT, check=False).returncode:  # noqa: S603
        sys.exit(1)
    variables |= {
        "IMAGES": prefix,
        **{versions.variable_name(service, "VERSION"): tag for service, tag in tags.items()},
        **{versions.variable_name(service, "REPLICAS"): "0" for service in left_out},
        "COMPOSE_PROJECT_NAME": cluster.stack_name(),
        **secrets.secret_variables(variables, f"{prefix}/nginx:{tags['nginx']}"),
    }
    stack_file.check_nginx(variables)
    files = [*stack_file.stack_files(variables), *addon_files]
    tags = {service: tag for service, tag in tags.items() if service not in left_out}
    return core, files, variables, tags, versions.has_registry(f"{prefix}/app")


def deploy(
    core: set[str],
    files: list[str],
    variables: dict[str, str],
    tags: dict[str, str],
    *,
    with_registry: bool,
) -> None:
    timeout = cluster.timeout()
    stack, before, known = cluster.stack_name(), cluster.services(), convergence.snapshot_ids()
    if not with_registry and cluster.nodes() > 1:
        say("note: IMAGES names no registry, so each node has to have the images already")
    specs.require_no_update(before)
    say(f"deploying {stack}: {cluster.format_versions(tags)}")
    command = [
        *("docker", "stack", "deploy", "--prune"),
        *(f"--compose-file={file}" for file in files),
        # Without a registry nobody could be asked what a tag stands for.
        f"--resolve-image={'always' if with_registry else 'never'}",
        "--with-registry-auth",
        stack,
    ]
    try:
        answer = run(*command, env={**os.environ, **variables})
        if answer.returncode:
            # Perhaps half-way: it updates one service after the other.
            raise NotServingError(f"docker stack deploy: {last_error_line(answer)}")
        now = cluster.services()
        monitor = max(map(cluster.monitor, now.values()))
        # For new tasks of an old version, and for a first one, Swarm has no update to watch.
        unwatched = [
            name
            for name, service in now.items()
            if name not in before or service["Spec"]["Mode"] != before[name]["Spec"]["Mode"]
        ]
        hold = monitor if unwatched else 0
        convergence.wait_converged(timeout + monitor, hold, known, allowed=set(), of=core)
        require_own_versions({name: tag for name, tag in tags.items() if name in core})
        secrets.remove_old_secrets()
        serves = cluster.serving_versions(core)
        say(f"{stack} serves {serves}")
    except NotServingError as failure:
        roll_back_core(failure, core, before, known)
    except KeyboardInterrupt:
        fail(
            "not waiting any more; Swarm goes on by itself",
            "make swarm-status, make swarm-rollback",
        )
    if of_addons := now.keys() - core:
        # The core serves whatever becomes of these, which Swarm alone brings back.
        try:
            convergence.wait_converged(timeout + monitor, 0, known, allowed=set(), of=of_addons)
        except NotServingError as failure:
            convergence.show_last_failure(known)
            fail(f"{failure}; {serves} serve all the same", "make swarm-status")
        say(f"beside them run {cluster.serving_versions(of_addons & tags.keys())}")


def require_own_versions(tags: dict[str, str]) -> None:
    """What is settled has to be what was handed in, and not what somebody else did meanwhile."""
    if cluster.serving_versions(tags) != cluster.format_versions(tags):
        fail(
            f"somebody else has deployed meanwhile: {cluster.serving_versions(tags)} serves",
            "make swarm-status",
        )


def roll_back_core(
    failure: NotServingError, core: set[str], before: dict, known: frozenset[str]
) -> None:
    """Bring the core back to what it was, and end with a line that says so."""
    convergence.show_last_failure(known)
    if not before:
        fail(f"{failure}; there is no version before it", "make swarm-status, make swarm-undeploy")
    now = cluster.services()
    changed = [
        name
        for name, service in before.items()
        if name in core
        and name in now
        and specs.drop_empty(now[name]["Spec"]) != specs.drop_empty(service["Spec"])
    ]
    try:
        convergence.roll_back(changed, convergence.ROLLBACK_WITHIN, of=core)
    except NotServingError as second:
        fail(f"{failure}; and the old version did not come back: {second}", "make swarm-status")
    serves = cluster.serving_versions(core)
    fail(f"{failure}; what served before serves again: {serves}", "fix it, then: make swarm-deploy")
