"""`make deploy`: from what is committed here to a Swarm that serves it, in the order below.

Ends with 0 only when every task that is wanted runs the new version and is healthy. Otherwise the
old version serves again by then. Add-ons (`make deploy WITH=monitoring`) are judged after the core,
which stays as it is whatever becomes of them.
"""

import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Collection
from pathlib import Path

from scripts import addons, build, compose, doctor, limits, swarm
from scripts.compose import ROOT, last_words, run
from scripts.messages import die, hear_signals, say, show_log

STACK_FILE = "docker-stack.yml"
ENCRYPTED = "docker-stack.encrypted.yml"
# https://docs.docker.com/reference/cli/docker/image/tag/
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
# What to type when an add-on that is wanted cannot be had.
WITHOUT = "make deploy WITH="
SELF_SIGNED = "./secrets/self-signed"
# What goes into the image of nginx beside its folder.
OF_NGINX = ["app/webapp/static"]
# https://github.com/distribution/reference/blob/main/reference.go: after the registry's host
PATH = re.compile(r"[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|__?|-+)[a-z0-9]+)*)*")
# Swarm's secrets have 64 characters: this is left of them by "-certificate-key-" and the hash.
LONGEST_NAME = 64 - 17 - 12


def main() -> None:
    hear_signals()
    prepared = prepare()
    deploy(*prepared[:-1], with_registry=prepared[-1])


def print_environment() -> None:
    """`make deploy-environment`: the variables that `docker stack deploy` needs."""
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
    swarm.require_manager("make release")
    swarm.timeout()
    variables = compose.environment()
    images = variables.get("IMAGES") or swarm.stack_name()
    require_names(swarm.stack_name(), images)
    require_key()
    addon_files = choose_addons()
    require_limits([STACK_FILE, *addon_files], variables)
    core, all_ = services_in(STACK_FILE), services_in(STACK_FILE, *addon_files)
    tags = versions(variables, made_of(all_))
    attached = attestations(variables, pushed=has_registry(f"{images}/app"))
    names = {name: f"{images}/{name}:{tag}" for name, tag in tags.items()}
    left_out = provide(names, variables, attached)
    make_secrets = ["bash", "scripts/secrets.sh", os.environ["COMPOSE_FILE"]]
    if subprocess.run(make_secrets, cwd=ROOT, check=False).returncode:  # noqa: S603
        sys.exit(1)
    variables |= {
        "IMAGES": images,
        **{variable(service, "VERSION"): tag for service, tag in tags.items()},
        **{variable(service, "REPLICAS"): "0" for service in left_out},
        "COMPOSE_PROJECT_NAME": swarm.stack_name(),
        **secrets(variables, f"{images}/nginx:{tags['nginx']}"),
    }
    check_nginx(variables)
    files = [*stack_files(variables), *addon_files]
    tags = {service: tag for service, tag in tags.items() if service not in left_out}
    return core, files, variables, tags, has_registry(f"{images}/app")


def require_names(stack: str, images: str) -> None:
    """Docker would say it after the build, and of something else."""
    name = f"{images}/app"
    path = name.partition("/")[2] if has_registry(name) else name
    if not PATH.fullmatch(path):
        die(
            f"IMAGES: {images!r} begins no name of an image",
            "write lower case, as in IMAGES=registry.example.org/team/site",
        )
    if len(stack) > LONGEST_NAME:
        die(
            f"COMPOSE_PROJECT_NAME: {stack!r} has {len(stack)} characters",
            f"write {LONGEST_NAME} at most; Swarm's names of secrets have 64, and begin with it",
        )


def require_key() -> None:
    """With a key that was made here every session would end: one is copied, or rotated to.

    After a rotation, or a rollback of one, the deployed key is among the fallbacks.
    """
    app = swarm.services().get("app")
    given = (swarm.template(app)["ContainerSpec"].get("Secrets") or []) if app else []
    deployed = {it["SecretName"][-12:] for it in given if it["File"]["Name"] == "secret_key"}
    files = [ROOT / "secrets/secret_key", ROOT / "secrets/secret_key_fallbacks"]
    key, old = (file.read_bytes() if file.exists() else b"" for file in files)
    lines = old.splitlines()
    if deployed - {digest(text) for text in (key, *lines, *(line + b"\n" for line in lines))}:
        die(
            f"{swarm.stack_name()} is deployed with a key that is not here: secrets/secret_key",
            "copy the folder secrets from where it was deployed; another key: make rotate there",
        )


