"""Where it listens changes with a reload: what stays goes on without a gap, what is new serves, what is gone refuses.
"""
import itertools
import os
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from harness import (Client, Load, at_once, eventually, free_port, get, is_refused, reply, run, to_yaml, unique_name,
                     web)
from privileges import as_root, assert_nobody, folder, low_port, runs_as  # noqa: F401
from upgrade import ask, round_trip, switch_and_echo

HAS_V6 = Path("/proc/net/if_inet6").exists() and \
    "00000000000000000000000000000001" in Path("/proc/net/if_inet6").read_text()
CLOSE = [("Connection", "close")]


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


class Place:
    """Where a balancer may listen: `listen` is how the file says it."""

    def __init__(self, kind, path):
        self.host = {"v4": "127.0.0.1", "v6": "::1"}.get(kind)
        self.port = free_port() if self.host else path
        self.listen = {"v4": f"127.0.0.1:{self.port}", "v6": f"[::1]:{self.port}", "unix": f"unix:{self.port}"}[kind]

    def client(self):
        return Client(self.port, self.host or "")

    def get(self):
        with self.client() as client:
            return client.get()

    def is_gone(self):
        try:
            self.client().close()
        except (ConnectionRefusedError, FileNotFoundError):
            return self.host is not None or not self.port.exists()
        except ConnectionResetError:
            pass
        return False


@pytest.fixture(params=["v4", "v6", "unix"])
def place(request):
    """place() -> a new Place; all of one kind."""
    if request.param == "v6" and not HAS_V6:
        pytest.skip("no IPv6 here")
    with tempfile.TemporaryDirectory(prefix="vb-") as name:
        numbers = itertools.count()
        yield lambda: Place(request.param, Path(name) / f"{next(numbers)}.sock")


def signal_all(pids, how):
    for pid in pids:
        os.kill(pid, how)


# ---- come and go -----------------------------------------------------------------------------------------------------


def test_listeners_come_and_go(balancer, backend, workers, place):
    a, b, c = place(), place(), place()
    lb = balancer(backend(), workers=workers, config={"listen": a.listen})
    for these in ([a, b], [b], [c, b], [a], [b, c, a], [a]):
        lb.reload(listen=[p.listen for p in these])
        for p in (a, b, c):
            if p in these:
                assert [p.get().status for _ in range(2 * workers)] == [200] * 2 * workers, p.listen
            else:
                eventually(p.is_gone, f"{p.listen} refuses")
    assert lb.vbctl("status")["errors"] == 0


def test_it_moves(balancer, backend, workers, place):
    """The only place there is."""
    first, second = place(), place()
    lb = balancer(backend(), workers=workers, config={"listen": first.listen})
    assert first.get().status == 200
    lb.reload(listen=second.listen)
    assert [second.get().status for _ in range(10)] == [200] * 10
    eventually(first.is_gone, "the first refuses")


def test_what_stays_does_not_notice_what_comes_and_goes(balancer, demos, workers, place):
    """Neither new connections nor kept ones."""
    other = place()
    lb = balancer(demos(2), workers=workers)
    with Load(lb.port) as load:
        for n in range(6):
            load.wait(30)
            lb.reload(listen=[f"127.0.0.1:{lb.port}"] + [other.listen] * (n % 2 == 0))
            assert at_once(8, lambda _: get(lb.port).status) == [200] * 8
    assert load.failures() == []


def test_requests_and_tunnels_of_one_that_is_gone_go_on(balancer, backend, workers, place):
    there = backend(switch_and_echo)
    slow = backend(lambda c, r: (c.backend.released.wait(60), c.send(reply("slow"))))
    stays, goes = place(), place()
    lb = balancer(there, workers=workers, more_pools={"slow": {"backends": [slow], "health": "off"}},
                  config={"listen": [goes.listen, stays.listen],
                          "routes": [{"path": "/slow", "pool": "slow"}, {"pool": "web"}]})
    tunnel = ask(goes.port, host=goes.host or "")
    with goes.client() as client:
        client.start("GET", "/slow")
        slow.wait_requests(1)
        lb.reload(listen=stays.listen)
        eventually(goes.is_gone, "it refuses")
        assert round_trip(tunnel)
        slow.released.set()
        assert client.response().text == "slow"
    tunnel.close()
    lb.wait_old_gone()


