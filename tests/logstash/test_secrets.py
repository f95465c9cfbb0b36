"""The certificates that scripts/secrets.sh makes, by what Python's TLS takes, and their renewal."""

import contextlib
import os
import re
import shutil
import ssl
import time
from pathlib import Path

import pytest
from clone import Clone
from dialects import read

SECRETS = read("logstash/docker-compose.yml")["secrets"]


@pytest.fixture
def clone(tmp_path):
    clone = Clone(tmp_path / "clone")
    clone.make("secrets")
    return clone


def server(clone: Clone, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = [clone.folder / f"secrets/{name}_certificate{kind}" for kind in ("", "_key")]
    context.load_cert_chain(*files)
    return context


def handshake(clone: Clone, server: ssl.SSLContext, name: str) -> dict:
    """A client's with a server, in memory: what it knows of the server by then."""
    # As strict as Python can be, also where it is not by default (before 3.13).
    context = ssl.create_default_context(cafile=clone.folder / "secrets/logging_ca")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(back, there, server_hostname=name)
    other = server.wrap_bio(there, back, server_side=True)
    while True:
        try:
            client.do_handshake()
            return client.getpeercert()
        except ssl.SSLWantReadError:
            with contextlib.suppress(ssl.SSLWantReadError):
                other.do_handshake()


def test_all_that_the_addon_names_are_made_and_readable_in_the_containers(clone):
    for secret in SECRETS.values():
        file = clone.folder / secret["file"]
        assert file.stat().st_mode & 0o777 == 0o644
        assert file.read_text().strip()
    passwords = [clone.folder / f"secrets/{name}" for name in SECRETS if "certif" not in name]
    assert len({file.read_text() for file in passwords}) == len(passwords)


@pytest.mark.parametrize("name", ["elasticsearch", "logstash"])
def test_a_service_is_known_by_its_certificate_and_no_other_is(clone, name):
    years = (ends(handshake(clone, server(clone, name), name)) - time.time()) / 86400 / 365
    assert 1.99 < years < 2.01
    handshake(clone, server(clone, name), "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(clone, server(clone, name), "kibana")
    # PKCS#8, without which Logstash's input does not take it.
    key = clone.folder / f"secrets/{name}_certificate_key"
    assert key.read_text().startswith("-----BEGIN PRIVATE KEY-----")


def ends(certificate: dict) -> float:
    return ssl.cert_time_to_seconds(certificate["notAfter"])


def test_a_certificate_is_renewed_when_it_is_removed_and_the_rest_stays(clone):
    old = server(clone, "logstash")
    before = contents(clone)
    (clone.folder / "secrets/logstash_certificate").unlink()
    assert "made secrets/logstash_certificate" in clone.make("secrets").stdout
    after = contents(clone)
    assert {name for name in before if after[name] != before[name]} == {
        "logstash_certificate",
        ".made",
    }
    handshake(clone, server(clone, "logstash"), "logstash")
    for name in ("logging_ca", "logging_ca_key", "logstash_certificate"):
        (clone.folder / "secrets" / name).unlink()
    clone.make("secrets")
    handshake(clone, server(clone, "logstash"), "logstash")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(clone, old, "logstash")
    clone.make("clean")
    assert not (clone.folder / "secrets").exists()


def contents(clone: Clone) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (clone.folder / "secrets").iterdir()}


@pytest.mark.parametrize(
    ("name", "days"), [("logstash_certificate", "730"), ("logging_ca", "3650")]
)
def test_it_is_said_before_one_ends(clone, name, days):
    """With the date, which may be past; of the authority, too."""
    script = clone.folder / "scripts/secrets.sh"
    assert "README" not in clone.make("secrets").stdout
    (clone.folder / "secrets" / name).unlink()
    script.write_text(script.read_text().replace(f"-days {days}", "-days 29"))
    end = time.strftime("%b", time.gmtime(time.time() + 29 * 86400))
    said = clone.make("secrets").stdout
    assert re.search(rf"secrets/{name} ends on {end} .* GMT: logstash/README.md says how to", said)


def test_without_the_key_of_the_authority_nothing_is_signed_anew(clone):
    """It may be kept elsewhere."""
    (clone.folder / "secrets/logging_ca_key").unlink()
    assert clone.make("secrets").stdout == ""
    (clone.folder / "secrets/logstash_certificate").unlink()
    answer = clone.make("secrets", check=False)
    assert "error: openssl made no certificate for logstash" in answer.stderr


# What OpenSSL 1.1.1 and LibreSSL make: what they are not asked for is not in it, or as their own
# configuration has it.
OLD_OPENSSL = """#!/bin/bash
arguments=()
for word; do
  if [[ $last == -extfile ]]; then
    extensions=$(cat "$word")
    for name in subjectKeyIdentifier authorityKeyIdentifier; do
      [[ $extensions == *"$name"* ]] || extensions+=$'\\n'$name=none
    done
    echo "$extensions" >"$0.extensions"
    word=$0.extensions
  fi
  arguments+=("$word")
  last=$word
done
if [[ $1 == req && " $* " != *" -config "* ]]; then
  printf '%s\\n' '[req]' distinguished_name=name x509_extensions=v3_ca '[name]' '[v3_ca]' \
    subjectKeyIdentifier=hash basicConstraints=CA:true >"$0.configuration"
  arguments+=(-config "$0.configuration")
fi
exec OPENSSL "${arguments[@]}"
"""


def test_an_old_openssl_makes_certificates_that_python_takes(tmp_path):
    clone, tools = Clone(tmp_path / "clone"), tmp_path / "bin"
    tools.mkdir()
    (tools / "openssl").write_text(OLD_OPENSSL.replace("OPENSSL", shutil.which("openssl")))
    (tools / "openssl").chmod(0o755)
    clone.make("secrets", PATH=f"{tools}:{os.environ['PATH']}")
    for name in ("elasticsearch", "logstash"):
        handshake(clone, server(clone, name), name)


def test_who_has_no_openssl_has_the_core_all_the_same(tmp_path):
    clone, tools = Clone(tmp_path / "clone"), tmp_path / "bin"
    tools.mkdir()
    for name in re.findall(r"\w+", "bash make python3 dirname mkdir chmod mv sha256sum sed env sh"):
        (tools / name).symlink_to(Path(shutil.which(name)).resolve())
    said = clone.make("secrets", PATH=str(tools)).stdout
    assert "made secrets/secret_key" in said
    assert "certificate" not in said
