"""`make reload`: a replaced certificate is loaded, a broken one refused, and no request lost."""

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from clone import wait_until

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


def served(stack) -> str:
    return ssl.get_server_certificate(("localhost", stack.https_port)).strip()


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


def test_a_broken_configuration_is_refused_and_the_old_one_stays(stack, client):
    file = "/etc/nginx/conf.d/zz-broken"
    copy = "cp /etc/nginx/conf.d/clients.conf /tmp/clients.conf"
    stack.execute(
        "nginx",
        "sh",
        "-c",
        f"{copy}; echo 'no_such_directive on;' >> {file}; "
        f"cat {file} >> /etc/nginx/conf.d/clients.conf",
    )
    try:
        answer = stack.make("reload", check=False)
        assert answer.returncode
        assert "no_such_directive" in answer.stderr
        assert client.get("/diagnostics/hello").status_code == 200
    finally:
        restore = f"cat /tmp/clients.conf > /etc/nginx/conf.d/clients.conf; rm {file}"
        stack.execute("nginx", "sh", "-c", restore)
        stack.make("reload")


@pytest.fixture
def unlimited(stack):
    """The stack with limits that four busy clients do not reach."""
    limits = {"RATE_LIMIT": "100000", "RATE_BURST": "1000"}
    stack.write_settings(**limits)
    try:
        stack.make("up")
        yield stack
    finally:
        for name in limits:
            del stack.settings[name]
        stack.write_settings()
        stack.make("up")


def test_reloads_under_load_lose_no_request(unlimited):
    """POSTs, which neither nginx nor the client repeats, over kept-alive connections."""
    stack = unlimited
    stop = threading.Event()

    def load(number: int) -> tuple[int, list[str]]:
        sent, failed = 0, []
        with stack.client() as client:
            while not stop.is_set():
                sent += 1
                try:
                    answer = client.post("/diagnostics/echo", content=f"{number}-{sent}")
                    if answer.status_code != 200:
                        failed.append(str(answer.status_code))
                except Exception as error:
                    failed.append(repr(error))
        return sent, failed

    def workers() -> int:
        return stack.run("docker", "top", stack.containers("nginx")[0]).stdout.count("worker")

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(load, number) for number in range(4)]
        try:
            for _ in range(30):
                # Replaced workers stay for a while, and pids_limit counts them.
                wait_until(lambda: workers() < 40, 60, "replaced workers to end")
                stack.execute("nginx", "reload")
        finally:
            stop.set()
        results = [load.result() for load in loads]
    assert [failed for _, failed in results] == [[]] * 4
    assert sum(sent for sent, _ in results) > 1000
