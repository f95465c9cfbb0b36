"""`make reload`, under load too, for `make test` and `make soak`."""

import ssl

from clone import Clone
from load import Load


def loses_nothing(stack: Clone, reloads: int) -> None:
    workers = {*stack.children("nginx")}
    with Load(stack) as load:
        for _ in range(reloads):
            stack.execute("nginx", "reload")
        load.carry_on(1000)
    print(load.summary)
    assert load.failed == [], load.summary
    # A worker that ends loses what a browser was about to send on a new HTTP/2 connection
    # (docs/edge.md).
    assert not any(1 in result.repeated for result in load.results), load.summary
    assert {*stack.children("nginx")} <= workers


def served(stack: Clone) -> str:
    """The certificate that nginx has loaded, as PEM."""
    return ssl.get_server_certificate(("localhost", stack.https_port)).strip()
