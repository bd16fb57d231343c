"""Changes at run time: vbctl asks the master through its socket, all workers follow (design.md 4)."""
import json
import os
import random
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections import Counter

import pytest
from harness import BUILD, Client, Load, at_once, eventually, free_port, get, hang, reply, run, unique_name

FAST = {"health": {"path": "/health", "interval": "100ms", "fast_interval": "50ms", "timeout": "1s"}}


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def vbctl(lb, *args):
    return run("vbctl", "--name", lb.name, *args)


def do(lb, *args):
    """What vbctl says; the command must have been done."""
    result = vbctl(lb, *args)
    assert result.returncode == 0 and result.stderr == "", (args, result)
    return result.stdout.rstrip("\n")


def refused(lb, *args):
    result = vbctl(lb, *args)
    assert result.returncode == 1 and result.stdout == "" and len(result.stderr.splitlines()) == 1, (args, result)
    return result.stderr


def requests_of(backend):
    """Those of clients."""
    return [request for request in backend.requests if request.target != "/health"]


def checks_of(backend):
    return [request for request in backend.requests if request.target == "/health"]


def named(backends):
    return [{"address": b, "name": f"b{i + 1}"} for i, b in enumerate(backends)]


def changes(lb):
    return [(row["name"], row["change"]) for row in lb.vbctl("status")["changes"]]


def gated(gate):
    """Answers a request for /slow when the gate is opened, and all others at once."""
    def answer(connection, request):
        if request.target == "/slow":
            gate.wait(30)
        connection.send(reply(request.target))
    return answer


# ---- commands --------------------------------------------------------------------------------------------------------


def test_drain_loses_nothing_and_nothing_follows(balancer, backend, workers):
    a, b = backend(), backend()
    lb = balancer(named([a, b]), workers=workers)
    with Load(lb.port, clients=12) as load:
        load.wait(200)
        said = do(lb, "drain", "web/b2", "--wait").splitlines()
        arrived = len(b.requests)
        assert said[0].startswith("web/b2 drains") and said[1] == "web/b2 is empty"
        load.wait(200)
        assert len(b.requests) == arrived > 0
        assert lb.backend("b2")["state"] == "drain" and lb.backend("b2")["in_flight"] == 0
        assert do(lb, "ready", "web/b2") == "web/b2 is ready"
        b.wait_requests(arrived + 50)
        load.wait(50)
    assert load.failures() == []
    assert lb.backend("b2")["state"] == "ready" and changes(lb) == []


def test_wait_lasts_as_long_as_the_last_request(balancer, backend):
    gate = threading.Event()
    a, b = backend(), backend(gated(gate))
    lb = balancer(named([a, b]))
    do(lb, "drain", "web/b1")
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        b.wait_requests(1)
        do(lb, "ready", "web/b1")
        assert do(lb, "drain", "web/b2") == "web/b2 drains; 1 request in flight"
        waiting = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "drain", "web/b2", "--wait"],
                                   stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == "web/b2 drains; 1 request in flight\n"
        time.sleep(0.2)
        assert waiting.poll() is None, "it waits"
        gate.set()
        assert client.response().body == b"/slow"
    assert waiting.stdout.read() == "web/b2 is empty\n" and waiting.wait(20) == 0
    waiting.stdout.close()
    assert do(lb, "drain", "web/b2") == "web/b2 drains and is empty"
    assert "drain, empty" in vbctl(lb, "backends").stdout


def test_wait_ends_when_it_is_made_ready_again(balancer, backend):
    there = backend(hang)
    lb = balancer(named([there]))
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        waiting = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "drain", "web/b1", "--wait"],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert "1 request in flight" in waiting.stdout.readline()
        do(lb, "ready", "web/b1")
        said, complained = waiting.communicate(timeout=20)
        assert waiting.returncode == 1 and said == "" and "takes requests again" in complained
        there.released.set()


