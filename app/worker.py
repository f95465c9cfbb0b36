"""gunicorn's worker with threads (gthread), and what it lacks when all of them are busy.

- Health checks and metrics need no free thread: two spare ones answer them.
- A thread that waits for a slow reader does not count: in its place another one may run the
  application, up to pids.SENDERS. So WEB_THREADS bounds what runs, not what is being sent.
- No request waits while another worker has a free thread: it is handed over (handover.py).
- A request that has waited LONGEST_WAIT for a thread gets 503 with Retry-After
  (webapp/overload.py), instead of being computed when nginx has already given it up.
- A thread is stuck when it has been in the application's code for STUCK_AFTER without returning or
  yielding. gunicorn's heartbeat comes from the main thread and does not notice. A worker whose
  threads are all stuck logs where they are, and ends; gunicorn's master starts another.

Written for gunicorn 27.0.1 (gunicorn/workers/gthread.py).
"""

import os
import selectors
import socket
import sys
import time
import traceback
from collections import deque
from concurrent import futures
from email.utils import formatdate
from functools import lru_cache, partial
from threading import get_ident

from gunicorn import util
from gunicorn.workers import gthread
from handover import Handover
from webapp import hosts, overload, pids

# Seconds. What has waited so long still has 20 of nginx's 30 (proxy_read_timeout).
LONGEST_WAIT = 10
# Seconds. Twice what nginx waits for an answer: nobody is there any more to get it.
STUCK_AFTER = 60
# Seconds of sending after which a reader is slow.
SLOW_AFTER = 1
# Seconds. How often a worker in which requests wait looks for one that has become free.
LOOK_EVERY = 0.05

INTERNAL = tuple(f"GET {path} ".encode() for path in sorted(hosts.INTERNAL_PATHS))


class Worker(gthread.ThreadWorker):
    handover = None

    def __init__(self, *args, **kwargs):
        """In the master. On SIGHUP there are new workers before the old ones end."""
        super().__init__(*args, **kwargs)
        Worker.handover = Worker.handover or Handover(2 * self.cfg.workers)

    def init_process(self):
        self.senders = pids.senders(self.cfg.workers, self.cfg.threads, pids.limit())
        self.threads = {}  # by thread id
        self.spare_ids = set()
        self.spare = futures.ThreadPoolExecutor(
            max_workers=2, initializer=lambda: self.spare_ids.add(get_ident())
        )
        self.busy = 0  # threads that have a connection
        self.sending = 0  # of them, those that wait for slow readers
        self.waiting = deque()  # (since, connection), the oldest first
        self.looked = 0
        # Shared by two when somebody sends gunicorn SIGTTIN again and again.
        self.number = self.slot % len(self.handover.inboxes)
        self.handover.publish(self.number, 0)
        super().init_process()

    def run(self):
        self.poller.register(
            self.handover.inbox(self.number), selectors.EVENT_READ, lambda _: self.take_over()
        )
        super().run()

    def set_accept_enabled(self, enabled):
        super().set_accept_enabled(enabled)
        if not self.alive:
            # The last ones that others sent.
            self.handover.publish(self.number, 0)
            while self.take_over():
                pass

    def get_thread_pool(self):
        return futures.ThreadPoolExecutor(max_workers=self.cfg.threads)

    def load_wsgi(self):
        super().load_wsgi()
        self.wsgi = Watch(self.wsgi, self.threads, self.spare_ids)

    def handle_quit(self, sig, frame):
        """End at once, but not amid something that holds a lock, as gthread would."""
        self.alive = False
        self.method_queue.defer(sys.exit, 0)

    # --- In the main thread ---

    def enqueue_req(self, conn):
        """A connection with a request, or a new one."""
        if self.free_threads() > 0:
            self.begin(conn)
            return
        first = first_bytes(conn)
        if first is None and self.alive:
            # Nothing has come yet: gunicorn's own way to wait for it without a thread.
            self.finish_request(conn, finished(gthread._DEFER))
        elif first and first.startswith(INTERNAL):
            self.use_spare(conn)
        else:
            self.wait(time.monotonic(), conn)

    def wait(self, since, conn):
        if self.hand_over(since, conn):
            return
        # One that was handed over may have waited longer than those that are here.
        place = len(self.waiting)
        while place and self.waiting[place - 1][0] > since:
            place -= 1
        self.waiting.insert(place, (since, conn))

    def hand_over(self, since, conn):
        # Not what has been read here.
        if conn.initialized and conn.parser.unreader.buf.getvalue():
            return False
        if not self.handover.send(conn.sock, since):
            return False
        self.nr_conns -= 1
        conn.close()
        return True

    def take_over(self):
        """Whether another worker had sent a connection."""
        if not (received := self.handover.receive(self.number)):
            return False
        sock, since = received
        try:
            conn = gthread.TConn(self.cfg, sock, sock.getpeername(), sock.getsockname())
        except OSError:  # the client has gone
            sock.close()
            return True
        self.nr_conns += 1
        if self.free_threads() > 0:
            self.begin(conn)
        else:
            self.wait(since, conn)
        self.publish()
        return True

    def free_threads(self):
        return self.cfg.threads + self.sending - self.busy

    def publish(self):
        self.handover.publish(self.number, self.free_threads() if self.alive else 0)

    def begin(self, conn):
        self.busy += 1
        self.publish()
        future = self.tpool.submit(self.handle, conn)
        future.add_done_callback(partial(self.method_queue.defer, self.finish, conn))

    def finish(self, conn, future):
        self.busy -= 1
        self.finish_request(conn, future)
        self.begin_waiting()
        self.publish()

    def begin_waiting(self):
        while self.waiting and self.free_threads() > 0:
            self.begin(self.waiting.popleft()[1])
        while self.waiting and self.hand_over(*self.waiting[0]):
            self.waiting.popleft()

    def use_spare(self, conn):
        future = self.spare.submit(self.handle, conn)
        future.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        return future

    def wait_for_and_dispatch_events(self, timeout):
        super().wait_for_and_dispatch_events(min(timeout, LOOK_EVERY) if self.waiting else timeout)

    def notify(self):
        """After each event, and at least once a second."""
        now = time.monotonic()
        self.begin_waiting()
        while self.waiting and self.waiting[0][0] < now - LONGEST_WAIT:
            self.use_spare(self.waiting.popleft()[1])
        if now - self.looked > 0.5:
            self.looked = now
            super().notify()
            threads = list(self.threads.items())
            self.sending = min(self.senders, sum(thread.is_sending(now) for _, thread in threads))
            # Not larger at once: the pool starts a thread whenever no other one is idle just then.
            self.tpool._max_workers = self.cfg.threads + self.sending
            self.publish()
            self.end_if_stuck([id for id, thread in threads if thread.is_stuck(now)])

    def end_if_stuck(self, stuck):
        if len(stuck) < self.cfg.threads:
            return
        frames = sys._current_frames()
        stacks = "\n".join("".join(traceback.format_stack(frames.get(id))[-4:]) for id in stuck)
        self.log.critical(
            "all %d threads are stuck for %d s or more, ending this worker; they are here:\n%s",
            *(len(stuck), STUCK_AFTER, stacks),
        )
        futures.wait([self.use_spare(conn) for _, conn in self.waiting], timeout=2)
        # Without the interpreter's own end, which waits for all threads.
        os._exit(1)

    # --- In each thread ---

    def handle(self, conn):
        try:
            return super().handle(conn)
        finally:
            self.threads.pop(get_ident(), None)


