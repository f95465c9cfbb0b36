"""Connections that a worker without a free thread hands to one that has some.

The kernel gives a connection to whichever worker is the first to accept it, and nginx keeps it for
further requests. gunicorn leaves it there: of 60 quick requests beside 5 slow ones, 2 waited for
11 s while threads of the other worker were idle.
"""

import mmap
import socket
import struct

# Of the moment since when a connection has waited: time.monotonic(), the same in all processes.
SINCE = struct.Struct("d")


class Handover:
    """Made in gunicorn's master; a worker has a number in it (worker_slots.py)."""

    def __init__(self, workers):
        # Free threads of each worker. A hint: where it is wrong, a request waits elsewhere.
        self.free = mmap.mmap(-1, workers)
        # The master keeps both ends open: what was sent to a worker that died is its successor's.
        self.inboxes = [socket.socketpair(type=socket.SOCK_DGRAM) for _ in range(workers)]
        for end in (end for pair in self.inboxes for end in pair):
            end.setblocking(False)

    def inbox(self, number):
        return self.inboxes[number][0]

    def publish(self, number, free):
        self.free[number] = min(max(free, 0), 255)

    def send(self, sock, since):
        """Whether another worker gets the connection; then close it here."""
        number = max(range(len(self.inboxes)), key=self.free.__getitem__)
        if not (free := self.free[number]):
            return False
        # Before sending, for that worker may publish it at once.
        self.free[number] = free - 1
        try:
            socket.send_fds(self.inboxes[number][1], [SINCE.pack(since)], [sock.fileno()])
        except OSError:
            return False
        return True

    def receive(self, number):
        """(connection, since when it has waited), or None."""
        try:
            data, files, _, _ = socket.recv_fds(self.inbox(number), SINCE.size, 1)
        except BlockingIOError:
            return None
        if not files:  # this process may not open any more
            return None
        return socket.socket(fileno=files[0]), *SINCE.unpack(data)
