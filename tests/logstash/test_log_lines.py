"""Log lines of the running stack on their way to a real receiver that fails in every way: no
request notices, and every line arrives or is counted, and is brought back by `make replay`.
"""

import pytest
import receiver as receivers
from clone import wait_until
from load import Load
from shipped import moment


@pytest.fixture(autouse=True)
def nobody_receives(shipped):
    yield
    shipped.stop()


def of_request(shipped, request_id: str) -> dict[str, dict]:
    """What has arrived about it, by the log it comes from."""
    return {
        entry["event"]["dataset"]: entry
        for entry in list(shipped.entries)
        if entry.get("http", {}).get("request", {}).get("id") == request_id
    }


def test_nginx_and_the_application_serve_before_anybody_receives(shipped, client):
    assert client.get("/diagnostics/hello").status_code == 200


def test_lines_of_both_arrive_with_the_same_request_id(shipped, client):
    shipped.receive()
    request_id = client.get("/diagnostics/hello").headers["X-Request-ID"]
    wait_until(lambda: len(of_request(shipped, request_id)) == 2, 20, "two lines")
    found = of_request(shipped, request_id)
    assert found.keys() == {"app.access", "nginx.access"}
    for entry in found.values():
        assert entry["url"]["path"] == "/diagnostics/hello"
    shipped.settled()


def test_lines_of_the_error_log_arrive_and_name_the_connection(shipped, client):
    shipped.receive()
    answer = client.post("/diagnostics/echo", content=b"x" * 11_000_000)
    assert answer.status_code == 413
    request_id = answer.headers["X-Request-ID"]
    wait_until(lambda: "nginx.access" in of_request(shipped, request_id), 20, "the access line")
    connection = of_request(shipped, request_id)["nginx.access"]["nginx"]["connection"]
    errors = [entry for entry in shipped.entries if entry["event"]["dataset"] == "nginx.error"]
    assert connection in {entry["nginx"]["connection"] for entry in errors}


STATES = {
    "refused": None,
    "unread": receivers.unread,
    "slow": receivers.slow,
    "closing early": receivers.short,
}


@pytest.mark.parametrize("state", STATES)
def test_no_request_notices(shipped, state):
    if STATES[state]:
        shipped.receive(STATES[state])
    with Load(shipped.stack) as load:
        load.carry_on(500)
    assert load.failed == [], load.summary
    shipped.receive()
    shipped.settled()


def test_no_request_notices_packets_dropped(shipped):
    receiver = shipped.receive()
    receivers.black_hole(receiver.listener)
    with Load(shipped.stack) as load:
        load.carry_on(500)
    assert load.failed == [], load.summary
    shipped.receive()
    shipped.settled()


def test_a_receiver_killed_again_and_again_and_replay(shipped):
    since, before = moment(), shipped.total("log_forwarder_lines_resent_total")
    with Load(shipped.stack) as load:
        shipped.be_killed(5, pause=3)
        load.carry_on(1000)
    assert load.failed == [], load.summary
    shipped.settled()
    assert shipped.total("log_forwarder_lines_resent_total") > before
    assert "lines sent" in shipped.replay(since)
    assert shipped.missing() == set()
    shipped.check_once_each()


def test_a_killed_application_loses_no_line(shipped):
    """Those in its files are sent by the forwarder, which lives on."""
    with Load(shipped.stack) as load:
        load.carry_on(300)
        # Nobody receives: what is written now waits.
        shipped.stack.compose("kill", "--signal", "KILL", "app")
        written = {line["event"]["id"] for line in shipped.stack.log("app")}
    shipped.receive()
    wait_until(lambda: written <= shipped.arrived(), 30, "every line")
    shipped.start("app")
    shipped.settled()


@pytest.mark.parametrize("writer", ["app", "nginx"])
def test_a_forwarder_killed_loses_nothing(shipped, writer):
    """With lines on their way that are not known to have arrived."""
    shipped.receive(receivers.unread)
    with Load(shipped.stack) as load:
        load.carry_on(300)
        shipped.stack.compose("kill", "--signal", "KILL", f"{writer}-log-forwarder")
        load.carry_on(600)
    assert load.failed == [], load.summary
    shipped.receive()
    shipped.start(f"{writer}-log-forwarder")
    shipped.settled()


def test_replicas_share_two_files(shipped):
    """They come, go and are killed; their lines arrive whatever becomes of them."""
    shipped.receive()
    stack = shipped.stack
    stack.compose("up", "--detach", "--no-build", "--wait", "--scale", "app=3", "app")
    try:
        with Load(stack) as load:
            three = {name[:12] for name in stack.containers("app")}
            seen = lambda: {it.replica for it in load.results} >= three  # noqa: E731
            wait_until(seen, 20, "responses of three replicas")
            stack.run("docker", "kill", stack.containers("app")[0])
            before = {line["event"]["id"] for line in stack.log("app")}
            wait_until(lambda: before <= shipped.arrived(), 30, "the lines of all replicas")
    finally:
        shipped.start("app")
    found = stack.execute("app-log-forwarder", "ls", "/var/log/shipping").split()
    assert found == ["error.log", "info.log"]


def test_replay_says_when_docker_cannot_read_on(shipped):
    """As after a full disk: the beginning of a line, and the next one behind it."""
    shipped.receive()
    since, (nginx,) = moment(), shipped.stack.inspect("nginx")
    folder, file = nginx["LogPath"].rsplit("/", 1)
    shipped.stack.run(
        *("docker", "run", "--rm", "--user=0", f"--volume={folder}:/log", "--entrypoint=sh"),
        *(nginx["Image"], "-c", f"printf '{{\"log' >>/log/{file}"),
    )
    try:
        with Load(shipped.stack) as load:
            load.carry_on(100)
        answer = shipped.stack.make("replay", f"SINCE={since}", check=False)
        assert answer.returncode
        assert f"docker logs stops in {nginx['Id'][:12]} at a line" in answer.stderr
    finally:
        shipped.stack.compose("up", "--detach", "--no-build", "--force-recreate", "--wait", "nginx")
    assert "lines sent" in shipped.replay(since)


def test_replay_says_what_it_needs(shipped):
    for words, said in (
        ((), "SINCE is missing"),
        (("SINCE=yesterday",), "docker logs: "),
    ):
        answer = shipped.stack.make("replay", *words, check=False)
        assert answer.returncode
        assert said in answer.stderr
        assert "make replay SINCE=" in answer.stderr
