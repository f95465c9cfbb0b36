"""The stack's secrets, whose names in Swarm end with a hash of what is in them."""

import hashlib
import os
import sys

from scripts import compose
from scripts.compose import ROOT, run
from scripts.messages import fail, say
from scripts.swarm import cluster

SELF_SIGNED = "./secrets/self-signed"


def require_deployed_key() -> None:
    """With a key that was made here every session would end: one is copied, or rotated to.

    After a rotation, or a rollback of one, the deployed key is among the fallbacks.
    """
    app = cluster.services().get("app")
    given = (cluster.template(app)["ContainerSpec"].get("Secrets") or []) if app else []
    deployed = {it["SecretName"][-12:] for it in given if it["File"]["Name"] == "secret_key"}
    files = [ROOT / "secrets/secret_key", ROOT / "secrets/secret_key_fallbacks"]
    key, old = (file.read_bytes() if file.exists() else b"" for file in files)
    lines = old.splitlines()
    if deployed - {digest(text) for text in (key, *lines, *(line + b"\n" for line in lines))}:
        fail(
            f"{cluster.stack_name()} is deployed with a key that is not here: secrets/secret_key",
            "copy the folder secrets from where it was deployed; another key: make rotate there",
        )


def digest(content: bytes) -> str:
    """What the names of Swarm's secrets end with."""
    return hashlib.sha256(content).hexdigest()[:12]


def secret_variables(variables: dict[str, str], nginx: str) -> dict[str, str]:
    """The variables that name the secrets' files, and hashes of what is in them."""
    folder = variables.get("CERTIFICATES") or ""
    if "/" not in folder:
        if not compose.engine_is_local():
            fail("a self-signed pair is made on the engine's machine only", "set CERTIFICATES")
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
            fail(
                f"{file} cannot be read ({error.strerror})",
                "docs/certificates.md" if of_certificate else f"ls -l {file}; make secrets",
            )
        if not content:
            fail(
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


def remove_old_secrets() -> None:
    """Remove the stack's secrets that neither its services nor a rollback of them would use."""
    used = {
        secret["SecretName"]
        for service in cluster.services().values()
        for spec in (service["Spec"], service.get("PreviousSpec") or {})
        for secret in spec.get("TaskTemplate", {}).get("ContainerSpec", {}).get("Secrets") or []
    }
    ours = f"label=com.docker.stack.namespace={cluster.stack_name()}"
    listed = run("docker", "secret", "ls", "--filter", ours, "--format", "{{.Name}}").stdout.split()
    for name in listed:
        # One that a task on its way out still uses goes with the next deploy.
        if name not in used and run("docker", "secret", "rm", name).returncode == 0:
            say(f"removed the secret {name}, which nothing uses any more")
