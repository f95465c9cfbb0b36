"""Requests that nginx answers by itself had no limit: 29,700 of them in 8 s replaced all earlier
lines in Docker's log files.
"""

import re
from concurrent.futures import ThreadPoolExecutor

from clone import wait_until
from raw import connect, handshake
from scrape import Growth

REQUEST = b"GET /metrics/flood HTTP/1.1\r\nHost: localhost\r\n\r\n"
NUMBER, ON_CONNECTION = 4000, 500


def flood(stack) -> None:
    for _ in range(NUMBER // ON_CONNECTION):
        with handshake(stack) as connection:
            answers = b""
            for _ in range(ON_CONNECTION // 20):
                connection.sendall(20 * REQUEST)
            while answers.count(b"HTTP/1.1 404 ") < ON_CONNECTION:
                answers += connection.recv(65536)


def test_a_page_with_100_files_is_served_and_logged(attacked):
    path = attacked.style_sheet()
    with attacked.client(http2=True) as client:
        answers = [client.get(f"{path}?file={number}") for number in range(100)]
    assert {answer.status_code for answer in answers} == {200}
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    wait_until(lambda: ids <= {line["event"]["id"] for line in attacked.log("nginx")}, 5, "lines")


def test_a_flood_of_404_does_not_replace_all_log_lines(attacked):
    growth = Growth(attacked)
    flood(attacked)
    growth.becomes(NUMBER, "requests_total", status="404")

    def lines() -> int:
        return sum(line["url"]["path"] == "/metrics/flood" for line in attacked.log("nginx"))

    # A thousand in ten seconds; a flood that takes longer than that has more.
    left_out = growth.of("unlogged_total")
    assert left_out >= NUMBER - 3000
    wait_until(lambda: lines() == NUMBER - left_out, 5, "a line for all others")


# Refused before any limit counts it, with a line in the error log.
TOO_LARGE = (
    b"POST /too-large HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
    b"Connection: close\r\n\r\n"
)


def test_a_flood_of_error_lines_is_cut_and_counted(attacked):
    """Without a limit, one client kept the filter so busy that nginx waited for it."""

    tls = attacked.tls()

    def refused(_: int) -> bytes:
        with connect(attacked, tls) as connection:
            connection.sendall(TOO_LARGE)
            return connection.recv(65536).split()[1]

    def errors() -> list[str]:
        (container,) = attacked.containers("nginx")
        return attacked.run("docker", "logs", container).stderr.splitlines()

    def counted() -> tuple[int, int]:
        """Lines, and how many are left out."""
        found = errors()
        reports = [re.search(r" (\d+) lines left out, .* client: ", line) for line in found]
        return sum("/too-large" in line for line in found), sum(int(it[1]) for it in reports if it)

    with ThreadPoolExecutor(10) as pool:
        # nginx still counts those whose connections it is closing: a quick machine has 100 of them.
        assert b"413" in {*pool.map(refused, range(400))} <= {b"413", b"429"}
    wait_until(lambda: sum(counted()) == 400, 25, "each line, or that it is left out")
    # A hundred in ten seconds.
    assert counted()[1] >= 100
