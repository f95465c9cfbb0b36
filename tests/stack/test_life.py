"""Starting, stopping, being replaced and getting stuck: the application's life behind nginx."""

from concurrent.futures import ThreadPoolExecutor

import headers
from clone import wait_until

# A format of `docker inspect`.
ADDRESS = '{{{{(index .NetworkSettings.Networks "{}").IPAddress}}}}'


def test_nginx_serves_while_the_application_is_absent_and_recovers_by_itself(stack, client):
    style_sheet = stack.style_sheet()
    stack.compose("rm", "--stop", "--force", "app")
    stack.compose("rm", "--stop", "--force", "nginx")
    try:
        # Started without the application: its name does not even resolve.
        stack.compose("up", "--detach", "--no-deps", "--no-build", "--wait", "nginx")
        answer = client.get("/diagnostics/hello")
        assert answer.status_code in (502, 503, 504)
        assert int(answer.headers["Retry-After"]) > 0
        assert "nginx" not in answer.text.lower()
        headers.check(answer)
        problem = client.get("/diagnostics/hello", headers={"Accept": "application/json"})
        assert problem.json()["status"] == problem.status_code
        assert int(problem.headers["Retry-After"]) > 0
        assert client.get(style_sheet).status_code == 200
    finally:
        stack.compose("up", "--detach", "--no-deps", "--no-build", "app")
    wait_until(lambda: client.get("/diagnostics/hello").status_code == 200, 30, "the page again")


def test_a_new_container_with_another_address_is_found(stack, client):
    """Elsewhere known as "502 after the app container is recreated"."""
    network = f"{stack.name}_backend"

    def address() -> str:
        return stack.inspect("app")[0]["NetworkSettings"]["Networks"][network]["IPAddress"]

    # POST, which nginx does not repeat.
    assert client.post("/diagnostics/echo").status_code == 200
    old = address()
    stack.compose("rm", "--stop", "--force", "app")
    # Somebody else takes the old address: Docker gives out the lowest that is free.
    image = stack.inspect("nginx")[0]["Image"]
    squatter = f"{stack.name}-squatter"
    stack.run(
        *("docker", "run", "--detach", "--rm", "--name", squatter, "--network", network),
        *("--entrypoint", "sleep", image, "infinity"),
    )
    try:
        taken = stack.run("docker", "inspect", squatter, "--format", ADDRESS.format(network)).stdout
        assert taken.strip() == old
        stack.compose("up", "--detach", "--no-build", "--wait", "app")
        assert address() != old
        wait_until(
            lambda: client.post("/diagnostics/echo").status_code == 200,
            5,
            "the new container's answer",
        )
        assert {client.post("/diagnostics/echo").status_code for _ in range(20)} == {200}
    finally:
        stack.run("docker", "rm", "--force", squatter)


def test_a_slow_request_is_answered_before_the_application_stops(stack):
    container = stack.containers("app")[0]
    try:
        with ThreadPoolExecutor() as pool, stack.client(timeout=30) as client:
            slow = pool.submit(client.get, "/diagnostics/work?ms=3001")
            wait_until(lambda: "working for 3001 ms" in str(stack.log("app")), 3, "its beginning")
            stop = pool.submit(stack.compose, "stop", "app")
            assert slow.result().status_code == 200
            stop.result()
        code = stack.run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout
        assert code.strip() == "0"
    finally:
        stack.make("up")


def test_nginx_answers_what_is_under_way_before_it_stops(stack):
    try:
        with ThreadPoolExecutor() as pool, stack.client(timeout=30) as client:
            slow = pool.submit(client.get, "/diagnostics/work?ms=3002")
            wait_until(lambda: "working for 3002 ms" in str(stack.log("app")), 3, "its beginning")
            stop = pool.submit(stack.compose, "stop", "nginx")
            assert slow.result().status_code == 200
            stop.result()
        assert stack.inspect("nginx")[0]["State"]["ExitCode"] == 0
    finally:
        stack.make("up")


def test_a_draining_container_is_unready_and_healthy(stack):
    """Swarm would replace it for being unhealthy, although somebody is draining it on purpose."""

    def last_check() -> dict:
        return stack.inspect("app")[0]["State"]["Health"]["Log"][-1]

    stack.execute("app", "touch", "/tmp/draining")  # noqa: S108
    try:
        wait_until(lambda: "503 draining" in last_check()["Output"], 40, "a check that sees it")
        assert last_check()["ExitCode"] == 0
        with stack.client() as client:
            assert client.get("/diagnostics/hello").status_code == 200
    finally:
        stack.execute("app", "rm", "-f", "/tmp/draining")  # noqa: S108
    wait_until(lambda: "200 ok" in last_check()["Output"], 20, "a check that sees it end")


def test_logs_for_people_and_one_line_a_request(stack):
    """As by default, nginx writes the access line."""
    with stack.changed(LOG_FORMAT="text", ACCESS_LOG="off"):
        with stack.client() as client:
            key = client.get("/diagnostics/log?message=spoken").headers["X-Request-ID"]
        assert len(stack.lines_of(key, "nginx")) == 1
        lines = stack.stdout(stack.containers("app")[0])
        (line,) = [line for line in lines if key in line or "/diagnostics/log" in line]
        assert "INFO    webapp: spoken" in line