def test_the_last_usable_one_may_drain_but_it_is_said(balancer, backend):
    lb = balancer(named([backend(), backend()]))
    assert "usable" not in do(lb, "drain", "web/b1")
    assert do(lb, "drain", "web/b2") == "web/b2 drains and is empty; no backend of web is usable now"
    assert get(lb.port).status == 503
    do(lb, "ready", "web/b2")
    assert get(lb.port).status == 200


def test_weight_changes_the_split_exactly(balancer, demos, workers):
    a, b = demos(2)
    lb = balancer(named([a, b]), workers=workers)
    assert do(lb, "weight", "web/b1", "5") == "web/b1 has weight 5 (the file says 1)"
    names = [get(lb.port).field("X-Backend") for _ in range(36)]
    assert all(Counter(names[i:i + 6]) == {"a": 5, "b": 1} for i in range(31)), names
    assert changes(lb) == [("b1", "weight")]
    assert "web/b1: weight 5, file says 1" in vbctl(lb, "status").stdout
    assert do(lb, "weight", "web/b1", "1") == "web/b1 has weight 1, as the file says"
    assert changes(lb) == []
    assert Counter(get(lb.port).field("X-Backend") for _ in range(12)) == {"a": 6, "b": 6}


def test_one_added_gets_nothing_before_its_first_check_passed(balancer, backend, workers):
    well = threading.Event()

    def answer(connection, request):
        ok = request.target != "/health" or well.is_set()
        request.ok = ok
        connection.send(reply(status="200 OK" if ok else "500 No"))
    a, new = backend(), backend(answer)
    lb = balancer(named([a]), workers=workers, pool=FAST)
    with Load(lb.port, clients=8) as load:
        assert do(lb, "add", "web", new.address, "2") == f"web/{new.address} added"
        eventually(lambda: len(checks_of(new)) >= 3, "3 checks that fail")
        load.wait(100)
        assert requests_of(new) == []
        well.set()
        eventually(lambda: len(requests_of(new)) > 50, "requests for the new one")
        load.wait(50)
    assert load.failures() == []
    first = next(i for i, request in enumerate(new.requests) if request.target != "/health")
    assert any(request.target == "/health" and request.ok for request in new.requests[:first])
    row = lb.backend(new)
    assert (row["weight"], row["configured"], row["configured_weight"]) == (2, False, None)
    assert changes(lb) == [(new.address, "added")]
    assert f"web/{new.address}: added" in vbctl(lb, "status").stdout


def test_one_that_never_answers_a_check_gets_nothing(balancer, backend):
    lb = balancer(named([backend()]), pool=FAST)
    port = free_port()
    do(lb, "add", "web", f"127.0.0.1:{port}")
    lb.wait_health(f"127.0.0.1:{port}", "down")
    assert {get(lb.port).status for _ in range(10)} == {200}


def test_added_where_nothing_is_checked(balancer, backend, workers):
    a, new = backend(), backend()
    lb = balancer(named([a]), workers=workers)
    do(lb, "add", "web", f"http://{new.address}/")
    eventually(lambda: lb.backend(new)["health"] == "unchecked", "it is taken as it is")
    before = len(new.requests)
    assert {get(lb.port).status for _ in range(10)} == {200}
    assert len(new.requests) - before == 5


