"""What the machine does not give, or takes away: names, descriptors, room for the log and the segment, a worker.

test_pressure.py has a balancer with few descriptors from its start, and a log that nobody reads.
"""
import os
import resource
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import (Client, at_once, eventually, free_port, get, open_files, reply, run, to_yaml, unique_name)

CHECKS_SOON = {"interval": "200ms", "fast_interval": "100ms", "timeout": "1s", "fall": 2}

# ---- names -----------------------------------------------------------------------------------------------------------


def own_mounts(*commands):
    """A wrapper that runs a program in a mount namespace of its own, after these commands in it."""
    unshare = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-r", "-m"]
    wrapper = [*unshare, "sh", "-ec", "\n".join([*commands, 'exec "$@"']), "sh"]
    try:
        if subprocess.run([*wrapper, "true"], capture_output=True).returncode == 0:
            return wrapper
    except FileNotFoundError:
        pass
    pytest.skip("no mount namespaces here")


class Names:
    """/etc/hosts of a balancer alone; behind it a DNS server, if `server` is its address."""

    def __init__(self, folder, name, server=None):
        self.hosts, self.name = folder / "hosts", name
        self.set("127.0.0.1")
        (folder / "nsswitch.conf").write_text(f"hosts: files {'dns' if server else ''}\n")
        (folder / "resolv.conf").write_text(f"nameserver {server or '127.0.0.1'}\n")
        self.wrapper = own_mounts(*(f"mount --bind '{folder}/{file}' /etc/{file}"
                                    for file in ("hosts", "nsswitch.conf", "resolv.conf")))

    def set(self, address):
        self.hosts.write_text(f"{address} {self.name}\n" if address else "")


def goes_on_with_the_old_address(there, name):
    """Also when the backend went and came meanwhile, which makes the balancer look for its name again."""
    victim = there.recorders[0]
    with there.load() as load:
        load.wait(300)
        victim.kill()
        there.lb.wait_health(name, "down")
        victim.start()
        there.lb.wait_health(name, "up")
        before = there.lb.backend(name)["requests"]
        eventually(lambda: there.lb.backend(name)["requests"] > before, "it is given requests again")
        load.wait(100)
    there.report("a name that is no more", load)
    assert load.failures() == []


def named(name):
    return lambda recorders: [f"{name}:{recorders[0].port}", *recorders[1:]]


def start_named(town, names):
    there = town(wrapper=names.wrapper, backends=named(names.name), pool={"health": CHECKS_SOON})
    name = f"{names.name}:{there.recorders[0].port}"
    there.lb.wait_health(name, "up")
    return there, name


def test_a_name_that_stops_resolving(town, tmp_path):
    names = Names(tmp_path, "there.test")
    there, name = start_named(town, names)
    names.set(None)
    goes_on_with_the_old_address(there, name)


def test_a_resolver_that_dies(town, tmp_path):
    """It takes queries and answers none, for as long as anybody would wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        try:
            server.bind(("127.83.79.1", 53))
        except OSError as error:
            pytest.skip(f"no DNS port: {error}")
        names = Names(tmp_path, "there.test", server="127.83.79.1")
        there, name = start_named(town, names)
        names.set(None)
        goes_on_with_the_old_address(there, name)
        server.setblocking(False)
        assert b"there" in server.recv(512), "it was asked"


# ---- descriptors -----------------------------------------------------------------------------------------------------


@contextmanager
def few_files(pid, more):
    """A process that may open `more` files and no more."""
    open_now = {int(fd) for fd in os.listdir(f"/proc/{pid}/fd")}
    limit = more
    while limit - len({fd for fd in open_now if fd < limit}) < more or limit <= max(open_now):
        limit += 1
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    assert limit - len(open_now) == more, "there are holes"
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, before[1]))
    yield
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_no_descriptor_for_a_connection_to_a_backend_is_our_failure(balancer, backend):
    """500, and neither an error of the backend nor a reason to eject it."""
    there = backend(reply(headers=[("Connection", "close")]))
    lb = balancer([there, backend(reply(headers=[("Connection", "close")]))])
    pid, = lb.worker_pids()
    with Client(lb.port) as client:
        assert client.get().status == 200
        eventually(lambda: not any(connection.is_open for connection in there.connections), "both sides have closed")
        with few_files(pid, 0):
            for _ in range(20):
                response = client.get()
                assert response.status == 500
                if response.closes:
                    break
    rows = lb.vbctl("backends")["backends"]
    assert [row["errors"] for row in rows] == [0, 0] and lb.total("failed") >= 1
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    assert all(row["responses_2xx"] >= 5 for row in lb.vbctl("backends")["backends"]), "both are used"
    lb.wait_idle()


def test_clients_wait_for_a_descriptor(balancer, backend):
    """Those in the queue of the listening socket are served when there is room again, without anybody else's help."""
    lb = balancer(backend())
    pid, = lb.worker_pids()
    assert get(lb.port).status == 200  # there is a kept connection now
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "nobody is there")
    with few_files(pid, 1):
        first = Client(lb.port)
        assert first.get().status == 200
        waiting = [Client(lb.port) for _ in range(5)]
        for client in waiting:
            client.start("GET", "/")
        assert first.get().status == 200, "the one who is in is served meanwhile"
        assert lb.vbctl("status")["connections"] == 1
    for client in waiting:
        assert client.response().status == 200
        client.close()
    first.close()
    assert lb.worker_pids() == [pid]


