"""gunicorn's worker with threads (gthread), and what it lacks when all of them are busy.

- Health checks and metrics do not wait for a thread: two spare ones answer them.
- A request that has waited LONGEST_WAIT for a thread is answered with 503 and Retry-After
  (webapp/overload.py), instead of being computed when nginx has already given it up.
- A thread is stuck when it has been in the application's code for STUCK_AFTER without returning or
  yielding. gunicorn's heartbeat comes from the main thread and does not notice. A worker whose
  threads are all stuck writes down where they are, and ends; gunicorn's master starts another.
  Waiting for a client, to read its body or to send to it, is not being stuck.

Written for gunicorn 27.0.1 (gunicorn/workers/gthread.py).
"""

import logging
import os
import socket
import sys
import time
import traceback
from collections import deque
from concurrent import futures
from functools import partial
from threading import get_ident

from gunicorn.workers import gthread

from webapp import hosts, overload

# Seconds. What has waited so long still has 20 of nginx's 30 (proxy_read_timeout).
LONGEST_WAIT = 10
# Seconds. Twice what nginx waits for an answer: nobody is there any more to get it.
STUCK_AFTER = 60

INTERNAL = tuple(f"GET {path} ".encode() for path in sorted(hosts.INTERNAL_PATHS))


class Worker(gthread.ThreadWorker):
    def init_process(self):
        self.spare_ids = set()
        self.spare = futures.ThreadPoolExecutor(
            max_workers=2, initializer=lambda: self.spare_ids.add(get_ident())
        )
        self.unfinished = 0  # what the ordinary threads have and what waits for them
        self.waiting = deque()  # (since, connection, future), the oldest first
        self.looked = 0
        super().init_process()

    def load_wsgi(self):
        super().load_wsgi()
        self.wsgi = self.progress = Progress(self.wsgi, self.spare_ids)

    def enqueue_req(self, conn):
        """In the main thread: a connection with a request, or a new one."""
        if self.unfinished < self.cfg.threads:
            self.submit(conn)
            return
        begin = first_bytes(conn)
        if begin is None and self.alive:
            # New, and nothing has come yet: it would wait in a thread for that.
            self.unfinished += 1
            self.finish_ordinary(conn, done(gthread._DEFER))
        elif begin and begin.startswith(INTERNAL):
            self.use_spare(conn)
        else:
            self.waiting.append((time.monotonic(), conn, self.submit(conn)))

    def submit(self, conn):
        self.unfinished += 1
        future = self.tpool.submit(self.handle, conn)
        future.add_done_callback(partial(self.when_done, self.finish_ordinary, conn))
        return future

    def use_spare(self, conn):
        future = self.spare.submit(self.handle, conn)
        future.add_done_callback(partial(self.when_done, self.finish_request, conn))
        return future

    def when_done(self, finish, conn, future):
        # Cancelled is what `refuse` took out of the queue.
        if not future.cancelled():
            self.method_queue.defer(finish, conn, future)

    def finish_ordinary(self, conn, future):
        self.unfinished -= 1
        self.finish_request(conn, future)

    def notify(self):
        """In the main thread, after each event and at least once a second."""
        super().notify()
        now = time.monotonic()
        self.refuse(before=now - LONGEST_WAIT)
        if now - self.looked > 1:
            self.looked = now
            self.end_if_stuck(now)

    def refuse(self, before):
        """Let the spare threads answer what has been waiting since before that moment."""
        refused = []
        while self.waiting:
            since, conn, future = self.waiting[0]
            if since > before and not (future.running() or future.done()):
                break
            self.waiting.popleft()
            if future.cancel():
                self.unfinished -= 1
                refused.append(self.use_spare(conn))
        return refused

    def end_if_stuck(self, now):
        stuck = [id for id, since in self.progress.since() if now - since > STUCK_AFTER]
        if len(stuck) < self.cfg.threads:
            return
        frames = sys._current_frames()
        stacks = "\n".join("".join(traceback.format_stack(frames.get(id))[-4:]) for id in stuck)
        self.log.critical(
            "all %d threads are stuck since %d s or more, ending this worker; they are here:\n%s",
            *(len(stuck), STUCK_AFTER, stacks),
        )
        futures.wait(self.refuse(before=now), timeout=2)
        # Lines that are on their way to Logstash.
        logging.shutdown()
        # Without the interpreter's own end, which waits for all threads.
        os._exit(1)


def done(result):
    future = futures.Future()
    future.set_result(result)
    return future


def first_bytes(conn):
    """Of the request that waits on a connection, without taking them; None: nothing has come."""
    if conn.parser and conn.parser.unreader.buf.getvalue():
        return b""
    try:
        return conn.sock.recv(16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None if not conn.initialized else b""
    except OSError:
        return b""


class Progress:
    """WSGI middleware: since when each ordinary thread has been in the application's code."""

    def __init__(self, app, spare_ids):
        self.app = app
        self.spare_ids = spare_ids
        self.inside = {}

    def since(self):
        """Thread ids and moments of time.monotonic()."""
        return list(self.inside.items())

    def call(self, function, *args):
        self.inside[get_ident()] = time.monotonic()
        try:
            return function(*args)
        finally:
            self.inside.pop(get_ident(), None)

    def outside(self, function, *args):
        """Call what waits for the client."""
        self.inside.pop(get_ident(), None)
        try:
            return function(*args)
        finally:
            self.inside[get_ident()] = time.monotonic()

    def __call__(self, environ, start_response):
        if get_ident() in self.spare_ids:
            if environ["PATH_INFO"] not in hosts.INTERNAL_PATHS:
                environ[overload.KEY] = True
            return self.app(environ, start_response)
        environ["wsgi.input"] = Input(environ["wsgi.input"], self)
        body = self.call(self.app, environ, start_response)
        # gunicorn sends it with sendfile(2), and asks for the type.
        return body if isinstance(body, environ["wsgi.file_wrapper"]) else Body(body, self)


class Input:
    """The request's body (PEP 3333, "Input and Error Streams")."""

    def __init__(self, stream, progress):
        self.stream, self.progress = stream, progress

    def read(self, *size):
        return self.progress.outside(self.stream.read, *size)

    def readline(self, *size):
        return self.progress.outside(self.stream.readline, *size)

    def readlines(self, *hint):
        return self.progress.outside(self.stream.readlines, *hint)

    def __iter__(self):
        return iter(self.readline, b"")


class Body:
    """The answer's body: the application's code runs for each part, and at the end."""

    def __init__(self, body, progress):
        self.body, self.progress = body, progress
        self.parts = iter(body)

    def __iter__(self):
        return self

    def __next__(self):
        return self.progress.call(next, self.parts)

    def close(self):
        if hasattr(self.body, "close"):
            self.progress.call(self.body.close)