def test_remove_lets_requests_finish(balancer, backend, workers):
    gate = threading.Event()
    a, b, c = backend(), backend(gated(gate)), backend()
    lb = balancer(named([b, a]), workers=workers)
    do(lb, "drain", "web/b2")
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        b.wait_requests(1)
        do(lb, "ready", "web/b2")
        assert do(lb, "remove", "web/b1") == "web/b1 removed; 1 request in flight finishes"
        assert changes(lb) == [("b1", "removed")]
        assert [row["name"] for row in lb.vbctl("backends")["backends"]] == ["b2"]
        do(lb, "add", "web", c.address)  # not into the place of one that still has a request
        eventually(lambda: lb.backend(c)["health"] == "unchecked", "the new one")
        for _ in range(10):
            assert get(lb.port).status == 200
        assert len(b.requests) == 1 and len(c.requests) == 5
        assert lb.backend(c)["in_flight"] == 0
        gate.set()
        assert client.response().body == b"/slow"
    assert do(lb, "add", "web", b.address) == "web/b1 added", "the file names it"
    eventually(lambda: lb.backend("b1")["health"] == "unchecked", "it is back")
    lb.wait_idle()
    for _ in range(9):
        assert get(lb.port).status == 200
    assert (len(b.requests), len(c.requests)) == (4, 8)
    assert changes(lb) == [(c.address, "added")]


def test_one_that_comes_back_while_it_still_has_a_request(balancer, backend, workers):
    gate = threading.Event()
    there = backend(gated(gate))
    lb = balancer(named([there]), workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        there.wait_requests(1)
        do(lb, "remove", "web/b1")
        assert get(lb.port).status == 503
        do(lb, "add", "web", "b1")
        eventually(lambda: lb.backend("b1")["health"] == "unchecked", "it is back")
        assert get(lb.port, "/quick").body == b"/quick"
        assert lb.backend("b1")["in_flight"] == 1 and changes(lb) == []
        gate.set()
        assert client.response().body == b"/slow"
    lb.wait_idle()


def test_one_that_comes_back_has_the_limits_of_the_file(balancer, backend):
    there, new = backend(), backend()
    lb = balancer([{"address": there, "name": "b1", "max_connections": 7, "backup": True}])
    do(lb, "remove", "web/b1")
    do(lb, "add", "web", new.address)
    do(lb, "add", "web", "b1")
    assert [(row["max_connections"], row["backup"]) for row in map(lb.backend, (there, new))] == [(7, True), (0, False)]


def test_remove_waits_too(balancer, backend):
    gate = threading.Event()
    there = backend(gated(gate))
    lb = balancer(named([there]))
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        there.wait_requests(1)
        waiting = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "remove", "web/b1", "--wait", "--json"],
                                   stdout=subprocess.PIPE, text=True)
        lb.wait_log("web/b1 removed")
        time.sleep(0.2)
        assert waiting.poll() is None, "it waits"
        gate.set()
        assert client.response().status == 200
        assert json.loads(waiting.communicate(timeout=20)[0]) == {"ok": True, "message": "web/b1 is empty"}
        assert waiting.returncode == 0


def test_maintenance_stops_checks_too(balancer, backend, workers):
    a, b = backend(), backend()
    lb = balancer(named([a, b]), workers=workers, pool=FAST)
    for there in (a, b):
        lb.wait_health(there, "up")
    assert do(lb, "maint", "web/b2") == "web/b2 is in maintenance and is empty"
    so_far = len(checks_of(b))
    eventually(lambda n=len(checks_of(a)): len(checks_of(a)) >= n + 10, "10 checks of the other")
    assert len(checks_of(b)) <= so_far + 1, "one may have been on its way"
    assert len(requests_of(b)) == 0
    for _ in range(10):
        assert get(lb.port).status == 200
    assert len(requests_of(b)) == 0 and lb.backend("b2")["state"] == "maint"
    so_far = len(checks_of(b))
    do(lb, "ready", "web/b2")
    lb.wait_health(b, "up")
    assert len(checks_of(b)) > so_far
    for _ in range(10):
        assert get(lb.port).status == 200
    assert len(requests_of(b)) == 5


# ---- how long it holds -----------------------------------------------------------------------------------------------


