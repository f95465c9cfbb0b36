"""Another client of the stack: one with an address of its own, a container beside nginx."""

import json
import math
import subprocess
import time
from dataclasses import dataclass

from clone import Clone

# Visits one after the other, each on a connection of its own, until it is told to stop.
SCRIPT = """
import http.client, json, select, socket, ssl, sys, time
context = ssl._create_unverified_context()
visits = json.loads(sys.argv[1])
print("begun", flush=True)
number = 0
while True:
    method, path, size = visits[number % len(visits)]
    begin, status, length = time.time(), 0, 0
    connection = http.client.HTTPSConnection("localhost", context=context)
    try:
        plain = socket.create_connection(("nginx", 8443), timeout=30)
        connection.sock = context.wrap_socket(plain, server_hostname="localhost")
        connection.request(method, path.replace("NUMBER", str(number)), body=bytes(size) or None)
        answer = connection.getresponse()
        length = len(answer.read())
        status = answer.status
    except (OSError, http.client.HTTPException) as error:
        status = 0
        print(repr(error), file=sys.stderr)
    connection.close()
    print(json.dumps([path, begin, time.time() - begin, status, length]), flush=True)
    number += 1
    if select.select([sys.stdin], [], [], float(sys.argv[2]))[0]:
        break
"""


@dataclass(frozen=True)
class Visit:
    path: str
    begin: float  # time.time()
    seconds: float
    status: int  # 0: no response, or a part of one
    length: int


class Visitor:
    """In a `with` block; `visits`: method, path and size of the body, in turn. NUMBER in a path is
    replaced by a number.
    """

    def __init__(self, stack: Clone, *visits: tuple[str, str, int], pause: float = 0):
        image = stack.inspect("app")[0]["Image"]
        command = ["docker", "run", "--rm", "--interactive", f"--network={stack.name}_edge"]
        command += [image, "python", "-c", SCRIPT, json.dumps(visits), str(pause)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        self.visits: list[Visit] = []

    def __enter__(self) -> "Visitor":
        assert self.process.stdout.readline() == "begun\n"
        return self

    def __exit__(self, *error: object) -> None:
        output, _ = self.process.communicate("stop\n")
        self.visits = [Visit(*json.loads(line)) for line in output.splitlines()]


def p99(seconds: list[float]) -> float:
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def for_seconds(seconds: float):
    """Until so much time has passed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        yield