def test_another_order_of_the_same(balancer, backend):
    """They are told apart by what they are, not by their number."""
    there = backend(lambda c, r: c.send(reply(r.field("X-Forwarded-For"))))
    plain, proxied = free_port(), free_port()
    listen = [f"127.0.0.1:{plain}", {"address": f"127.0.0.1:{proxied}", "proxy_protocol": True}]
    lb = balancer(there, workers=4, port=plain, config={"listen": listen})
    for _ in range(3):
        listen.reverse()
        lb.reload(listen=listen)
        for _ in range(8):
            assert get(plain).text == "127.0.0.1"
            assert get_proxied(proxied).text == "203.0.113.7"


# ---- what waits ------------------------------------------------------------------------------------------------------


def begin_reload(lb, **settings):
    """Returns when the new generation is in force; vbctl would wait for workers that are stopped."""
    generation = lb.generation
    lb.write_config(**settings)
    lb.hup()
    eventually(lambda: lb.generation == generation + 1, "the new generation is in force")


def waiting(connect, n):
    """Clients that have sent a request; they have not been accepted where nobody runs who could do that."""
    clients = [connect() for _ in range(n)]
    for client in clients:
        client.start("GET", "/")
    return clients


def test_what_waits_where_it_stays_is_served_by_the_new_ones(balancer, backend, workers, place):
    """The old workers do not even run."""
    here = place()
    lb = balancer(backend(), workers=workers, config={"listen": here.listen, "watchdog": "off"})
    old = lb.worker_pids()
    signal_all(old, signal.SIGSTOP)
    try:
        clients = waiting(here.client, 12)
        begin_reload(lb)
        assert [client.response().status for client in clients] == [200] * 12
    finally:
        signal_all(old, signal.SIGCONT)
    lb.wait_old_gone()
    assert [here.get().status for _ in range(10)] == [200] * 10


def test_what_waits_where_it_is_gone_is_served_by_the_old_ones(balancer, backend, workers, place):
    """More than they take in one turn of their loops."""
    stays, goes = place(), place()
    lb = balancer(backend(), workers=workers, config={"listen": [stays.listen, goes.listen], "watchdog": "off"})
    old = lb.worker_pids()
    signal_all(old, signal.SIGSTOP)
    try:
        clients = waiting(goes.client, 100 * workers)
        begin_reload(lb, listen=stays.listen)
        assert [stays.get().status for _ in range(10)] == [200] * 10
    finally:
        signal_all(old, signal.SIGCONT)
    for client in clients:
        response = client.response()
        assert response.status == 200 and response.closes
        client.close()
    eventually(goes.is_gone, "it refuses")
    lb.wait_old_gone()


def test_what_one_worker_gave_another_is_served(balancer, backend):
    """One of four does not run and has the fewest connections: others give it theirs, and then retire."""
    lb = balancer(backend(), workers=4, config={"watchdog": "off"})
    old = lb.worker_pids()
    os.kill(old[3], signal.SIGSTOP)
    try:
        clients = waiting(lambda: Client(lb.port), 60)
        eventually(lambda: lb.vbctl("status")["requests"] >= 20, "others serve")
        begin_reload(lb)
    finally:
        os.kill(old[3], signal.SIGCONT)
    assert [client.response().status for client in clients] == [200] * 60
    lb.wait_old_gone()


# ---- one port, several addresses -------------------------------------------------------------------------------------


