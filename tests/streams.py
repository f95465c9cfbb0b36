"""Many HTTP/2 streams on one connection: bodies do not end, and nobody reads the responses."""

import time
from collections import Counter

import h2.config
import h2.connection
import h2.events
from clone import Clone
from h2.settings import SettingCodes
from raw import connect


class Streams:
    """Requests on a connection of its own; `body`: bytes of each request's, which never ends.

    window: bytes that the server may send on each stream; as many as HTTP/2 has, if not given.
    """

    def __init__(
        self,
        stack: Clone,
        path: str,
        number: int,
        *,
        method: str = "GET",
        body: int = 0,
        window: int = 65535,
        host: str = "localhost",
        **fields,
    ):
        tls = stack.tls()
        tls.set_alpn_protocols(["h2"])
        self.socket = connect(stack, tls)
        self.http = h2.connection.H2Connection(h2.config.H2Configuration())
        self.http.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = window
        self.http.local_settings.acknowledge()
        self.http.initiate_connection()
        self.left = dict.fromkeys(range(1, 2 * number, 2), body)
        self.statuses: Counter[int] = Counter()
        for stream in self.left:
            fields |= {":method": method, ":path": path, ":scheme": "https"}
            names = sorted((fields | {":authority": host}).items())
            self.http.send_headers(stream, names, end_stream=not body)
        self.flush()

    def __enter__(self) -> "Streams":
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.http.data_to_send())

    def take(self, seconds: float = 0.2) -> bool:
        """What has come, of which nothing is acknowledged; False when nothing came in time."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except TimeoutError:
            return False
        finally:
            self.socket.settimeout(10)
        for event in self.http.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.statuses[int(dict(event.headers)[b":status"])] += 1
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.left.pop(event.stream_id, None)
        self.flush()
        return bool(data)

    def send(self, seconds: float = 10) -> None:
        """Bodies, as far as nginx takes them."""
        deadline = time.monotonic() + seconds
        while any(self.left.values()) and time.monotonic() < deadline:
            for stream, left in list(self.left.items()):
                if size := min(16384, left, self.http.local_flow_control_window(stream)):
                    self.http.send_data(stream, bytes(size))
                    self.left[stream] -= size
            self.flush()
            self.take(0.001)


def used(stack: Clone) -> int:
    """MB of nginx's /tmp."""
    return int(stack.execute("nginx", "df", "-m", "--output=used", "/tmp").split()[1])  # noqa: S108