@pytest.mark.parametrize("workers", [1, 4], ids=lambda n: f"workers={n}")
def test_descriptors_run_out_under_load(town, workers):
    """... while backends close connections, so that new ones are needed, for first tries and for further ones."""
    there = town(workers=workers, how={"drop_kept": 0.15}, pool={"keepalive": {"timeout": "300ms"}})
    pids = there.lb.worker_pids()
    before = [open_files(pid) for pid in pids]
    limits = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
    with there.load() as load:
        load.wait(200)
        for pid, files, limit in zip(pids, before, limits):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (files + 4, limit[1]))
        load.wait(300)
        for pid, limit in zip(pids, limits):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        load.last(0.5)
        settled = len(load.sent)
        load.wait(300)
    there.report(f"no descriptors, {workers} workers", load)
    assert {sent.outcome for sent in load.failures()} == {500}
    assert [sent for sent in load.sent[settled + 16:] if sent.outcome != 200] == []
    rows = there.lb.vbctl("backends")["backends"]
    assert sum(row["errors"] for row in rows) == 0
    assert "EJECTED" not in there.lb.log()
    there.wait_quiet()
    assert there.lb.worker_pids() == pids, "a worker died"
    for pid, files in zip(pids, before):
        eventually(lambda: open_files(pid) <= files, "the descriptors are given back")


# ---- room ------------------------------------------------------------------------------------------------------------


def test_no_room_for_the_log(balancer, backend):
    """A full disk: requests do not notice, and what could not be written is counted."""
    with open("/dev/full", "wb") as full:
        lb = balancer([backend(), f"127.0.0.1:{free_port()}"], workers=2, stderr=full,
                      pool={"outlier": "off", "retry": "off"})
    statuses = [get(lb.port).status for _ in range(200)]
    assert statuses.count(200) == statuses.count(502) == 100
    eventually(lambda: lb.vbctl("status")["log_lost"] >= 100, "lost lines are counted")


def test_no_room_for_the_segment(tmp_path):
    """One sentence that names it; a write into what is not there would be a SIGBUS."""
    folder = tmp_path / "shm"
    folder.mkdir()
    file = tmp_path / "vibebalancer.yaml"
    file.write_text(to_yaml({"listen": f"127.0.0.1:{free_port()}", "pools": {"web": {"backends": ["127.0.0.1:9"]}}}))
    wrapper = own_mounts(f"mount -t tmpfs -o size=64k none '{folder}'")
    result = run("vibebalancer", "-c", file, "--name", unique_name(), "--segment", folder / "segment", wrapper=wrapper)
    assert result.returncode == 1, result
    assert len(result.stderr.splitlines()) == 1 and str(folder) in result.stderr, result.stderr


# ---- workers ---------------------------------------------------------------------------------------------------------


def test_workers_that_die_while_requests_are_tried_again(town):
    """What a dead worker held is given back: requests in flight, and the places of circuit_breaker, to the last one."""
    pool = {"outlier": "off", "retry": {"budget": "100%"}, "circuit_breaker": {"max_requests": 32, "max_pending": 32}}
    there = town(workers=4, pool=pool)
    lb = there.lb
    there.recorders[0].set(do="reset")
    with there.load() as load:
        load.wait(100)
        for _ in range(4):
            victim = max(lb.worker_rows(), key=lambda row: row["connections"])["pid"]
            before = there.retried()
            eventually(lambda: there.retried() > before, "requests are tried again")
            os.kill(victim, signal.SIGKILL)
            lb.wait_workers(without=[victim])
            load.wait(100)
    there.report("kill -9 of 4 workers while a backend resets", load)
    answered = [sent for sent in load.failures() if isinstance(sent.outcome, int)]
    assert answered == [], "a lost connection is no error page"
    there.wait_quiet()
    for recorder in there.recorders:
        recorder.set(do="delay", delay=1)
    assert [response.status for response in at_once(32, lambda i: get(lb.port, f"/r/last-{i}"))] == [200] * 32
    assert lb.total("overloaded") == 0
    assert {response.status for response in at_once(33, lambda i: get(lb.port, f"/r/more-{i}"))} == {200, 503}