def digest(content: bytes) -> str:
    """What the names of Swarm's secrets end with."""
    return hashlib.sha256(content).hexdigest()[:12]


def choose_addons() -> list[str]:
    """The stack files of the add-ons in WITH; without WITH those that run stay.

    What `make up` remembers is another matter.
    """
    if "WITH" in os.environ:
        names = os.environ["WITH"].split()
    else:
        running = swarm.services()
        names = [name for name, folder in addons.FOLDERS.items() if folder in running]
    files = addons.overlays(names, STACK_FILE, WITHOUT)
    compose.use(addons.compose_files(names, WITHOUT))
    doctor.require([[doctor.programs]])
    places = {name: place(name) for name in names}
    # Another machine cannot be looked at from here.
    if set(places.values()) == {compose.engine_info()["Swarm"]["NodeID"]}:
        doctor.require([[doctor.disk, doctor.memory, doctor.kernel]])
    for name, node in places.items():
        run("docker", "node", "update", "--label-add", f"{name}=true", node)
    return files


def place(addon: str) -> str:
    """The node on which an add-on's data stays: the one with its label, or the only one."""
    listed = run("docker", "node", "ls", "--quiet", "--filter", f"node.label={addon}=true")
    labelled = listed.stdout.split()
    if len(labelled) > 1:
        die(
            f"{len(labelled)} nodes have the label {addon}=true, the add-on's data stays on one",
            f"docker node update --label-rm {addon} NODE",
        )
    nodes = run("docker", "node", "ls", "--quiet").stdout.split()
    if not labelled and len(nodes) > 1:
        this = compose.engine_info()["Name"]
        die(
            f"none of the {len(nodes)} nodes has the label {addon}=true, for the add-on's data",
            f"docker node update --label-add {addon}=true {this}",
        )
    return [*labelled, *nodes][0]


def require_limits(files: list[str], variables: dict[str, str]) -> None:
    """With the stack's own sizes; what is not known yet, such as images' tags, does not matter."""
    texts = (Path(ROOT, file).read_text(encoding="utf-8") for file in files)
    environment = os.environ | variables
    for name in {name for text in texts for name in re.findall(r"\$\{(\w+):\?", text)}:
        environment[name] = environment.get(name) or "unknown"
    named = [f"--file={file}" for file in files]
    command = ["docker", "compose", *named, "config", "--format=json"]
    answer = run(*command, env=environment)
    if answer.returncode:
        die(f"{' '.join(files)}: {last_words(answer)}", "correct .env")
    if found := limits.problem(json.loads(answer.stdout), in_swarm=True):
        die(*found)


def services_in(*files: str) -> set[str]:
    """The names of the services in these stack files."""
    named = [f"--file={file}" for file in files]
    answer = run("docker", "compose", *named, "config", "--no-interpolate", "--services")
    if answer.returncode:
        die(f"{' '.join(files)}: {last_words(answer)}", "fix that")
    return set(answer.stdout.split())


def made_of(services: set[str]) -> dict[str, list[str]]:
    """The folders that go into the images of those of these services that are built here."""
    folders = {
        name: [os.path.relpath(service["build"]["context"], ROOT)]
        for name, service in compose.config()["services"].items()
        if name in services and "build" in service
    }
    folders["nginx"] += OF_NGINX
    return folders


def variable(service: str, of: str) -> str:
    """The stack files' name for this: NODE_EXPORTER_VERSION."""
    return f"{service.replace('-', '_').upper()}_{of}"


def versions(variables: dict[str, str], folders: dict[str, list[str]]) -> dict[str, str]:
    """The image tags: what was asked for, or what git calls the last change of each.

    So a deploy leaves a service alone of which nothing has changed. What is tagged is a release of
    the application, by that name.
    """
    asked = variables.get("APP_VERSION")
    if not asked:
        now = build.git_version()
        if not now:
            die("git does not say which version this is", "make deploy APP_VERSION=1.0")
        if now.endswith("-dirty"):
            die(
                "there are changes that are not committed, so no version would say what runs",
                "git commit, or: make deploy APP_VERSION=NAME",
            )
        paths = [path for paths in folders.values() for path in paths]
        unknown = run("git", "ls-files", "--others", "--exclude-standard", "--", *paths).stdout
        if unknown:
            die(f"{unknown.split()[0]} is not committed, and would be built in", "git add, or rm")
        if run("git", "rev-parse", "--is-shallow-repository").stdout.strip() == "true":
            die("this clone is shallow: git cannot say what changed when", "git fetch --unshallow")
    tags = {
        service: variables.get(variable(service, "VERSION")) or asked or last_change(paths)
        for service, paths in folders.items()
    }
    if not asked:
        release = run("git", "describe", "--tags", "--exact-match").stdout.strip()
        tags["app"] = release or tags["app"]
    for tag in tags.values():
        if tag == "latest" or not TAG.fullmatch(tag):
            die(f"{tag!r} is no version", "make deploy APP_VERSION=1.0")
    return tags


