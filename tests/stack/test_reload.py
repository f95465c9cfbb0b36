"""`make reload`: a replaced certificate is loaded, a broken one refused, and no request lost."""

import re
from pathlib import Path

import pytest
from clone import wait_until
from load import Load
from reloads import loses_nothing, served

KEY = "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /tmp/new.key"
PAIR = {
    "fullchain.pem": f"{KEY} && openssl req -x509 -key /tmp/new.key -subj /CN=localhost -days 30"
    " -addext subjectAltName=DNS:localhost",
    "privkey.pem": "cat /tmp/new.key; rm /tmp/new.key",
}
FOLDER = "/etc/nginx/certificates"


@pytest.fixture
def pair(stack):
    """put(name, content) replaces a file of the served pair; afterwards the first is back."""

    def put(name: str, content: str) -> None:
        stack.execute("nginx", "sh", "-c", f"printf %s '{content}' > {FOLDER}/{name}")

    before = {name: stack.execute("nginx", "cat", f"{FOLDER}/{name}") for name in PAIR}
    yield put
    for name, content in before.items():
        put(name, content)
    stack.make("reload")


def test_a_replaced_certificate_is_loaded(stack, pair):
    new = {name: stack.execute("nginx", "sh", "-c", command) for name, command in PAIR.items()}
    for name, content in new.items():
        pair(name, content)
    stack.make("reload")
    wait_until(lambda: served(stack) == new["fullchain.pem"].strip(), 5, "the new certificate")


def test_a_key_of_another_certificate_is_refused_and_the_old_pair_stays(stack, pair):
    before = served(stack)
    stack.execute("nginx", "sh", "-c", PAIR["fullchain.pem"])
    pair("privkey.pem", stack.execute("nginx", "sh", "-c", PAIR["privkey.pem"]))
    answer = stack.make("reload", check=False)
    assert answer.returncode
    assert "privkey.pem does not belong to" in answer.stderr
    assert served(stack) == before


def test_a_broken_intermediate_certificate_is_refused(stack, pair):
    before = served(stack)
    broken = "-----BEGIN CERTIFICATE-----\nno base64!\n-----END CERTIFICATE-----"
    pair("fullchain.pem", f"{before}\n{broken}\n")
    answer = stack.make("reload", check=False)
    assert answer.returncode
    assert "error: fullchain.pem has a broken certificate -> " in answer.stderr
    assert served(stack) == before


BROKEN = {
    "a setting": lambda stack: stack.write_settings(HSTS="forever"),
    "a file": lambda stack: template(stack).write_text("no_such_directive on;"),
}


def template(stack) -> Path:
    return stack.folder / "nginx/templates/clients.conf.template"


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_make_up_replaces_no_nginx_by_one_that_would_not_start(stack, change):
    settings, file = dict(stack.settings), template(stack).read_text()
    started = stack.inspect("nginx")[0]["State"]["StartedAt"]
    try:
        with Load(stack) as load:
            change(stack)
            answer = stack.make("up", check=False)
            load.carry_on(100)
    finally:
        stack.settings = settings
        stack.write_settings()
        template(stack).write_text(file)
    assert answer.returncode
    assert "error: nginx would not start, its last words are above" in answer.stderr
    # nginx's words, each once: no build output, and not again by the image's own error log.
    shown = re.findall(r"^  \| (?:.*\[emerg\] (?:\d+#\d+: )?)?(.+)", answer.stderr, re.MULTILINE)
    assert 1 <= len(shown) == len({*shown}) <= 2
    assert load.failed == [], load.summary
    assert stack.inspect("nginx")[0]["State"]["StartedAt"] == started


def test_reloads_under_load_lose_no_request(stack):
    loses_nothing(stack, reloads=5)
