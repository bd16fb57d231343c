"""Which worker gets a connection: no worker has many more than the others."""
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from harness import Client, Load, at_once, eventually, get, hang, open_files, reply


def spread(lb):
    """Connections of each worker, the most first."""
    return sorted((row["connections"] for row in lb.worker_rows()), reverse=True)


def settled(lb, n):
    return eventually(lambda: sum(spread(lb)) == n and spread(lb), f"{n} connections are there")


@pytest.mark.parametrize("n", [4, 8, 9, 40, 64])
def test_connections_that_stay_are_shared_out(balancer, backend, n):
    lb = balancer(backend(), workers=4)
    for _ in range(4):
        clients = []
        for _ in range(n):
            clients.append(Client(lb.port))
            assert clients[-1].get().status == 200
        counts = settled(lb, n)
        assert counts[0] <= -(-n // 4) + 1, counts
        for client in clients:
            client.close()
        settled(lb, 0)


def test_connections_that_come_at_once_are_shared_out(balancer, backend):
    lb = balancer(backend(), workers=4)
    clients = at_once(32, lambda i: Client(lb.port))
    assert at_once(32, lambda i: clients[i].get().status) == [200] * 32
    assert settled(lb, 32)[0] <= 11  # who decides in the same moment does not see the other
    for client in clients:
        client.close()


def test_those_that_leave_make_room(balancer, backend):
    """All of one worker's clients go away: it gets the next ones."""
    lb = balancer(backend(), workers=2)
    clients = [Client(lb.port) for _ in range(20)]
    for client in clients:
        client.get()
    for client in clients[::2]:
        client.close()
    settled(lb, 10)
    more = [Client(lb.port) for _ in range(10)]
    for client in more:
        client.get()
    assert settled(lb, 20)[0] <= 11
    for client in more + clients[1::2]:
        client.close()


@pytest.mark.parametrize("how", ["unix", "tcp"])
def test_whatever_they_come_through(balancer, backend, how):
    there = backend()
    path = Path("/tmp") / f"vb-steer-{os.getpid()}.sock"
    if how == "unix":
        lb = balancer(there, workers=4, config={"listen": [f"unix:{path}"]})
    else:
        lb = balancer(there, workers=4)
        path = lb.port
    clients = []
    for _ in range(8):
        clients.append(Client(path))
        assert clients[-1].get().status == 200
    assert settled(lb, 8)[0] <= 3
    for client in clients:
        client.close()


def test_the_client_is_known_wherever_it_is_served(balancer, backend):
    there = backend()
    lb = balancer(there, workers=4)
    clients = [Client(lb.port, source=f"127.0.0.{i + 2}") for i in range(16)]
    for client in clients:
        assert client.get().status == 200
    assert {r.field("X-Forwarded-For") for r in there.requests} == {f"127.0.0.{i + 2}" for i in range(16)}
    for client in clients:
        client.close()


def test_a_stuck_worker_gets_one_at_most(balancer, backend):
    """Besides those of its own queue: who is given a connection must have taken the one before."""
    lb = balancer(backend(), workers=2)
    busy = [Client(lb.port) for _ in range(10)]
    for client in busy:
        client.get()
    stuck = lb.worker_pids()[0]
    os.kill(stuck, signal.SIGSTOP)
    served = []
    try:
        clients = [Client(lb.port) for _ in range(40)]
        for client in clients:
            client.start("GET", "/")

        def answered():
            for client in clients:
                client.socket.settimeout(0.001)
                try:
                    if client not in served and client.response().status == 200:
                        served.append(client)
                except (TimeoutError, OSError):
                    pass
            return len(served) >= 40 - 32
        eventually(answered, "the other one serves its own")
        row, = [row for row in lb.worker_rows() if row["pid"] == stuck]
    finally:
        os.kill(stuck, signal.SIGCONT)
    for client in clients:
        client.socket.settimeout(20)
        if client not in served:
            assert client.response().status == 200
        client.close()
    for client in busy:
        client.close()


def test_what_lies_in_the_inbox_of_a_dead_worker_is_served(balancer, backend):
    lb = balancer(backend(), workers=2)
    pids = lb.worker_pids()
    for pid in pids[:1]:
        os.kill(pid, signal.SIGSTOP)
    clients = [Client(lb.port) for _ in range(20)]
    for client in clients:
        client.start("GET", "/")
    os.kill(pids[0], signal.SIGKILL)
    assert [client.response().status for client in clients] == [200] * 20
    lb.wait_workers(without=pids[:1])
    for client in clients:
        client.close()


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_steering_loses_nothing(balancer, backend, how):
    """New connections all the time, while workers die, and while all stop."""
    lb = balancer(backend(reply(headers=[("Connection", "close")])), workers=4)
    before = {pid: open_files(pid) for pid in lb.worker_pids()}
    with Load(lb.port, clients=8) as load:
        load.wait(200)
        if how == "kill":
            victim = lb.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            lb.wait_workers(without=[victim])
            load.wait(200)
    failed = Counter(number for number, _ in load.failures())
    assert all(count <= 1 for count in failed.values()), failed  # each client had one connection in that worker at most
    if how == "stop":
        assert not failed
    eventually(lambda: all(open_files(pid) <= before.get(pid, 100) + 4 for pid in lb.worker_pids()), "no leaks")