def test_changes_survive_the_death_of_each_worker(balancer, demos, workers):
    a, b, c, d = demos(4)
    lb = balancer(named([a, b, c]), workers=workers)
    do(lb, "weight", "web/b1", "5")
    do(lb, "drain", "web/b2")
    do(lb, "remove", "web/b3")
    do(lb, "add", "web", d.address)
    eventually(lambda: lb.backend(d)["health"] == "unchecked", "the new one")
    before = changes(lb)
    assert before == [("b1", "weight"), ("b2", "drain"), ("b3", "removed"), (d.address, "added")]
    old = lb.worker_pids()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=old)
    assert changes(lb) == before
    assert Counter(get(lb.port).field("X-Backend") for _ in range(24)) == {"a": 20, "d": 4}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_new_master_restores_the_file(balancer, demos, how):
    a, b = demos(2)
    lb = balancer(named([a, b]), workers=2)
    do(lb, "weight", "web/b1", "7")
    do(lb, "remove", "web/b2")
    left = lb.control.stat().st_ino
    if how == signal.SIGTERM:
        lb.stop()
    else:
        lb.unclean = True
        os.kill(lb.pid, how)
        lb.wait()
        assert lb.control.stat().st_ino == left, "the dead one's socket is there"
        assert "the master is gone" in refused(lb, "ready", "web/b1") or "not running" in refused(lb, "ready", "web/b1")
    again = balancer(named([a, b]), workers=2, name=lb.name)
    assert changes(again) == []
    assert Counter(get(again.port).field("X-Backend") for _ in range(12)) == {"a": 6, "b": 6}
    assert do(again, "drain", "web/b1") == "web/b1 drains and is empty", "its socket is a new one"


# ---- refusals --------------------------------------------------------------------------------------------------------


def test_refusals_say_what_to_do(balancer, backend):
    a, b = backend(), backend()
    lb = balancer(named([a, b]), config={"segment": {"backends": 2}})
    for words, part in [
            (("drain", "api/b1"), "there is no pool 'api'; the pools are: web"),
            (("drain", "web/b3"), "pool web has no backend 'b3'; its backends are: b1, b2"),
            (("drain", "web"), "'web' is not POOL/BACKEND"),
            (("drain", "/b1"), "is not POOL/BACKEND"),
            (("weight", "web/b1", "0"), "from 1 to 256; to send nothing to it use drain"),
            (("weight", "web/b1", "257"), "from 1 to 256"),
            (("weight", "web/b1", "-1"), "from 1 to 256"),
            (("weight", "web/b1", "1x"), "from 1 to 256"),
            (("add", "api", "127.0.0.1:1"), "there is no pool 'api'"),
            (("add", "web", "127.0.0.1"), "`127.0.0.1` has no port"),
            (("add", "web", "127.0.0.1:1", "1000"), "from 1 to 256"),
            (("add", "web", "b" * 60 + ".example:80"), "longer than the 63 bytes"),
            (("add", "web", "127.0.0.1:1"), "raise `segment.backends`"),
            (("drain", "web/\x1b[31m" + "x" * 3000), "pool web has no backend '?[31mxxx")]:
        assert part in refused(lb, "--", *words), words
    assert [row["name"] for row in lb.vbctl("backends")["backends"]] == ["b1", "b2"] and changes(lb) == []


def test_a_name_that_is_taken(balancer, backend):
    there = backend()
    lb = balancer(there)
    assert "already" in refused(lb, "add", "web", f"http://{there.address}")


def test_an_address_that_the_file_would_refuse(balancer, backend):
    lb = balancer(backend(), pool={"health": {"port": free_port()}})
    assert "means nothing for a unix socket" in refused(lb, "add", "web", "unix:/tmp/s")


def test_many_names_do_not_flood(balancer):
    lb = balancer([f"127.0.0.1:{port}" for port in range(1, 101)])
    said = refused(lb, "drain", "web/x")
    assert said.endswith(", ...\n") and 200 < len(said) < 700


def test_a_unix_socket_has_slashes_in_its_name(balancer, backend):
    with tempfile.TemporaryDirectory() as folder:  # a short path: it is to be a name
        slashes_in_names(balancer, backend, f"{folder}/s")