def last_change(paths: list[str]) -> str:
    return run("git", "log", "-1", "--format=%h", "--", *paths).stdout.strip()


def has_registry(images: str) -> bool:
    """By Docker's own rule: a first part with a dot, a colon, or localhost is a host."""
    host, slash, _ = images.partition("/")
    return bool(slash) and ("." in host or ":" in host or host == "localhost")


def attestations(variables: dict[str, str], *, pushed: bool) -> list[str]:
    """What is attached to an image that is pushed: provenance where that works, an SBOM if wanted.

    mode=min, because max publishes the build's arguments: a proxy's password would be among them.
    https://docs.docker.com/build/metadata/attestations/slsa-provenance/
    """
    asked = {name: variables.get(name) or "" for name in ("PROVENANCE", "SBOM")}
    stores = "io.containerd.snapshotter" in str(compose.engine_info().get("DriverStatus"))
    if pushed and stores and "--provenance" in run("docker", "compose", "build", "--help").stdout:
        asked["PROVENANCE"] = asked["PROVENANCE"] or "mode=min"
        return [f"--{name.lower()}={value}" for name, value in asked.items() if value]
    for name, value in asked.items():
        if value not in ("", "false"):
            die(
                f"{name}={value} needs a registry in IMAGES, Compose 2.39, and an engine that keeps"
                " images in containerd",
                f"https://docs.docker.com/engine/storage/containerd/, or {name}=false",
            )
    return []


def provide(
    images: dict[str, str], variables: dict[str, str], attached: Collection[str] = ()
) -> list[str]:
    """Make the images present: a version is built once, pushed, and never built or pushed over.

    Where there is a registry, its image is the version, and not what this machine has by that name.
    Gives back the services that have to be left out, because their base image is out of reach.
    """
    fallback_allowed = variables.get("BASE_IMAGES") == "debian"
    pulled = {service for service, image in images.items() if has_registry(image) and pull(image)}
    absent = {
        service
        for service in images.keys() - pulled
        if run("docker", "image", "inspect", images[service]).returncode
    }
    for service in sorted(images.keys() - absent):
        if variables.get("APP_VERSION") or variables.get(variable(service, "VERSION")):
            say_when_built(images[service])
    if absent:
        doctor.require([[doctor.images]])
    environment = build.environment("debian" if fallback_allowed else "registry") if absent else {}
    left_out = []
    for service, image in images.items():
        if service in absent and not build_image(image, service, environment, attached):
            left_out.append(service)
            continue
        if not fallback_allowed:
            refuse_fallback_image(image)
        if has_registry(image) and service not in pulled:
            push(image)
    return left_out


def say_when_built(image: str) -> None:
    """A name may be given a second time, when what it names is not what is here any more."""
    if build.git_version().endswith("-dirty"):
        die(
            f"{image} is there already, and there are changes that are not committed",
            "git commit, or a name that is new: make deploy APP_VERSION=NAME",
        )
    created = run("docker", "image", "inspect", "--format", "{{.Created}}", image).stdout
    say(f"{image} was built on {created[:10]} and is not built again")


def refuse_fallback_image(image: str) -> None:
    label = '{{index .Config.Labels "org.opencontainers.image.base.name"}}'
    base = run("docker", "image", "inspect", "--format", label, image).stdout.strip()
    if base.startswith("fallback/"):
        die(
            f"{image} is built on the fallback image {base}, which nobody updates",
            "make deploy APP_VERSION=NEW-NAME where a registry of base images is in reach; or,"
            " knowing that: make deploy BASE_IMAGES=debian",
        )


def push(image: str) -> None:
    say(f"pushing {image}")
    answer = run("docker", "push", "--quiet", image)
    if answer.returncode:
        why = last_words(answer)
        die(f"{image} cannot be pushed: {why}", "docker login, or set IMAGES to another place")


