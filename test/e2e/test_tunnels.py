"""What a connection is after an upgrade: two streams of bytes, their ends, their counts, and what a crash costs."""
import os
import random
import select
import signal
import socket
import threading
import time
import zlib

import pytest
from harness import MEASURABLE, TIMEOUT, Truncated, at_once, eventually, get, is_refused, memory_kib, open_files
from upgrade import (MEMORY_KIB, SWITCHES, all_over, ask, round_trip, switch_and_echo, switch_if_asked,
                     wait_until_stuck)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def tunnel(balancer, backend, lifetimes):
    """tunnel(...) -> balancer, client, the backend's Connection: the one of the last two speaks to the other"""
    def do(record=True, receive_buffer=None, **options):
        there = backend(switch_if_asked, record=record)
        if receive_buffer:  # of both: what is accepted has it from its listener
            there._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        lb = balancer(there, **options)
        client = lifetimes.enter_context(ask(lb.port, receive_buffer=receive_buffer))
        there.connections[-1].socket.settimeout(TIMEOUT)
        return lb, client, there.connections[-1]
    return do


# ---- two streams of bytes --------------------------------------------------------------------------------------------


def random_blocks(seed, n, size=65536):
    block = random.Random(seed).randbytes(size)
    for i in range(n):
        yield i.to_bytes(8, "big") + block


def sends_and_receives(send, recv, n, seed, size):
    """Sends n blocks and reads `size` bytes meanwhile; the checksum of what came."""
    sender = threading.Thread(target=lambda: [send(block) for block in random_blocks(seed, n)], daemon=True)
    sender.start()
    crc = 0
    while size > 0:
        data = recv(min(size, 262144))
        assert data != b"", f"cut with {size} bytes to come"
        crc, size = zlib.crc32(data, crc), size - len(data)
    sender.join(TIMEOUT)
    assert not sender.is_alive()
    return crc


def test_full_duplex(tunnel, workers):
    n = 200
    size = sum(map(len, random_blocks(1, n)))
    _, client, there = tunnel(record=False, workers=workers)
    got = at_once(2, lambda i: sends_and_receives(client.socket.sendall, client.socket.recv, n, 1, size) if i == 0
                  else sends_and_receives(there.socket.sendall, there.socket.recv, n, 2, size))
    assert got == [zlib.crc32(b"".join(random_blocks(2, n))), zlib.crc32(b"".join(random_blocks(1, n)))]


@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_a_side_that_does_not_read_holds_the_other_back(tunnel, direction):
    """What the balancer keeps for it is bounded; when it reads again all of it comes."""
    lb, client, there = tunnel(record=False, env=MEASURABLE)
    pid, = lb.worker_pids()
    writer, reader = (client, there) if direction == "to the backend" else (there, client)
    before = memory_kib(pid)
    sent, block = 0, random.Random(3).randbytes(1 << 20)
    checksum = 0
    writer.socket.setblocking(False)
    quiet_since = time.monotonic()
    while time.monotonic() - quiet_since < 0.7:
        try:
            n = writer.socket.send(block)
            checksum, sent, quiet_since = zlib.crc32(block[:n], checksum), sent + n, time.monotonic()
        except BlockingIOError:
            select.select([], [writer.socket], [], 0.05)
        assert sent < 100_000_000, "nobody reads, and it still takes more"
        assert memory_kib(pid) - before < MEMORY_KIB
    writer.socket.setblocking(True)
    writer.socket.settimeout(TIMEOUT)
    reader.send(b"and the other way is open")
    assert writer.socket.recv(100) == b"and the other way is open"
    writer.socket.shutdown(socket.SHUT_WR)
    got = 0
    while data := reader.socket.recv(1 << 20):
        got, sent = zlib.crc32(data, got), sent - len(data)
    assert (got, sent) == (checksum, 0)


def test_both_do_not_read(tunnel):
    lb, client, there = tunnel(record=False, env=MEASURABLE)
    pid, = lb.worker_pids()
    before = memory_kib(pid)
    n = 1000
    size = sum(map(len, random_blocks(1, n)))
    senders = [threading.Thread(target=lambda s=side: [s.socket.sendall(b) for b in random_blocks(1, n)], daemon=True)
               for side in (client, there)]
    for sender in senders:
        sender.start()
    for side in (client, there):
        wait_until_stuck(side.socket, lambda: memory_kib(pid) - before < 2 * MEMORY_KIB)
    assert all(sender.is_alive() for sender in senders), "the kernel took it all: that shows nothing"
    for side in (client, there):
        left = size
        while left:
            left -= len(side.socket.recv(min(left, 1 << 20)))
    for sender in senders:
        sender.join(TIMEOUT)
        assert not sender.is_alive()