def slashes_in_names(balancer, backend, path):
    there = backend(path=path)
    lb = balancer(backend())
    name = f"unix:{there.path}"
    assert do(lb, "add", "web", name) == f"web/{name} added"
    assert do(lb, "drain", f"web/{name}").startswith(f"web/{name} drains")


def test_json_says_the_same(balancer, backend):
    lb = balancer(named([backend()]))
    assert lb.vbctl("weight", "web/b1", "2") == {"ok": True, "message": "web/b1 has weight 2 (the file says 1)"}
    result = vbctl(lb, "drain", "web/x", "--json")
    document = json.loads(result.stdout)
    assert result.returncode == 1 and document["ok"] is False and document["message"] in result.stderr


def test_a_pool_that_is_not_the_first_of_the_file(balancer, backend):
    """What the file says of a pool is found by its name."""
    lb = balancer(backend(), config={"pools": {
        "a": {"backends": [backend()]}, "b": {"backends": [backend()], "health": {"port": free_port()}}}})
    assert "means nothing for a unix socket" in refused(lb, "add", "b", "unix:/tmp/s")
    assert do(lb, "add", "a", "unix:/tmp/s") == "a/unix:/tmp/s added"


def test_each_change_is_one_line_in_the_log(balancer, backend):
    lb = balancer(named([backend()]))
    for words in (("drain", "web/b1"), ("drain", "web/b1"), ("drain", "web/x"), ("weight", "web/b1", "1"),
                  ("weight", "web/b1", "2"), ("ready", "web/b1"), ("ready", "web/b1")):
        vbctl(lb, *words)
    lines = [line.partition("vbctl: ")[2] for line in lb.wait_log("vbctl: web/b1 is ready")] and \
            [line.partition("vbctl: ")[2] for line in lb.wait_log("vbctl: ")]
    assert lines == ["web/b1 drains", "web/b1 has weight 2 (the file says 1)", "web/b1 is ready"]


def test_nothing_is_changed_any_more_while_it_stops(balancer, backend):
    there = backend(hang)
    lb = balancer(named([there]))
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        lb.wait_log("finishing requests")
        assert "is stopping" in refused(lb, "drain", "web/b1")
        there.released.set()


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_stop_finishes_requests_and_returns_when_all_is_over(balancer, backend, workers):
    gate = threading.Event()
    there = backend(gated(gate))
    lb = balancer(named([there]), workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        there.wait_requests(1)
        waiting = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "stop"], stdout=subprocess.PIPE, text=True)
        assert waiting.stdout.readline() == f"{lb.name} finishes requests and stops, within 30.0 s\n"
        lb.wait_log("finishing requests")
        assert waiting.poll() is None and lb.process.poll() is None, "it waits"
        gate.set()
        assert client.response().body == b"/slow"
    assert waiting.communicate(timeout=20)[0] == f"{lb.name} has stopped\n" and waiting.returncode == 0
    assert lb.wait() == 0 and not lb.segment.exists() and not lb.control.exists()
    assert lb.name in refused(lb, "stop")


def test_two_who_stop_it_lose_no_request(balancer, backend):
    """Two signals would: it is to be asked for, with --now."""
    gate = threading.Event()
    there = backend(gated(gate))
    lb = balancer(named([there]))
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        there.wait_requests(1)
        os.kill(lb.pid, signal.SIGSTOP)  # all of them shall come at once
        stops = [subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "stop", "--json"], stdout=subprocess.PIPE)
                 for _ in range(5)]
        eventually(lambda: len(requests_waiting(lb)) == 5, "5 requests")
        os.kill(lb.pid, signal.SIGCONT)
        assert len(lb.wait_log("vbctl: stop", 5)) == 5
        gate.set()
        assert client.response().body == b"/slow"
    said = [json.loads(stop.communicate(timeout=20)[0]) for stop in stops]
    assert said == [{"ok": True, "message": f"{lb.name} has stopped"}] * 5
    assert lb.wait() == 0