def pull(image: str) -> bool:
    """False when the registry does not have it; ends where it could not say."""
    answer = run("docker", "pull", "--quiet", image)
    if answer.returncode and not re.search("not found|unknown|does not exist", answer.stderr):
        why = last_words(answer)
        die(f"{image}: the registry does not say whether it has it: {why}", "docker login")
    return not answer.returncode


def build_image(
    image: str, service: str, environment: dict[str, str], attached: Collection[str]
) -> bool:
    """False for a service that may be left out, and has to be (build.without_image)."""
    if base := build.without_image(environment).get(service):
        say(f"{service} is left out: {base} is out of reach and has no fallback image")
        return False
    say(f"building {image}")
    environment = {**os.environ, **environment, "APP_VERSION": image.rpartition(":")[2]}
    command = ["docker", "compose", "--progress=quiet", "build", *attached, service]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:  # noqa: S603
        die(f"{image} cannot be built, Docker's words are above", "make doctor")
    built = f"{swarm.stack_name()}-{service}"
    if run("docker", "tag", built, image).returncode:
        die(f"Compose did not name its image {built}", "docker images")
    return True


def secrets(variables: dict[str, str], nginx: str) -> dict[str, str]:
    """The variables that name the secrets' files, and hashes of what is in them."""
    folder = variables.get("CERTIFICATES") or ""
    if "/" not in folder:
        if not compose.engine_is_local():
            die("a self-signed pair is made on the engine's machine only", "set CERTIFICATES")
        folder = SELF_SIGNED
        make_certificate(folder, nginx, variables.get("SERVER_NAME") or "localhost")
    config = compose.config()
    given = {
        secret["source"]
        for service in config["services"].values()
        for secret in service.get("secrets", [])
    }
    files = {
        f"{name.upper()}_HASH": os.path.relpath(secret["file"], ROOT)
        for name, secret in config["secrets"].items()
        if name in given and "file" in secret
    }
    files["CERTIFICATE_HASH"] = f"{folder}/fullchain.pem"
    files["CERTIFICATE_KEY_HASH"] = f"{folder}/privkey.pem"
    hashes = {}
    for name, file in files.items():
        of_certificate = name.startswith("CERTIFICATE_")
        try:
            content = (ROOT / file).read_bytes()
        except OSError as error:
            die(
                f"{file} cannot be read ({error.strerror})",
                "docs/certificates.md" if of_certificate else f"ls -l {file}; make secrets",
            )
        if not content:
            die(
                f"{file} is empty, and Swarm has no empty secrets",
                "docs/certificates.md" if of_certificate else f"echo > {file}",
            )
        hashes[name] = digest(content)
    return {"CERTIFICATES": folder, **hashes}