def test_the_limit_of_bodies_is_not_for_tunnels(balancer, backend):
    lb = balancer(backend(switch_and_echo), config={"limits": {"body": 10, "requests_per_connection": 1}})
    with ask(lb.port) as client:
        assert round_trip(client, b"x" * 100_000)


# ---- the end ---------------------------------------------------------------------------------------------------------


def test_the_client_has_finished_and_the_backend_has_not(tunnel, workers):
    lb, client, there = tunnel(workers=workers)
    client.send(b"all I have")
    client.half_close()
    assert there.rest() == b"all I have"
    assert lb.backend(there.backend)["in_flight"] == 1
    for word in (b"one ", b"two ", b"three"):
        there.send(word)
        assert client.exactly(len(word)) == word
    there.backend.released.set()
    assert client.rest() == b""
    all_over(lb)


def test_the_backend_has_finished_and_the_client_has_not(tunnel, workers):
    lb, client, there = tunnel(workers=workers)
    there.send(b"all I have")
    there.socket.shutdown(socket.SHUT_WR)
    assert client.rest() == b"all I have"
    for word in (b"one ", b"two ", b"three"):
        client.send(word)
        assert there.exactly(len(word)) == word
    client.close()
    assert there.rest() == b""
    all_over(lb)


@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_what_was_sent_before_the_end_arrives_before_it(tunnel, direction):
    """More than all buffers hold, then FIN: the other side reads slowly, and gets everything."""
    lb, client, there = tunnel(record=False)
    writer, reader = (client, there) if direction == "to the backend" else (there, client)
    n = 500
    sender = threading.Thread(target=lambda: ([writer.socket.sendall(block) for block in random_blocks(7, n)],
                                              writer.socket.shutdown(socket.SHUT_WR)), daemon=True)
    sender.start()
    reader.socket.shutdown(socket.SHUT_WR)  # so that the balancer has nothing more to wait for than this
    crc = 0
    while data := reader.socket.recv(50000):
        crc = zlib.crc32(data, crc)
    assert crc == zlib.crc32(b"".join(random_blocks(7, n)))
    sender.join(TIMEOUT)
    client.close()
    there.backend.released.set()
    all_over(lb)


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_passes_as_a_reset(tunnel, half_closed):
    for who in ("client", "backend"):
        lb, client, there = tunnel()
        if half_closed:
            (there if who == "client" else client).socket.shutdown(socket.SHUT_WR)
            assert (client if who == "client" else there).socket.recv(1) == b""
        breaks, notices = (client, there) if who == "client" else (there, client)
        try:
            breaks.reset()
        except EOFError:
            pass  # what a backend's reset() says
        with pytest.raises(ConnectionResetError):
            notices.socket.recv(1)
        all_over(lb)


def test_a_reset_of_one_whose_bytes_nobody_takes(tunnel):
    """The balancer does not read from it, because the other side takes no more; it must still notice, and tell."""
    noticing = []
    for who in ("client", "backend"):
        lb, client, there = tunnel(record=False)
        breaks, notices = (client, there) if who == "client" else (there, client)
        breaks.socket.setblocking(False)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.7:
            try:
                breaks.socket.send(b"x" * 100000)
                quiet_since = time.monotonic()
            except BlockingIOError:
                select.select([], [breaks.socket], [], 0.05)
        try:
            breaks.reset()
        except EOFError:
            pass
        noticing.append((lb, notices))
    for lb, notices in noticing:
        all_over(lb)
        with pytest.raises(ConnectionResetError):
            while notices.socket.recv(1 << 20):
                pass


def test_a_silent_tunnel_ends(tunnel, workers):
    began = time.monotonic()
    lb, client, there = tunnel(workers=workers, config={"timeouts": {"tunnel": "500ms"}})
    assert client.rest() == b"" and there.rest() == b""
    assert time.monotonic() - began > 0.45
    there.backend.released.set()
    all_over(lb)