def requests_waiting(lb):
    """Connections to the control socket, as the kernel knows them."""
    with open("/proc/net/unix") as table:
        return [line for line in table if line.rstrip().endswith(str(lb.control)) and line.split()[5] in ("02", "03")]


@pytest.mark.parametrize("asked_before", [False, True])
def test_stop_now_does_not_wait_for_requests(balancer, backend, asked_before):
    there = backend(hang)
    lb = balancer(named([there]), workers=2)
    with Client(lb.port) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        if asked_before:
            lb.ask_to_stop()
            lb.wait_log("finishing requests")
        assert do(lb, "stop", "--now") == f"{lb.name} stops now\n{lb.name} has stopped"
        assert lb.wait() == 0
        assert client.is_closed()
    lb.wait_log("stopping now")


# ---- the socket ------------------------------------------------------------------------------------------------------


def connect(lb):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(20)
    sock.connect(str(lb.control))
    return sock


def answer_to(sock, request):
    """What comes back for these bytes and an end."""
    parts = []
    try:
        sock.sendall(request)
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # it may have answered before it was sent all
    try:
        while part := sock.recv(4096):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def test_only_its_user_may_use_the_socket(balancer, backend):
    lb = balancer(named([backend()]))
    assert stat.filemode(lb.control.stat().st_mode) == "srw-------"
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    result = run("vbctl", "--name", lb.name, "drain", "web/b1", wrapper=other)
    if "Permission denied" in result.stderr and "run vbctl as" not in result.stderr:
        pytest.skip("another user does not reach the program")
    assert result.returncode == 1 and "run vbctl as the user of the master or as root" in result.stderr
    assert run("vbctl", "--name", lb.name, "status", wrapper=other).returncode == 0, "looking is for everybody"
    assert changes(lb) == []


def test_workers_do_not_have_the_socket(balancer, backend):
    lb = balancer(named([backend()]), workers=2)
    do(lb, "drain", "web/b1")
    with open("/proc/net/unix") as table:
        inodes = {line.split()[6] for line in table if line.rstrip().endswith(str(lb.control))}
    assert len(inodes) > 0

    def sockets(pid):
        found = set()
        for fd in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            found.add(target[len("socket:["):-1] if target.startswith("socket:[") else None)
        return found
    assert sockets(lb.pid) & inodes
    for pid in lb.worker_pids():
        assert not sockets(pid) & inodes


def test_garbage_does_not_disturb(balancer, backend):
    lb = balancer(named([backend()]), workers=2)
    rng = random.Random(7)
    for request in (b"", b"\0", b"\0" * 8, b"\0" * 9, b"drain", b"drain\0", b"drain\0web/b1\0x\0", b"nonsense\0web/b1\0",
                    b"add\0web\0\0", b"reload\0x\0", b"stop\0later\0", b"weight\0web/b1\0" + b"9" * 4000 + b"\0", b"x" * 4096, b"x" * 4095 + b"\0",
                    b"drain\0" + b"y" * 100000, *(rng.randbytes(rng.randrange(1, 6000)) for _ in range(30))):
        with connect(lb) as sock:
            answer = answer_to(sock, request)
            assert answer[:1] in (b"1", b""), (request[:40], answer)
            assert answer[:1] == b"1" or len(request) > 4096, (request[:40], answer)
            assert answer.isascii() and len(answer) <= 4096
    for request in (b"", b"dra", b"drain\0web/b1"):
        connect(lb).close()
        with connect(lb) as sock:
            sock.sendall(request)  # and away without an end of its own
    assert get(lb.port).status == 200
    assert do(lb, "weight", "web/b1", "3") == "web/b1 has weight 3 (the file says 1)"
    assert lb.backend("b1")["weight"] == 3