def make_certificate(folder: str, nginx: str, names: str) -> None:
    """A self-signed pair, made by what makes it in Compose, and kept beside the other secrets."""
    (ROOT / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    answer = run(
        *("docker", "run", "--rm", f"--user={os.getuid()}:{os.getgid()}", "--network=none"),
        f"--env=SERVER_NAME={' '.join(names.replace(',', ' ').lower().split())}",
        f"--volume={(ROOT / folder).resolve()}:/etc/nginx/certificates",
        "--entrypoint=/docker-entrypoint.d/15-self-signed-certificate.sh",
        nginx,
    )
    sys.stderr.write(answer.stderr)
    if answer.returncode:
        sys.exit(1)


def check_nginx(variables: dict[str, str]) -> None:
    """Let the image try whether it starts with these settings and this certificate.

    Swarm stops the old nginx first, which on a single node is the only one.
    """
    command = ["docker", "compose", f"--file={STACK_FILE}", "config", "--format=json"]
    answer = run(*command, env={**os.environ, **variables})
    if answer.returncode:
        die(f"{STACK_FILE}: {last_words(answer)}", "fix .env")
    stack = json.loads(answer.stdout)
    nginx = stack["services"]["nginx"]
    settings = [f"--env={name}={value}" for name, value in nginx["environment"].items()]
    test = ["nginx", "-e", "stderr", "-t", "-q"]
    create = ["docker", "create", "--network=none", *settings, nginx["image"], *test]
    container = run(*create).stdout.strip()
    try:
        for secret in nginx["secrets"]:
            file = (ROOT / stack["secrets"][secret["source"]]["file"]).read_bytes()
            put = ["docker", "cp", "-", f"{container}:/"]
            subprocess.run(put, input=archive(secret["target"], file), check=True)  # noqa: S603
        answer = run("docker", "start", "--attach", container)
    finally:
        run("docker", "rm", "--force", container)
    if answer.returncode:
        show_log(answer.stdout + answer.stderr)
        die("nginx would not start, its last words are above", "fix that, then: make deploy")


def archive(path: str, content: bytes) -> bytes:
    """The file as a tar, for nginx's user alone, as docker-stack.yml has it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size, member.uid, member.mode = len(content), 101, 0o400
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def deploy(
    core: set[str],
    files: list[str],
    variables: dict[str, str],
    tags: dict[str, str],
    *,
    with_registry: bool,
) -> None:
    timeout = swarm.timeout()
    stack, before, known = swarm.stack_name(), swarm.services(), swarm.known()
    if not with_registry and swarm.nodes() > 1:
        say("note: IMAGES names no registry, so each node has to have the images already")
    swarm.require_no_update(before)
    say(f"deploying {stack}: {words(tags)}")
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
            raise swarm.NotServingError(f"docker stack deploy: {last_words(answer)}")
        now = swarm.services()
        monitor = max(map(swarm.monitor, now.values()))
        # For new tasks of an old version, and for a first one, Swarm has no update to watch.
        unwatched = [
            name
            for name, service in now.items()
            if name not in before or service["Spec"]["Mode"] != before[name]["Spec"]["Mode"]
        ]
        hold = monitor if unwatched else 0
        swarm.wait(timeout + monitor, hold, known, allowed=set(), of=core)
        require_versions({name: tag for name, tag in tags.items() if name in core})
        swarm.remove_old_secrets()
        serves = serving(core)
        say(f"{stack} serves {serves}")
    except swarm.NotServingError as failure:
        give_up(failure, core, before, known)
    except KeyboardInterrupt:
        die("not waiting any more; Swarm goes on by itself", "make status, make rollback")
    if of_addons := now.keys() - core:
        # The core serves whatever becomes of these, which Swarm alone brings back.
        try:
            swarm.wait(timeout + monitor, 0, known, allowed=set(), of=of_addons)
        except swarm.NotServingError as failure:
            swarm.show_last_failure(known)
            die(f"{failure}; {serves} serve all the same", "make status")
        say(f"beside them run {serving(of_addons & tags.keys())}")


def stack_files(variables: dict[str, str]) -> list[str]:
    encryption = variables.get("OVERLAY_ENCRYPTION") or "false"
    if encryption not in ("true", "false"):
        die(f"OVERLAY_ENCRYPTION: {encryption!r} is neither true nor false", "fix .env")
    network = f"{swarm.stack_name()}_backend"
    options = run("docker", "network", "inspect", "--format", "{{json .Options}}", network)
    if not options.returncode and ('"encrypted"' in options.stdout) != (encryption == "true"):
        # Swarm would leave it as it is, without a word.
        die(
            f"OVERLAY_ENCRYPTION={encryption}, but the network {network} was made otherwise",
            "make undeploy && make deploy",
        )
    return [STACK_FILE, *([ENCRYPTED] if encryption == "true" else [])]


def require_versions(tags: dict[str, str]) -> None:
    """What is settled has to be what was handed in, and not what somebody else did meanwhile."""
    if serving(tags) != words(tags):
        die(f"somebody else has deployed meanwhile: {serving(tags)} serves", "make status")


def words(tags: dict[str, str]) -> str:
    """Services and their versions, as 'app 1.1, nginx 1.0'."""
    return ", ".join(f"{name} {tag}" for name, tag in sorted(tags.items()))


def serving(services: Collection[str]) -> str:
    """The versions of these services, as the Swarm has them."""
    found = swarm.services().items()
    return words(
        {name: swarm.version(swarm.template(it)) for name, it in found if name in services}
    )


def give_up(
    failure: swarm.NotServingError, core: set[str], before: dict, known: frozenset[str]
) -> None:
    """Bring the core back to what it was, and end with a line that says so."""
    swarm.show_last_failure(known)
    if not before:
        die(f"{failure}; there is no version before it", "make status, make undeploy")
    now = swarm.services()
    changed = [
        name
        for name, service in before.items()
        if name in core
        and name in now
        and swarm.without_empty(now[name]["Spec"]) != swarm.without_empty(service["Spec"])
    ]
    try:
        swarm.roll_back(changed, swarm.ROLLBACK_WITHIN, of=core)
    except swarm.NotServingError as second:
        die(f"{failure}; and the old version did not come back: {second}", "make status")
    serves = serving(core)
    die(f"{failure}; what served before serves again: {serves}", "fix it, then: make deploy")