def test_a_specific_address_in_the_place_of_all_and_back(balancer, backend, workers):
    port = free_port()
    lb = balancer(backend(), workers=workers, port=port, config={"listen": f"0.0.0.0:{port}"})
    for _ in range(3):
        assert {get(port, host=host).status for host in ("127.0.0.1", "127.0.0.2") * 4} == {200}
        lb.reload(listen=f"127.0.0.1:{port}")
        assert [get(port).status for _ in range(8)] == [200] * 8
        eventually(lambda: is_refused(port, "127.0.0.2"), "other addresses refuse")
        lb.reload(listen=f"0.0.0.0:{port}")
    lb.reload(listen=[f"127.0.0.2:{port}", f"127.0.0.1:{port}"])
    assert {get(port, host=host).status for host in ("127.0.0.1", "127.0.0.2") * 4} == {200}
    eventually(lambda: is_refused(port, "127.0.0.3"), "other addresses refuse")


def test_that_under_load(town, workers):
    """Nobody is refused, and nobody who was accepted is lost. A connection whose handshake crosses the end of the
    socket it came to is reset; no user space can prevent that."""
    port = free_port()
    there = town(workers=workers, port=port, config={"listen": f"0.0.0.0:{port}"})
    with there.load(clients=4) as kept, there.load(clients=4, headers=CLOSE) as fresh:
        for n in range(6):
            kept.wait(50)
            fresh.wait(50)
            there.lb.reload(listen=f"{'0.0.0.0' if n % 2 else '127.0.0.1'}:{port}")
    failures = kept.failures() + fresh.failures()
    assert [sent for sent in failures if not isinstance(sent.outcome, (ConnectionResetError, BrokenPipeError))] == []
    assert len(failures) <= 6, failures
    assert there.doubled() == []


@pytest.mark.skipif(not HAS_V6, reason="no IPv6 here")
def test_the_other_family_on_the_same_port(balancer, backend, workers):
    port = free_port()
    lb = balancer(backend(), workers=workers, port=port, config={"listen": f"127.0.0.1:{port}"})
    for v4, v6 in (True, True), (False, True), (True, False):
        lb.reload(listen=[f"0.0.0.0:{port}"] * v4 + [f"[::]:{port}"] * v6)
        for host, there in (("127.0.0.1", v4), ("::1", v6)):
            if there:
                assert [get(port, host=host).status for _ in range(8)] == [200] * 8
            else:
                eventually(lambda h=host: is_refused(port, h), f"{host} refuses")


# ---- who may have it -------------------------------------------------------------------------------------------------


def test_a_second_instance_is_refused_where_it_listens_now(balancer, backend, workers, tmp_path, place):
    first, second = place(), place()
    lb = balancer(backend(reply("first")), workers=workers, config={"listen": first.listen})
    lb.reload(listen=second.listen)
    eventually(first.is_gone, "the first refuses")
    file = tmp_path / "second.yaml"
    file.write_text(to_yaml({"listen": second.listen, "pools": web("127.0.0.1:9")}))
    result = run("vibebalancer", "-c", file, "--name", unique_name())
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result
    assert {second.get().text for _ in range(20)} == {"first"}
    balancer(backend(reply("second")), config={"listen": first.listen})
    assert {first.get().text for _ in range(20)} == {"second"}


def test_what_a_failed_reload_has_opened_is_closed(balancer, backend, place):
    here, new, taken = place(), place(), backend()
    lb = balancer(backend(), workers=2, config={"listen": here.listen})
    for _ in range(3):
        assert taken.address in lb.reload_in_vain(listen=[here.listen, new.listen, taken.address])
        assert new.is_gone()
        assert here.get().status == 200
    lb.reload(listen=[here.listen, new.listen])
    assert new.get().status == 200