def test_a_client_that_says_nothing_is_cut(balancer, backend):
    lb = balancer(named([backend()]))
    with connect(lb) as silent, connect(lb) as half:
        half.sendall(b"drain\0web/")
        assert silent.recv(1) == b""
        try:
            assert half.recv(1) == b""
        except ConnectionResetError:
            pass
    assert changes(lb) == []


def test_idle_connections_do_not_keep_others_away(balancer, backend):
    lb = balancer(named([backend()]))
    idle = [connect(lb) for _ in range(40)]
    try:
        for _ in range(3):
            do(lb, "drain", "web/b1")
            do(lb, "ready", "web/b1")
    finally:
        for sock in idle:
            sock.close()


def test_many_commands_at_once_are_all_answered(balancer, backend):
    lb = balancer(named([backend(), backend()]))
    results = at_once(40, lambda i: vbctl(lb, "weight", "web/b1", i + 1))
    assert [(r.returncode, r.stderr) for r in results] == [(0, "")] * 40
    assert lb.backend("b1")["weight"] in range(1, 41)


def test_it_can_be_turned_off(balancer, backend):
    lb = balancer(named([backend()]), config={"admin": {"socket": "off"}})
    assert not lb.control.exists()
    assert "`admin.socket` turns it off" in refused(lb, "drain", "web/b1")
    assert lb.vbctl("status")["changes"] == []


def test_it_may_be_elsewhere(balancer, backend, tmp_path):
    path = tmp_path / "control"
    lb = balancer(named([backend(), backend()]), config={"admin": {"socket": path}})
    assert stat.filemode(path.stat().st_mode) == "srw-------" and not lb.control.exists()
    assert do(lb, "drain", "web/b1") == "web/b1 drains and is empty"
    lb.stop()
    assert not path.exists()


def test_somebody_elses_socket_is_left_alone(balancer, backend, tmp_path):
    path = tmp_path / "control"
    first, second = (balancer(named([backend(), backend()]), config={"admin": {"socket": path}}) for _ in range(2))
    second.wait_log(f"warn .*{path}: another process listens there")
    assert "its log says why" in refused(second, "drain", "web/b1")
    assert get(second.port).status == 200
    second.stop()
    assert do(first, "drain", "web/b1") == "web/b1 drains and is empty"
    first.stop()
    assert not path.exists()


def test_what_is_no_socket_is_left_alone(balancer, backend, tmp_path):
    path = tmp_path / "control"
    path.write_text("diary")
    lb = balancer(named([backend()]), config={"admin": {"socket": path}})
    lb.wait_log("warn .*no socket")
    lb.stop()
    assert path.read_text() == "diary"


def test_a_path_that_is_too_long(balancer, backend, tmp_path):
    lb = balancer(named([backend()]))
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    segment, log = folder / "segment", tmp_path / "log"
    lb.stop()
    with open(log, "wb") as stderr:
        process = subprocess.Popen([BUILD / "vibebalancer", "-c", lb.file, "--name", unique_name(), "--segment", segment,
                                    "--workers", "1"], stderr=stderr)
    try:
        eventually(lambda: run("vbctl", "--segment", segment, "status").returncode == 0, "it runs")
        eventually(lambda: b" serves" in log.read_bytes(), "it serves")
        assert get(lb.port).status == 200
        result = run("vbctl", "--segment", segment, "drain", "web/b1")
        assert result.returncode == 1 and "its log says why" in result.stderr
        assert b"`admin.socket`" in log.read_bytes()
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert list(folder.iterdir()) == []