def test_a_tunnel_in_which_something_moves_lives(tunnel):
    """Either way counts."""
    tunnels = [tunnel(config={"timeouts": {"tunnel": "1s"}}) for _ in range(2)]
    ways = [(tunnels[0][1], tunnels[0][2]), (tunnels[1][2], tunnels[1][1])]  # in one to the backend, in one from it
    end = time.monotonic() + 2.2
    while time.monotonic() < end:
        for sender, receiver in ways:
            sender.send(b"x")
            assert receiver.exactly(1) == b"x"
        time.sleep(0.2)
    assert [lb.total("tunnels") for lb, _, _ in tunnels] == [1, 1]
    for sender, receiver in ways:
        receiver.send(b"still")
        assert sender.exactly(5) == b"still"


def test_a_tunnel_that_stands_still_ends(tunnel):
    """One writes, the other does not read: nothing moves. What was cut must not look like a clean end."""
    lb, client, there = tunnel(record=False, config={"timeouts": {"tunnel": "700ms"}})

    def send():
        try:
            for block in random_blocks(1, 5000):
                there.send(block)
        except OSError:
            pass
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    eventually(lambda: lb.total("tunnels") == 0, "it is over")
    lb.wait_idle()
    with pytest.raises(ConnectionError):
        while client.socket.recv(1 << 20):
            pass
    sender.join(TIMEOUT)
    assert there.sent < 300_000_000, "it could send for ever"


@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_a_slow_reader_is_no_silence(tunnel, direction):
    """As long as it takes some bytes something moves, be it in buffers of the kernel."""
    lb, client, there = tunnel(record=False, receive_buffer=16384, config={"timeouts": {"tunnel": "1500ms"}})
    writer, reader = (client, there) if direction == "to the backend" else (there, client)
    n = 400

    def send():
        try:
            for block in random_blocks(9, n):
                writer.socket.sendall(block)
            writer.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass
    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    crc, size, end = 0, 0, time.monotonic() + 3.5
    while time.monotonic() < end:
        data = reader.socket.recv(4096)
        assert data != b"", f"a clean end behind {size} bytes of many more"
        crc, size = zlib.crc32(data, crc), size + len(data)
        time.sleep(0.1)
    assert lb.total("tunnels") == 1, "it was reading all the time"
    assert sender.is_alive(), "all was sent: that shows nothing"
    while data := reader.socket.recv(1 << 20):
        crc, size = zlib.crc32(data, crc), size + len(data)
    assert crc == zlib.crc32(b"".join(random_blocks(9, n)))
    sender.join(TIMEOUT)


def test_a_half_closed_tunnel_is_not_for_ever(tunnel):
    lb, client, there = tunnel(config={"timeouts": {"tunnel": "500ms"}})
    client.half_close()
    assert there.rest() == b""
    assert client.rest() == b""
    there.backend.released.set()
    all_over(lb)


def test_the_times_of_requests_do_not_hold_in_a_tunnel(tunnel):
    lb, client, there = tunnel(pool={"timeouts": {"response": "200ms", "idle": "200ms"},
                                     "keepalive": {"timeout": "200ms"}},
                               config={"timeouts": {"header": "200ms", "body": "200ms", "keepalive": "200ms"}})
    time.sleep(0.8)
    client.send(b"ping")
    assert there.exactly(4) == b"ping"
    there.send(b"pong")
    assert client.exactly(4) == b"pong"


# ---- what is counted -------------------------------------------------------------------------------------------------


def test_tunnels_are_in_flight_until_they_end(balancer, backend, workers):
    """least_conn must see them: a backend with two tunnels is busier than one with none."""
    backends = [backend(switch_if_asked) for _ in range(2)]
    lb = balancer(backends, workers=workers, pool={"balance": "least_conn"})
    tunnels = [ask(lb.port) for _ in range(4)]
    assert [lb.backend(there)["in_flight"] for there in backends] == [2, 2]
    assert lb.total("tunnels") == 4 and lb.vbctl("status")["in_flight"] == 4
    backends[1].released.set()
    backends[1].drop_connections()
    ended = eventually(lambda: len(found := select.select([c.socket for c in tunnels], [], [], 0)[0]) == 2 and found,
                       "two clients see the end")
    for client in tunnels:
        if client.socket in ended:
            client.close()
    eventually(lambda: [lb.backend(there)["in_flight"] for there in backends] == [2, 0], "two have ended")
    before = [len(there.requests) for there in backends]
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    assert [len(there.requests) - n for there, n in zip(backends, before)] == [0, 10]
    backends[0].released.set()
    for client in tunnels:
        client.close()
    all_over(lb)
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    assert len(backends[0].requests) > before[0]


