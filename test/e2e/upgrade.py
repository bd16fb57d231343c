"""Both ends of an upgrade (RFC 9110 7.8), for the tests of it."""
import select
import time

from harness import SANITIZED, TIMEOUT, Client, eventually, reply

ASKS = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
SWITCHES = (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
MEMORY_KIB = 6144 if SANITIZED else 2048  # that a worker may need for a tunnel whose sides do not read


def switch(connection, request):
    """Agrees; from then on the test has the connection, until it releases the backend."""
    connection.send(SWITCHES)
    connection.backend.released.wait(60)


def switch_if_asked(connection, request):
    """As a server does that has both."""
    if request.field("Upgrade"):
        switch(connection, request)
    else:
        connection.send(reply(request.target))


def switch_and_echo(connection, request):
    if request.field("Upgrade") is None:
        connection.send(reply("no"))
        return
    connection.send(SWITCHES)
    while True:
        data, connection._buffer = connection._buffer or connection.socket.recv(65536), b""
        if data == b"":
            raise EOFError
        connection.send(data)


def ask(port, headers=ASKS, **options):
    """A client whose connection was switched."""
    client = Client(port, **options)
    client.start("GET", "/chat", headers)
    response = client.head()
    assert response.status == 101, response.head
    return client


def round_trip(client, data=b"ping"):
    client.send(data)
    return client.exactly(len(data)) == data


def all_over(lb):
    """Nothing is left of the tunnels, in any count."""
    lb.wait_idle()
    eventually(lambda: lb.total("tunnels") == 0, "no tunnel is counted")
    eventually(lambda: lb.total("connections") == 0, "no client is counted")


def wait_until_stuck(sock, check=lambda: True):
    """Until nothing more can be written to it; `check` must be true all the time."""
    stuck_since = None
    deadline = time.monotonic() + TIMEOUT
    while stuck_since is None or time.monotonic() - stuck_since < 0.7:
        assert time.monotonic() < deadline, "it goes on and on"
        assert check()
        writable = select.select([], [sock], [], 0.05)[1]
        stuck_since = None if writable else stuck_since or time.monotonic()
