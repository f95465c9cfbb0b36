"""In Logstash's place: reads lines over TLS and forgets them; prints how many there were."""

import socket
import ssl
import threading

tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("/run/secrets/logstash_certificate", "/run/secrets/logstash_certificate_key")
server, lock, lines = socket.create_server(("", 5959)), threading.Lock(), 0


def read(connection):
    global lines  # noqa: PLW0603
    with tls.wrap_socket(connection, server_side=True) as stream:
        while data := stream.recv(1 << 20):
            with lock:
                lines += data.count(b"\n")
    print(lines, flush=True)


while True:
    threading.Thread(target=read, args=[server.accept()[0]], daemon=True).start()