def write_error(sock, status, reason, _):
    """What gunicorn refuses by itself, before there is a request for the application.

    Behind nginx it is nginx's error page, which has the request id (error-pages.conf there).
    """
    body = f"{status} {reason}\n"
    head = (
        f"HTTP/1.1 {status} {reason}",
        f"X-Accel-Redirect: /refused/{status}",
        "Connection: close",
        "Content-Type: text/plain",
        f"Content-Length: {len(body)}",
    )
    util.write_nonblock(sock, "\r\n".join((*head, "", body)).encode("latin1"))


util.write_error = write_error


@lru_cache(1)
def date(second):
    return formatdate(second, usegmt=True)


# The header Date; gunicorn formats it again for each response.
util.http_date = lambda timestamp=None: date(int(timestamp or time.time()))


def finished(result):
    future = futures.Future()
    future.set_result(result)
    return future


def first_bytes(conn):
    """Of the request that waits on a connection, without taking them; None: nothing has come."""
    if conn.initialized and conn.parser.unreader.buf.getvalue():
        return b""
    try:
        return conn.sock.recv(32, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b"" if conn.initialized else None
    except OSError:
        return b""


class Thread:
    """What an ordinary thread does: in the application's code or not, since when."""

    def __init__(self):
        self.inside, self.since, self.sending_since = False, time.monotonic(), None

    def is_stuck(self, now):
        return self.inside and now - self.since > STUCK_AFTER

    def is_sending(self, now):
        begin = self.sending_since
        return not self.inside and begin is not None and now - begin > SLOW_AFTER

    def run(self, function, *args):
        """Call the application's code."""
        self.since, self.inside = time.monotonic(), True
        try:
            return function(*args)
        finally:
            self.inside = False

    def wait_for(self, function, *args):
        """Call what the application calls and what waits for the client."""
        self.inside = False
        try:
            return function(*args)
        finally:
            self.since, self.inside = time.monotonic(), True


class Watch:
    """WSGI middleware that keeps `threads` up to date, and marks what spare threads refuse."""

    def __init__(self, app, threads, spare_ids):
        self.app, self.threads, self.spare_ids = app, threads, spare_ids

    def __call__(self, environ, start_response):
        if get_ident() in self.spare_ids:
            if environ["PATH_INFO"] not in hosts.INTERNAL_PATHS:
                environ[overload.KEY] = True
            return self.app(environ, start_response)
        thread = self.threads[get_ident()] = Thread()
        environ["wsgi.input"] = Input(environ["wsgi.input"], thread)
        body = thread.run(self.app, environ, start_response)
        thread.sending_since = time.monotonic()
        # gunicorn sends it with sendfile(2), and looks for the type.
        return body if isinstance(body, environ["wsgi.file_wrapper"]) else Body(body, thread)


class Input:
    """The request's body (PEP 3333, "Input and Error Streams")."""

    def __init__(self, stream, thread):
        self.stream, self.thread = stream, thread

    def read(self, *size):
        return self.thread.wait_for(self.stream.read, *size)

    def readline(self, *size):
        return self.thread.wait_for(self.stream.readline, *size)

    def readlines(self, *hint):
        return self.thread.wait_for(self.stream.readlines, *hint)

    def __iter__(self):
        return iter(self.readline, b"")


class Body:
    """The response's body: the application's code runs for each part, and at the end."""

    def __init__(self, body, thread):
        self.body, self.thread = body, thread
        self.parts = iter(body)

    def __iter__(self):
        return self

    def __next__(self):
        return self.thread.run(next, self.parts)

    def close(self):
        if hasattr(self.body, "close"):
            self.thread.run(self.body.close)