def test_tunnels_are_requests_and_upgrades(balancer, backend):
    there = backend(switch_and_echo)
    lb = balancer(there)
    for _ in range(3):
        with ask(lb.port) as client:
            assert round_trip(client, b"x" * 100)
    all_over(lb)
    row = lb.backend(there)
    assert (row["requests"], row["errors"]) == (3, 0)
    assert row["upgrades"] == 3
    assert row["bytes_in"] >= 300 and row["bytes_out"] >= 300
    assert lb.vbctl("status")["requests"] == 3
    assert lb.total("client_aborts") == 0, "an end of a tunnel is no abort"


def test_nothing_is_lost_in_many_tunnels(balancer, backend):
    """Ended in all the ways there are; descriptors and memory come back."""
    def end_somehow(connection, request):
        connection.send(SWITCHES)
        how = connection.exactly(1)
        if how == b"r":
            connection.reset()
        if how == b"f":
            connection.close()
        while connection.socket.recv(65536):
            pass
        raise EOFError
    there = backend(end_somehow)
    lb = balancer(there, env=MEASURABLE)
    pid, = lb.worker_pids()

    def one(how):
        with ask(lb.port) as client:
            client.send(how)
            if how == b"R":
                client.reset()
            elif how != b"c":
                assert client.is_closed()

    def rounds(n):
        for _ in range(n):
            at_once(4, lambda i: one((b"r", b"f", b"R", b"c")[i]))
        all_over(lb)
    rounds(150)  # sanitizers take memory of their own for a while
    files, memory = open_files(pid), memory_kib(pid)
    rounds(100)
    eventually(lambda: open_files(pid) <= files, f"as many descriptors as before: {files}")
    assert memory_kib(pid) - memory < 1024


# ---- stop and crash --------------------------------------------------------------------------------------------------


def test_open_tunnels_survive_the_beginning_of_a_stop(balancer, backend, workers):
    lb = balancer(backend(switch_and_echo), workers=workers)
    tunnels = [ask(lb.port) for _ in range(8)]
    lb.ask_to_stop()
    eventually(lambda: is_refused(lb.port), "it stops")
    for client in tunnels:
        assert round_trip(client, b"x" * 100_000)
    assert lb.process.poll() is None
    for client in tunnels:
        client.close()
    lb.stop()  # at once, not after the 30 s that it would wait


def test_open_tunnels_are_cut_when_the_grace_is_over(balancer, backend, workers):
    lb = balancer(backend(switch_and_echo), workers=workers, config={"shutdown": {"grace": "700ms"}})
    tunnels = [ask(lb.port) for _ in range(8)]
    began = time.monotonic()
    lb.ask_to_stop()
    eventually(lambda: is_refused(lb.port), "it stops")
    if time.monotonic() - began < 0.4:
        assert all(round_trip(client) for client in tunnels)
    assert all(client.is_closed() for client in tunnels)
    assert time.monotonic() - began > 0.65
    lb.stop(timeout=10)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_killed_worker_takes_only_its_own_tunnels_with_it(balancer, backend, workers):
    there = backend(switch_and_echo)
    lb = balancer(there, workers=workers)
    tunnels = [ask(lb.port) for _ in range(24)]
    assert lb.backend(there)["in_flight"] == 24
    victim = max(lb.worker_rows(), key=lambda row: row["tunnels"])
    os.kill(victim["pid"], signal.SIGKILL)
    lb.wait_workers(without=[victim["pid"]])
    eventually(lambda: lb.total("tunnels") == 24 - victim["tunnels"], "its tunnels are given back")
    assert lb.backend(there)["in_flight"] == 24 - victim["tunnels"]
    alive = []
    for client in tunnels:
        try:
            alive.append(round_trip(client))
        except (Truncated, ConnectionError):
            pass
    assert alive == [True] * (24 - victim["tunnels"])
    with ask(lb.port) as client:
        assert round_trip(client)
    for client in tunnels:
        client.close()
    all_over(lb)


def test_a_killed_master_lets_tunnels_live_for_the_grace(balancer, backend):
    lb = balancer(backend(switch_and_echo), config={"shutdown": {"grace": "5s"}})
    with ask(lb.port) as client:
        lb.unclean = True
        os.kill(lb.pid, signal.SIGKILL)
        lb.process.wait()
        assert round_trip(client)
