"""What public scanners say of the running stack: nothing of medium severity or worse.

Except for what is listed here, each with its reason.
"""

import json

import pytest
from clone import ROOT

# testssl.sh: finding -> why it may be there
TLS_EXPLAINED = {
    # No list of revoked certificates can name the issuer of a self-signed one.
    "cert_revocation": "Neither CRL nor OCSP URI provided",
    # Any compressed page gives this. nginx/templates/compression.conf.template says why it is on.
    "BREACH": "gzip HTTP compression detected",
}

# drHEADer: header -> why its rule does not hold here
HEADERS_EXPLAINED = {
    "Cache-Control": "wants no-store on every answer; pages decide, and personal ones have it",
    "Pragma": "HTTP/1.0; deprecated by RFC 9111, 5.4",
    "Server": "nginx cannot leave it out, and names no version",
    "X-XSS-Protection": "a filter that browsers have removed",
}

HEADERS = """
import json, sys
from drheader import Drheader
print(json.dumps([
    {"url": url, **finding}
    for url in sys.argv[1:]
    for finding in Drheader(url=url, verify="/ca.pem").analyze()
]))
"""


@pytest.fixture(scope="module")
def scan(stack, tmp_path_factory):
    """scan(COMMAND…): its output, run beside the stack, whose certificate is /ca.pem there.

    With HSTS, which a site in production has.
    """
    certificate = tmp_path_factory.mktemp("certificate") / "ca.pem"
    certificate.write_text(stack.certificate)
    certificate.chmod(0o644)
    certificate.parent.chmod(0o755)
    hsts = "max-age=31536000; includeSubDomains"
    with (
        stack.changed(SERVER_NAME=".localhost", HSTS=hsts),
        stack.image(ROOT / "tests/soak/scanners") as image,
    ):
        certificate.write_text(stack.certificate)

        def run(*command: str) -> str:
            return stack.run(
                *("docker", "run", "--rm", "--network", "host"),
                *("--volume", f"{certificate}:/ca.pem:ro", image, *command),
            ).stdout

        yield run


def test_testssl_finds_nothing_of_medium_severity(stack, scan):
    # Everything but which old clients could connect, which takes as long again.
    command = "testssl --quiet --warnings batch --nodns min --add-ca /ca.pem --jsonfile /tmp/found"
    command += " --protocols --std --forward-secrecy --server-defaults --headers --vulnerable"
    found = json.loads(
        scan("sh", "-c", f"{command} localhost:{stack.https_port} >&2; cat /tmp/found")
    )
    by_severity = {
        finding["id"]: finding
        for finding in found
        if finding["severity"] in ("MEDIUM", "HIGH", "CRITICAL", "FATAL")
    }
    for name, text in TLS_EXPLAINED.items():
        assert text in by_severity.pop(name)["finding"]
    assert by_severity == {}
    # It has looked.
    assert {finding["id"]: finding["finding"] for finding in found}["TLS1_3"].startswith("offered")


def test_drheader_finds_nothing_of_medium_severity(stack, scan):
    paths = ("/", "/api/request", "/nowhere", "/metrics", stack.style_sheet())
    urls = [f"{stack.url}{path}" for path in paths]
    found = json.loads(scan("/opt/venv/bin/python", "-W", "ignore", "-c", HEADERS, *urls))
    assert {finding["rule"] for finding in found} == set(HEADERS_EXPLAINED), found
    assert len(found) > len(urls)
