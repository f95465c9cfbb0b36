"""The application's image by itself, as a platform runs it: no nginx, no Compose."""

import contextlib
import re

import httpx
import pytest
from clone import answers, engine, free_ports, wait_until
from docker.errors import APIError


@pytest.mark.parametrize("prefix", ["", "/shop"])
def test_image_alone_serves_its_own_static_files(stack, prefix):
    """`docker run` with PORT and SECRET_KEY, as platforms do: compressed and cached for long."""
    image = stack.inspect("app")[0]["Image"]
    port = free_ports(1)[0]
    container = f"{stack.name}-alone"
    key = "0123456789abcdef" * 3
    stack.run(
        *("docker", "run", "--detach", "--name", container, "--env", "PORT=9000"),
        *(
            "--env",
            f"SECRET_KEY={key}",
            "--env",
            f"SCRIPT_NAME={prefix}",
            "--publish",
            f"127.0.0.1:{port}:9000",
            image,
        ),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/livez"), 20, "the application alone")
        page = httpx.get(f"{url}{prefix}/nowhere", headers={"Accept": "text/html"}).text
        path = re.search(rf'"({prefix}/static/error-[0-9a-f]{{32}}\.css)"', page)[1]
        answer = httpx.get(url + path)
        assert answer.status_code == 200
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Cache-Control"] == "max-age=31536000, public, immutable"
        health = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        wait_until(lambda: stack.run(*health).stdout == "healthy\n", 20, "healthy on its own port")
        stack.run("docker", "stop", container)
        code = stack.run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout
        assert code.strip() == "0"
    finally:
        stack.run("docker", "rm", "--force", container)


def test_it_can_be_stopped_before_it_has_started(stack):
    """As process 1 it would not hear SIGTERM until gunicorn listens to signals."""
    (app,) = stack.inspect("app")
    environment = {"SECRET_KEY": "0123456789abcdef" * 3}
    container = engine().create_container(app["Image"], environment=environment)["Id"]
    try:
        engine().start(container)
        wait_until(lambda: ended(container), 20, "an end by SIGTERM")
        assert engine().inspect_container(container)["State"]["ExitCode"] == 0
        assert "Starting gunicorn" not in engine().logs(container).decode()
    finally:
        engine().remove_container(container, force=True)


def ended(container: str) -> bool:
    """Has it ended? If not, it gets SIGTERM."""
    with contextlib.suppress(APIError):  # it has ended just now
        engine().kill(container, "TERM")
    return not engine().inspect_container(container)["State"]["Running"]
