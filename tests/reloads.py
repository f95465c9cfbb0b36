"""nginx's reload, under load too, for `make test` and `make soak`."""

import ssl

from clone import Clone, wait_until
from load import Load


def loses_nothing(stack: Clone, reloads: int) -> None:
    with Load(stack) as load:
        for _ in range(reloads):
            # Replaced workers stay for a while, and pids_limit counts them.
            wait_until(lambda: len(stack.children("nginx")) < 40, 60, "replaced workers to end")
            stack.execute("nginx", "reload")
        load.carry_on(1000)
    print(load.summary)
    assert load.failed == [], load.summary


def served(stack: Clone) -> str:
    """The certificate that nginx has loaded, as PEM."""
    return ssl.get_server_certificate(("localhost", stack.https_port)).strip()
