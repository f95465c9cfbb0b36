"""The application's image by itself, as a platform runs it: no nginx, no Compose."""

import re
import subprocess

import httpx
from clone import answers, free_ports, wait_until


def test_image_alone_serves_its_own_static_files(stack):
    """`docker run` with PORT and SECRET_KEY, as platforms do: compressed and cached for long."""
    image = stack.inspect("app")[0]["Image"]
    port = free_ports(1)[0]
    container = f"{stack.name}-alone"
    key = "0123456789abcdef" * 3
    stack.run(
        *("docker", "run", "--detach", "--name", container, "--env", "PORT=9000"),
        *("--env", f"SECRET_KEY={key}", "--publish", f"127.0.0.1:{port}:9000", image),
    )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{url}/livez"), 20, "the application alone")
        page = httpx.get(f"{url}/nowhere", headers={"Accept": "text/html"}).text
        path = re.search(r"/static/error-[0-9a-f]{32}\.css", page)[0]
        answer = httpx.get(url + path)
        assert answer.headers["Content-Encoding"] == "gzip"
        assert "immutable" in answer.headers["Cache-Control"]
        health = ["docker", "inspect", "--format", "{{.State.Health.Status}}", container]
        wait_until(lambda: stack.run(*health).stdout == "healthy\n", 20, "healthy on its own port")
        stopped = subprocess.run(["docker", "stop", container], capture_output=True, check=True)
        assert stopped.returncode == 0
        code = stack.run("docker", "inspect", "--format", "{{.State.ExitCode}}", container).stdout
        assert code.strip() == "0"
    finally:
        stack.run("docker", "rm", "--force", container)