def test_a_new_unix_socket_is_like_one_of_the_start(balancer, backend, workers):
    with tempfile.TemporaryDirectory(prefix="vb-") as name:
        path = Path(name) / "vb.sock"
        lb = balancer(backend(), workers=workers)
        before = os.umask(0o077)
        try:
            lb.reload(listen=[f"127.0.0.1:{lb.port}", f"unix:{path}"])
        finally:
            os.umask(before)
        assert stat.S_ISSOCK(path.stat().st_mode) and path.stat().st_mode & 0o777 == 0o666
        assert [get(path).status for _ in range(10)] == [200] * 10
        lb.stop()
        assert not path.exists()


def test_a_file_in_the_way_of_a_unix_socket(balancer, backend, tmp_path):
    path = tmp_path / "f"
    path.write_text("precious")
    lb = balancer(backend())
    assert str(path) in lb.reload_in_vain(listen=[f"127.0.0.1:{lb.port}", f"unix:{path}"])
    assert path.read_text() == "precious" and get(lb.port).status == 200


@as_root
def test_a_privileged_port_and_another_user(runs_as, backend):  # noqa: F811
    """The master is still root; the workers never were."""
    lb = runs_as("nobody", [backend(reply("hello"))], workers=2)
    assert_nobody(lb.worker_pids())
    port = low_port()
    lb.reload(listen=[f"127.0.0.1:{lb.port}", f"127.0.0.1:{port}"])
    assert_nobody(lb.worker_pids())
    assert [get(p).text for p in (port, lb.port) * 4] == ["hello"] * 8
    lb.reload(user=None)
    lb.reload(user="nobody")
    assert_nobody(lb.worker_pids())
    assert [get(port).text for _ in range(8)] == ["hello"] * 8


# ---- the PROXY protocol ----------------------------------------------------------------------------------------------


def get_proxied(port):
    with Client(port) as client:
        client.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.response()


def test_the_proxy_protocol_is_turned_on_and_off(balancer, backend, workers):
    there = backend(lambda c, r: c.send(reply(r.field("X-Forwarded-For"))))
    lb = balancer(there, workers=workers)
    for _ in range(2):
        assert [get(lb.port).text for _ in range(8)] == ["127.0.0.1"] * 8
        assert get_proxied(lb.port).status == 400
        lb.reload(listen=[{"address": f"127.0.0.1:{lb.port}", "proxy_protocol": True}])
        assert [get_proxied(lb.port).text for _ in range(8)] == ["203.0.113.7"] * 8
        with Client(lb.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.is_closed()
        lb.reload(listen=f"127.0.0.1:{lb.port}")


def test_a_proxy_header_that_has_begun_is_finished(balancer, backend):
    there = backend(lambda c, r: c.send(reply(r.field("X-Forwarded-For"))))
    port = free_port()
    lb = balancer(there, port=port, config={"listen": [{"address": f"127.0.0.1:{port}", "proxy_protocol": True}]})
    with Client(port) as client:
        client.send(b"PROXY TCP4 203.0.113.7 10.0.0.1 5000 80\r\nGET / HTTP/1.1\r\n")
        eventually(lambda: lb.total("connections") == 1, "it is there")
        lb.reload(listen=f"127.0.0.1:{port}")
        client.send(b"Host: x\r\n\r\n")
        response = client.response()
        assert response.text == "203.0.113.7" and response.closes
    assert get(port).text == "127.0.0.1"


def test_a_neighbour_of_ours_opens_no_door_to_anothers_address(balancer, backend, tmp_path):
    """127.0.0.2 is somebody else's, though the port and the user are ours."""
    port = free_port()
    balancer(backend(reply("other")), config={"listen": f"127.0.0.2:{port}"})
    lb = balancer(backend(reply("ours")), config={"listen": f"127.0.0.1:{port}"}, port=port)
    reason = lb.reload_in_vain(listen=[f"127.0.0.1:{port}", f"127.0.0.2:{port}"])
    assert f"cannot listen on 127.0.0.2:{port}: another process listens there" in reason
    assert {get(port, host="127.0.0.2").text for _ in range(20)} == {"other"}