def test_a_relative_segment_path_works_from_elsewhere(balancer, backend, tmp_path):
    lb = balancer(named([backend()]))
    lb.stop()
    process = subprocess.Popen([BUILD / "vibebalancer", "-c", lb.file, "--name", unique_name(), "--segment", "segment",
                                "--workers", "1"], stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        eventually(lambda: run("vbctl", "--segment", tmp_path / "segment", "status").returncode == 0, "it runs")
        result = run("vbctl", "--segment", tmp_path / "segment", "drain", "web/b1", cwd="/")
        assert result.returncode == 0, result
    finally:
        process.terminate()
        assert process.wait(20) == 0
    assert not (tmp_path / "segment.sock").exists()


# ---- what is in flight -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["maint", "drain", "remove"])
def test_what_is_in_flight_finishes_where_it_is(balancer, backend, how):
    """Nobody says that the backend is ill: in maintenance it is only not asked."""
    gate = threading.Event()
    one, two = backend(reply("one")), backend(gated(gate))
    lb = balancer(named([one, two]), pool=FAST)
    do(lb, "drain", "web/b1")
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        eventually(lambda: [r for r in requests_of(two) if r.target == "/slow"], "it has come")
        do(lb, "ready", "web/b1")
        do(lb, how, "web/b2")
        if how == "maint":
            lb.wait_health("b2", "down")
        assert [get(lb.port).text for _ in range(20)] == ["one"] * 20
        gate.set()
        assert client.response().status == 200
    assert "/slow" not in [r.target for r in requests_of(one)]


def test_what_is_in_flight_finishes_when_its_backend_goes_and_comes_back(balancer, backend):
    """It is not checked yet then: that says nothing about the connection of before."""
    gate, busy = threading.Event(), threading.Event()

    def answer(connection, request):
        if request.target == "/slow" or (request.target == "/health" and busy.is_set()):
            busy.set()
            gate.wait(20)
        connection.send(reply("two"))
    one, two = backend(reply("one")), backend(answer)
    lb = balancer(named([one, two]), pool={"health": {"path": "/health", "interval": "10s", "timeout": "9s"}})
    do(lb, "drain", "web/b1")
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        assert busy.wait(20)
        do(lb, "ready", "web/b1")
        do(lb, "remove", "web/b2")
        do(lb, "add", "web", "b2")
        assert [get(lb.port).text for _ in range(20)] == ["one"] * 20
        gate.set()
        assert client.response().text == "two"


# ---- vbctl and its master --------------------------------------------------------------------------------------------


@pytest.fixture
def answering(balancer, backend, tmp_path):
    """vbctl, asking a master that reads the request and answers these bytes."""
    path = tmp_path / "control"
    lb = balancer(named([backend()]), config={"admin": {"socket": path}})
    path.unlink()  # from now on it is ours
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(20)

        def ask(answer, *args):
            asking = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, *args], stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True)
            sock, _ = listener.accept()
            with sock:
                request = sock.makefile("rb").read()
                assert request == b"reload\0"
                assert asking.poll() is None, "it waits"
                sock.sendall(answer)
            out, err = asking.communicate(timeout=20)
            return asking.returncode, out, err
        yield ask


def test_reload_prints_what_the_master_says_of_it(answering):
    said = "reloaded: generation 3, 4 workers, 2 pools"
    assert answering(b"0" + said.encode(), "reload") == (0, f"{said}\n", "")
    code, out, err = answering(b"0" + said.encode(), "reload", "--json")
    assert (code, json.loads(out), err) == (0, {"ok": True, "message": said}, "")


def test_reload_prints_all_errors_of_the_file(answering):
    lines = [f"/etc/vb.yaml:{i}:5: unknown key `helth`; did you mean `health`?" for i in range(1, 51)]
    code, out, err = answering(b"1" + "\n".join(lines).encode(), "reload")
    assert (code, out) == (1, "") and err.splitlines() == ["vbctl: refused:", *lines]
    code, out, _ = answering(b"1" + "\n".join(lines).encode(), "reload", "--json")
    assert (code, json.loads(out)) == (1, {"ok": False, "message": "\n".join(lines)})
    assert answering(f"1{lines[0]}".encode(), "reload") == (1, "", f"vbctl: {lines[0]}\n")


def test_reload_says_when_the_master_dies(answering):
    code, out, err = answering(b"", "reload")
    assert (code, out) == (1, "") and "broke off without an answer" in err and len(err.splitlines()) == 1
