"""A headless Chromium in a container, which trusts one stack only."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import playwright
import pytest
from clone import ROOT, Clone, wait_until
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from playwright.sync_api import Browser, sync_playwright


@contextmanager
def chromium(stack: Clone, folder: Path) -> Iterator[Browser]:
    """Not on this machine's network: whenever a bridge comes or goes there, as tests beside make
    them, Chromium ends what it is loading (ERR_NETWORK_CHANGED).

    Playwright's driver, a Node.js whose libraries a bare machine lacks, runs in there as well.
    """
    container = f"{stack.name}-browser"
    key = x509.load_pem_x509_certificate(stack.certificate.encode()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pin = base64.b64encode(hashlib.sha256(spki).digest()).decode()
    port = 9222
    driver = Path(playwright.__file__).parent / "driver"
    node = folder / "node"
    node.write_text(f'#!/bin/sh\nexec docker exec --interactive {container} "{driver}/node" "$@"\n')
    node.chmod(0o755)
    with stack.image(ROOT / "tests/browser_image") as image:
        stack.run(
            *("docker", "run", "--detach", "--rm", "--name", container),
            f"--network={stack.name}_edge",
            *("--volume", f"{driver}:{driver}:ro", image),
            *(f"--remote-debugging-port={port}", "--user-data-dir=/tmp/profile"),
            f"--ignore-certificate-errors-spki-list={pin}",
            f"--host-resolver-rules=MAP localhost:{stack.https_port} nginx:8443",
        )
        try:
            listens = ("docker", "logs", container)
            wait_until(
                lambda: "DevTools listening" in stack.run(*listens).stderr, 30, "the browser"
            )
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("PLAYWRIGHT_NODEJS_PATH", str(node))
                with sync_playwright() as started:
                    yield started.chromium.connect_over_cdp(f"http://127.0.0.1:{port}")
        finally:
            stack.run("docker", "rm", "--force", container)
