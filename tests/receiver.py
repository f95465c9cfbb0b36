"""A TCP receiver of log lines in the place of Logstash, which can be driven into each bad state."""

import contextlib
import ctypes
import json
import socket
import struct
import threading
import time

# include/uapi/asm-generic/socket.h; some kernels let only root do that.
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


def black_hole(sock):
    """From now on the kernel drops what arrives at the socket, before TCP has seen it."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # return 0
    filters = struct.pack("HL", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def lift(sock):
    sock.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def whole(receiver, connection):
    """As Logstash does: all there is, and then it closes."""
    while data := connection.recv(65536):
        yield data


def unread(receiver, connection):
    receiver.fixed.wait()
    yield from whole(receiver, connection)


def slow(receiver, connection):
    while data := connection.recv(4096):
        yield data
        if not receiver.fixed.is_set():
            time.sleep(0.02)


def short(receiver, connection):
    """Closes after some lines, and leaves the rest unread."""
    lines = 0
    while lines < 60 and (data := connection.recv(2000)):
        yield data
        lines += data.count(b"\n")


def leaving(receiver, connection):
    """Closes in good order whenever it has read something."""
    yield connection.recv(65536)


def vanishing(receiver, connection):
    """The first connection leads nowhere after a while."""
    if receiver.connections > 1:
        yield from whole(receiver, connection)
        return
    yield connection.recv(2000)
    black_hole(connection)
    receiver.fixed.wait()


class Receiver:
    def __init__(self, behaviour=whole, port=0, tls=None, entries=None, address="127.0.0.1"):
        self.behaviour, self.tls = behaviour, tls
        self.fixed = threading.Event()
        self.entries = [] if entries is None else entries
        self.connections = 0
        self.open, self.threads = set(), []
        self.listener = socket.create_server((address, port))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                self.connections += 1
                self.open.add(connection)
                thread = threading.Thread(target=self.receive, args=[connection], daemon=True)
                thread.start()
                self.threads.append(thread)

    def receive(self, connection):
        rest = b""
        with contextlib.suppress(OSError), connection:
            if self.tls:
                # Another object, which takes the connection over.
                connection = self.tls.wrap_socket(connection, server_side=True)
                self.open.add(connection)
            with connection:
                for data in self.behaviour(self, connection):
                    *lines, rest = (rest + data).split(b"\n")
                    self.entries.extend(json.loads(line) for line in lines)

    @property
    def ids(self):
        return [entry["event"]["id"] for entry in self.entries]

    def kill(self):
        """As the kernel does when a process is killed that has not read everything: resets."""
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self.listener.close()
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                socket.socket.shutdown(connection, socket.SHUT_RD)  # wakes recv()
        self.fixed.set()
        # Each closes its own, or it might write to what has the number of its file by then.
        for thread in self.threads:
            thread.join(5)
