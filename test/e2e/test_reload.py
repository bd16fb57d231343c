"""Reloading: a new generation of workers takes over, the old one finishes what it has, nobody notices (design.md 2).

The other tests of it: test_reload_files.py (what the new file says, and what goes on all the same),
test_reload_listeners.py (where it listens), test_reload_load.py (under load, and very often).
"""
import json
import os
import random
import resource
import signal
import subprocess
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest
from harness import (BUILD, TIMEOUT, Balancer, Client, at_once, children_of, eventually, free_port, get, hang,
                     held, is_refused, is_running, is_stopped, open_files, reply, run, start_slow, unique_name, web)
from upgrade import ask, round_trip, switch_and_echo


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def vbctl_beside(lb, *args):
    """One that runs beside the test."""
    return subprocess.Popen([BUILD / "vbctl", "--name", lb.name, *args], text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_of(process):
    said, complained = process.communicate(timeout=TIMEOUT)
    return process.returncode, said, complained


def generations(lb):
    return {row["generation"] for row in lb.worker_rows()}


# ---- asking for it ---------------------------------------------------------------------------------------------------


def test_by_a_signal_and_by_vbctl(balancer, backend, workers):
    lb = balancer(backend(), workers=workers)
    first = lb.worker_pids()
    assert generations(lb) == {1}
    lb.hup()
    second = lb.wait_generation(2)
    said = lb.reload()
    assert "generation 3" in said and len(said.splitlines()) == 1
    third = lb.wait_generation(3)
    assert len({*first, *second, *third}) == 3 * workers, "each generation has processes of its own"
    lb.wait_old_gone()
    assert not any(is_running(pid) for pid in first + second)
    assert [row["index"] for row in lb.worker_rows()] == list(range(workers))
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    status = lb.vbctl("status")
    assert (status["state"], status["workers"]) == ("running", {"wanted": workers, "ready": workers})


def test_json_says_the_same(balancer, backend):
    lb = balancer(backend())
    result = run("vbctl", "--name", lb.name, "reload", "--json")
    said = json.loads(result.stdout)
    assert result.returncode == 0 and said["ok"] is True and "generation 2" in said["message"]


def test_when_vbctl_returns_the_new_file_is_in_force(balancer, backend, workers):
    both = [backend(reply("a")), backend(reply("b"))]
    lb = balancer(both[0], workers=workers)
    for n in range(1, 7):
        lb.reload(pools=web(both[n % 2]))
        assert {get(lb.port).text for _ in range(8)} == {"ab"[n % 2]}


# ---- what is under way -----------------------------------------------------------------------------------------------


def test_requests_under_way_are_finished(balancer, backend, workers):
    there = backend(held)
    lb = balancer(there, workers=workers)
    old = lb.worker_pids()
    clients = start_slow(lb, there, 8)
    lb.reload()
    assert not set(old) & set(lb.worker_pids())
    assert generations(lb) == {1, 2}
    assert lb.vbctl("status")["in_flight"] == lb.backend(there)["in_flight"] == 8
    assert {row["state"] for row in lb.worker_rows() if row["generation"] == 1} == {"draining"}
    assert {get(lb.port, "/quick").text for _ in range(10)} == {"/quick"}
    there.released.set()
    for client in clients:
        response = client.response()
        assert response.text == "/slow" and response.closes
        assert client.is_closed()
    lb.wait_old_gone()
    lb.wait_idle()


def test_a_slow_upload_is_finished(balancer, backend):
    there = backend()
    lb = balancer(there)
    with Client(lb.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello")
        eventually(lambda: b"hello" in there.received, "the first half has arrived")
        lb.reload()
        client.send(b"world")
        response = client.response()
        assert response.status == 200 and response.closes
        assert client.is_closed()
    assert there.requests[0].body == b"helloworld"


def test_a_head_that_has_begun_is_finished(balancer, backend):
    lb = balancer(backend(held))
    with Client(lb.port) as client:
        client.send(b"GET /half HTTP/1.1\r\nHo")
        eventually(lambda: lb.total("connections") == 1, "it is there")
        assert get(lb.port).status == 200, "and what it sent has been read before this one"
        lb.reload()
        client.send(b"st: x\r\n\r\n")
        response = client.response()
        assert response.text == "/half" and response.closes


def test_a_big_download_is_finished(balancer, backend):
    """Its head said nothing of an end: the next request is answered too, and that one says so."""
    body = random.Random(1).randbytes(1 << 20) * 30
    there = backend(lambda c, r: c.send(reply(body if r.target == "/big" else "small")), record=False)
    lb = balancer(there)
    with Client(lb.port, receive_buffer=65536) as client:
        client.start("GET", "/big")
        head = client.head()
        assert not head.closes
        begun = client.exactly(100_000)
        lb.reload()
        assert zlib.crc32(begun + client.exactly(len(body) - len(begun))) == zlib.crc32(body)
        response = client.get("/small")
        assert response.text == "small" and response.closes
        assert client.is_closed()
    lb.wait_old_gone()


def test_idle_connections_are_closed_cleanly(balancer, backend, workers):
    lb = balancer(backend(), workers=workers, config={"timeouts": {"header": "1s"}})
    clients = [Client(lb.port) for _ in range(10)]
    assert [client.get().status for client in clients] == [200] * 10
    silent = Client(lb.port)
    eventually(lambda: lb.total("connections") == 11, "all are there")
    lb.reload()
    for client in [*clients, silent]:
        assert client.rest() == b"", "a FIN, no RST, and not a byte"
        client.close()
    lb.wait_old_gone()


def test_a_connection_without_a_request_yet_has_time_for_one(balancer, backend, workers):
    """Few programs ask again where nothing has been answered before."""
    lb = balancer(backend(), workers=workers)
    clients = [Client(lb.port) for _ in range(8)]
    eventually(lambda: lb.vbctl("status")["connections"] == 8, "all are accepted")
    lb.reload()
    time.sleep(0.6)  # twice what a kept connection has
    for client in clients[1:]:
        response = client.get()
        assert response.status == 200 and response.closes
        client.close()
    began = time.monotonic()
    lb.stop()
    assert time.monotonic() - began < 5, "it waits for one that has not asked for anything"
    assert clients[0].is_closed()


def test_an_old_generation_has_a_moment_however_fast_reloads_follow(balancer, backend, workers):
    there = backend(held)
    lb = balancer(there, workers=workers)
    client, = start_slow(lb, there, 1)
    lb.reload()
    start_slow(lb, there, 1)
    lb.reload()
    third = vbctl_beside(lb, "reload")
    time.sleep(0.3)
    there.released.set()
    assert client.response().status == 200
    assert end_of(third)[0] == 0
    assert "cutting" not in lb.log()


def test_a_backend_that_comes_back_is_not_empty_before_it_is(balancer, backend):
    """It was in the file, and not, and is again: a request from before that is still there."""
    there, other = backend(held), backend()
    both = [{"address": there, "name": "s"}, {"address": other, "name": "o"}]
    lb = balancer(both[:1], config={"shutdown": {"grace": "60s"}})
    client, = start_slow(lb, there, 1)
    lb.reload(pools=web(both[1:]))
    lb.reload(pools=web(both))
    assert lb.backend("s")["in_flight"] == 1
    drain = vbctl_beside(lb, "drain", "web/s", "--wait")
    assert "1 request in flight" in drain.stdout.readline()
    there.released.set()
    assert client.response().status == 200
    assert "is empty" in drain.communicate(timeout=TIMEOUT)[0] and drain.returncode == 0



def test_a_kept_connection_may_be_used_until_it_is_told(balancer, backend, workers):
    """A request that crosses the reload is answered, with the word that it was the last."""
    lb = balancer(backend(), workers=workers)
    for _ in range(5):
        clients = [Client(lb.port) for _ in range(8)]
        assert [client.get().status for client in clients] == [200] * 8
        reloading = vbctl_beside(lb, "reload")
        for client in clients:
            while not client.get().closes:
                pass
            assert client.is_closed()
        assert end_of(reloading)[0] == 0


# ---- tunnels ---------------------------------------------------------------------------------------------------------


def test_tunnels_go_on(balancer, backend, workers):
    lb = balancer(backend(switch_and_echo), workers=workers)
    old = [ask(lb.port) for _ in range(6)]
    lb.reload()
    new = [ask(lb.port) for _ in range(6)]
    assert all(round_trip(client) for client in old + new)
    assert lb.total("tunnels") == 12 and generations(lb) == {1, 2}
    for client in old:
        client.close()
    lb.wait_old_gone()
    assert all(round_trip(client) for client in new)


def test_tunnels_are_cut_after_the_grace_that_they_were_opened_under(balancer, backend):
    lb = balancer(backend(switch_and_echo), config={"shutdown": {"grace": "1s"}})
    with ask(lb.port) as first:
        began = time.monotonic()
        lb.reload(shutdown={"grace": "30s"})
        assert round_trip(first), "within the grace"
        assert first.is_closed()
        assert 0.9 < time.monotonic() - began < 10
    with ask(lb.port) as second:
        lb.reload(shutdown={"grace": "300ms"})
        with ask(lb.port) as third:
            lb.reload()
            assert third.is_closed()
            assert round_trip(second), "its 30 s are not over"
        eventually(lambda: generations(lb) == {2, 4}, "generation 3 is gone, and 2 is not")


def test_two_old_generations_may_linger_and_no_third(balancer, backend, workers):
    lb = balancer(backend(switch_and_echo), workers=workers)
    tunnels = [ask(lb.port)]
    for _ in range(2):
        lb.reload()
        tunnels.append(ask(lb.port))
    assert all(round_trip(tunnel) for tunnel in tunnels) and generations(lb) == {1, 2, 3}
    lb.reload()
    assert tunnels[0].is_closed(), "the oldest is cut"
    assert all(round_trip(tunnel) for tunnel in tunnels[1:])
    eventually(lambda: generations(lb) == {2, 3, 4}, "the oldest is gone")
    assert get(lb.port).text == "no"
    for tunnel in tunnels:
        tunnel.close()
    lb.wait_old_gone()
    lb.wait_idle()


# ---- crashes meanwhile -----------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(balancer, tmp_path):
    """stuck(...) -> (balancer, gate): new workers stop before they do anything while the file `gate` is there."""
    def make(*args, **options):
        gate = tmp_path / "gate"
        return balancer(*args, program="vibebalancer-faults", env={"VB_STOP_AT_START": str(gate)}, **options), gate
    return make


def reload_that_gets_stuck(lb, gate):
    """(the vbctl that waits for it, the new workers, which have stopped)"""
    gate.touch()
    process = vbctl_beside(lb, "reload")

    def stopped():
        pids = [pid for pid in children_of(lb.pid) if is_stopped(pid)]
        return pids if len(pids) == lb.workers else None
    return process, eventually(stopped, "the new workers have stopped")


def go_on(pids):
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_until_the_new_workers_are_ready_the_old_ones_serve(stuck, backend, workers):
    there = backend()
    lb, gate = stuck(there, workers=workers)
    old = lb.worker_pids()
    with Client(lb.port) as kept:
        process, new = reload_that_gets_stuck(lb, gate)
        assert kept.get().status == 200
        assert [get(lb.port).status for _ in range(20)] == [200] * 20
        assert lb.worker_pids() == old and lb.generation == 1 and process.poll() is None
        response = kept.get()
        assert response.status == 200 and not response.closes
        gate.unlink()
        go_on(new)
        assert end_of(process)[0] == 0
    assert lb.generation == 2 and sorted(lb.worker_pids()) == sorted(new)
    assert [get(lb.port).status for _ in range(20)] == [200] * 20


def test_a_new_worker_that_dies_before_it_is_ready_ends_the_reload(stuck, backend, workers):
    lb, gate = stuck(backend(), workers=workers)
    old = lb.worker_pids()
    process, new = reload_that_gets_stuck(lb, gate)
    os.kill(new[-1], signal.SIGKILL)
    status, said, complained = end_of(process)
    assert (status, said) == (1, "") and "ended before it was ready" in complained
    eventually(lambda: sorted(children_of(lb.pid)) == sorted(old), "nothing is left of the new generation")
    assert lb.worker_pids() == old and lb.generation == 1
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    gate.unlink()
    lb.reload()
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_worker_that_dies_while_the_next_generation_starts_is_replaced(stuck, backend, workers):
    lb, gate = stuck(backend(), workers=workers)
    old = lb.worker_pids()
    process, new = reload_that_gets_stuck(lb, gate)
    gate.unlink()
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    replaced = lb.wait_workers(without=[*old, *new])
    assert lb.generation == 1
    go_on(new)
    assert end_of(process)[0] == 0
    assert sorted(lb.worker_pids()) == sorted(new)
    eventually(lambda: not any(is_running(pid) for pid in replaced), "the old generation is gone")
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_worker_that_dies_while_it_finishes_is_not_replaced(balancer, backend, workers):
    there = backend(held)
    lb = balancer(there, workers=workers)
    clients = start_slow(lb, there, 8)
    lb.reload()
    for pid in [row["pid"] for row in lb.worker_rows() if row["generation"] == 1 and row["in_flight"] > 0]:
        os.kill(pid, signal.SIGKILL)
    assert all(client.is_closed() for client in clients)
    lb.wait_old_gone()
    lb.wait_idle()
    eventually(lambda: sorted(children_of(lb.pid)) == sorted(lb.worker_pids()), "nobody else")
    assert len(lb.worker_pids()) == workers and lb.total("connections") == 0
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_worker_of_the_new_generation_that_dies_is_replaced(balancer, backend, workers):
    lb = balancer([backend(reply("a"))], workers=workers)
    lb.reload(pools=web(backend(reply("b"))))
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=pids)
    assert generations(lb) == {2}
    assert {get(lb.port).text for _ in range(10)} == {"b"}


def test_a_killed_master_leaves_no_worker_of_any_generation(balancer, backend):
    lb = balancer(backend(switch_and_echo), workers=2, config={"shutdown": {"grace": "1s"}})
    lb.unclean = True
    tunnels = [ask(lb.port)]
    for _ in range(2):
        lb.reload(shutdown={"grace": "2s"})
        tunnels.append(ask(lb.port))
    pids = children_of(lb.pid)
    assert len(pids) >= 4
    os.kill(lb.pid, signal.SIGKILL)
    lb.process.wait()
    assert all(tunnel.is_closed() for tunnel in tunnels[1:])
    eventually(lambda: not any(is_running(pid) for pid in pids), "all have noticed")


def killed_as_hanging(lb, pid):
    """... by the watchdog, while it is stopped; SIGKILL ends that too."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: not is_running(pid), "it is killed")
    lb.wait_log(rf"\(pid {pid}\) has not moved for .* killing it")


def test_the_watchdog_watches_old_workers_too(balancer, backend):
    there = backend(held)
    lb = balancer(there, config={"watchdog": "1s"})
    old, = lb.worker_pids()
    client, = start_slow(lb, there, 1)
    lb.reload()
    killed_as_hanging(lb, old)
    assert client.is_closed()
    lb.wait_old_gone()
    lb.wait_idle()


def test_the_watchdog_is_turned_on_and_off(balancer, backend):
    lb = balancer(backend(), workers=2, config={"watchdog": "off"})
    lb.reload(watchdog="1s")
    victim = lb.worker_pids()[0]
    killed_as_hanging(lb, victim)
    lb.wait_workers(without=[victim])
    lb.reload(watchdog="off")
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_the_hangup_of_a_terminal_ends_nothing(balancer, backend):
    """It goes to the whole group. For the master it is a reload; workers do not mind."""
    lb = balancer(backend(), workers=2)
    old = lb.worker_pids()
    for pid in old:
        os.kill(pid, signal.SIGHUP)
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    assert lb.worker_pids() == old and lb.generation == 1
    lb.hup()
    lb.wait_generation(2)


@pytest.mark.parametrize("room", [1, 2, 3, 5, 8, 12, 20, 40])
def test_the_master_runs_out_of_descriptors(balancer, backend, room):
    """Wherever that hits it, it is said, and what serves goes on."""
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(a, workers=2)
    pids, before = lb.worker_pids(), resource.prlimit(lb.pid, resource.RLIMIT_NOFILE)
    files = open_files(lb.pid)
    highest = max(map(int, os.listdir(f"/proc/{lb.pid}/fd")))
    resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, (highest + 1 + room, before[1]))
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", f"127.0.0.1:{free_port()}"], pools=web(b))
    lb.hup()
    status = eventually(lambda: lb.vbctl("status")["last_reload_ok"] is not None and lb.vbctl("status"), "it has ended")
    if status["last_reload_ok"]:
        assert room >= 8, "it needs more than that"
        assert {get(lb.port).text for _ in range(10)} == {"b"}
    else:
        assert status["last_reload_error"] and room < 40
        assert {get(lb.port).text for _ in range(10)} == {"a"}
        assert lb.worker_pids() == pids and open_files(lb.pid) == files
    resource.prlimit(lb.pid, resource.RLIMIT_NOFILE, before)
    lb.reload()
    assert {get(lb.port).text for _ in range(10)} == {"b"}


# ---- changes meanwhile -----------------------------------------------------------------------------------------------


def named(*backends):
    return [{"address": b, "name": f"b{i + 1}"} for i, b in enumerate(backends)]


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_changes_by_vbctl_wait_for_the_end_of_a_reload(stuck, backend, workers, ends):
    """They are newer than the file that was read, so they hold after it."""
    a, b, c, d, e = (backend(reply(name)) for name in "abcde")
    lb, gate = stuck(named(a, b, c), workers=workers)
    lb.write_config(pools=web(named(a, b, c, d)))
    process, new = reload_that_gets_stuck(lb, gate)
    assert [row["name"] for row in lb.vbctl("backends")["backends"] if row["state"] == "ready"] == ["b1", "b2", "b3"]
    commands = [vbctl_beside(lb, *words) for words in (("remove", "web/b1"), ("drain", "web/b2"),
                                                        ("weight", "web/b3", "2"), ("add", "web", e.address))]
    assert Counter(get(lb.port).text for _ in range(12)) == {"a": 4, "b": 4, "c": 4}
    assert [command.poll() for command in commands] == [None] * 4
    gate.unlink()
    if ends == "well":
        go_on(new)
    else:
        os.kill(new[0], signal.SIGKILL)
    assert end_of(process)[0] == (0 if ends == "well" else 1)
    for command in commands:
        status, _, complained = end_of(command)
        assert (status, complained) == (0, "")
    eventually(lambda: lb.backend(e)["health"] == "unchecked", "it is taken as it is")
    there = {"c": 6, "d": 3, "e": 3} if ends == "well" else {"c": 8, "e": 4}
    assert Counter(get(lb.port).text for _ in range(12)) == there
    assert {row["change"] for row in lb.vbctl("status")["changes"]} == {"removed", "drain", "weight", "added"}
    lb.reload(pools=web(named(a, b, c)))
    assert Counter(get(lb.port).text for _ in range(12)) == {"a": 4, "b": 4, "c": 4}


def test_a_stop_does_not_wait_behind_those_who_wait_for_a_reload(stuck, backend):
    lb, gate = stuck(backend(), workers=1)
    process, _ = reload_that_gets_stuck(lb, gate)
    waiters = [process] + [vbctl_beside(lb, "reload") for _ in range(60)]
    eventually(lambda: any(waiter.poll() == 1 for waiter in waiters), "they are too many")
    assert run("vbctl", "--name", lb.name, "stop").returncode == 0
    assert lb.process.wait(TIMEOUT) == 0
    for waiter in waiters:
        assert end_of(waiter)[0] == 1


# ---- reloads that fail, and change nothing ---------------------------------------------------------------------------


def fail_reload(lb, gate):
    process, new = reload_that_gets_stuck(lb, gate)
    gate.unlink()
    os.kill(new[0], signal.SIGKILL)
    assert end_of(process)[0] == 1


def test_the_next_one_has_what_a_failed_one_had_begun(stuck, backend):
    """It was asked for meanwhile, and opens the address that workers of the failed one still have for a moment."""
    port = free_port()
    lb, gate = stuck(backend(), workers=2)
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", f"127.0.0.1:{port}"])
    process, new = reload_that_gets_stuck(lb, gate)
    again = vbctl_beside(lb, "reload")
    eventually(lambda: Path("/proc/net/unix").read_text().count(str(lb.control)) == 3, "both are connected")
    gate.unlink()
    os.kill(new[-1], signal.SIGKILL)
    assert end_of(process)[0] == 1
    assert end_of(again)[0] == 0
    assert [get(port).status for _ in range(10)] == [200] * 10


def test_a_weight_of_a_failed_file_is_forgotten(stuck, backend):
    a, b = backend(), backend()
    lb, gate = stuck([a, b], workers=1)
    assert run("vbctl", "--name", lb.name, "remove", f"web/{a.address}").returncode == 0
    lb.write_config(pools=web([{"address": a, "weight": 50}, b]))
    fail_reload(lb, gate)
    assert run("vbctl", "--name", lb.name, "add", "web", a.address).returncode == 0
    assert lb.backend(a)["weight"] == 1


def test_a_failed_file_leaves_a_leaving_pool_as_it_is(stuck, backend):
    """Workers of an old generation still use it: neither its checks nor its settings are those of the failed file."""
    a, b, nobody = backend(), backend(held), free_port()
    checks = {"path": "/", "interval": "100ms", "fast_interval": "100ms", "fall": 1}
    lb, gate = stuck(a, workers=1, more_pools={"slow": {"backends": [b], "health": checks}},
                     config={"routes": [{"path": "/slow", "pool": "slow"}, {"pool": "web"}]})
    lb.wait_health(b, "up")
    client, = start_slow(lb, b, 1)
    lb.reload(pools=web(a), routes=[{"pool": "web"}])
    lb.write_config(pools={**web(a), "slow": {"backends": [b], "health": {**checks, "port": nobody}}},
                    routes=[{"path": "/slow", "pool": "slow"}, {"pool": "web"}])
    fail_reload(lb, gate)
    seen = len(b.requests)
    b.wait_requests(seen + 5)  # of checks by the old rules; those by the others would not come here
    assert "is DOWN" not in lb.log()
    b.released.set()
    assert client.response().status == 200


# ---- stopping meanwhile ----------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_all_generations_have(balancer, backend, workers):
    there = backend(held)
    lb = balancer(there, workers=workers)
    clients = []
    for _ in range(2):
        clients += start_slow(lb, there, 3)
        lb.reload()
    clients += start_slow(lb, there, 3)
    lb.ask_to_stop()
    eventually(lambda: is_refused(lb.port), "it stops")
    assert lb.process.poll() is None
    there.released.set()
    assert [client.response().text for client in clients] == ["/slow"] * 9
    lb.stop()


def test_a_second_signal_cuts_all_generations(balancer, backend):
    there = backend(hang)
    lb = balancer(there, workers=2)
    clients = [Client(lb.port)]
    clients[0].start("GET", "/")
    there.wait_requests(1)
    lb.reload()
    clients.append(Client(lb.port))
    clients[1].start("GET", "/")
    there.wait_requests(2)
    pids = children_of(lb.pid)
    lb.ask_to_stop()
    eventually(lambda: len(children_of(lb.pid)) == 2, "the workers without a client have gone")  # not cut at their exit
    lb.ask_to_stop()
    lb.wait(10)
    assert not any(is_running(pid) for pid in pids)
    assert not lb.segment.exists() and lb.reports() == ""
    lb.unclean = True  # its exit status is not prescribed


def test_a_stop_while_the_next_generation_starts(stuck, backend, workers):
    """... which does not even hear of it."""
    there = backend(held)
    lb, gate = stuck(there, workers=workers)
    client, = start_slow(lb, there, 1)
    process, new = reload_that_gets_stuck(lb, gate)
    lb.ask_to_stop()
    status, said, complained = end_of(process)
    assert (status, said) == (1, "") and "stop" in complained
    there.released.set()
    assert client.response().text == "/slow"
    lb.stop()
    assert not any(is_running(pid) for pid in new)


def test_a_stop_at_any_moment_of_a_reload(balancer, backend):
    there = backend()
    for pause in (0, 0.02, 0.05, 0.1, 0.2, 0.3):
        lb = balancer(there, workers=4)
        lb.hup()
        time.sleep(pause)
        lb.stop()


def test_no_reload_while_it_stops(balancer, backend):
    there = backend(held)
    lb = balancer(there, workers=2)
    client, = start_slow(lb, there, 1)
    lb.ask_to_stop()
    eventually(lambda: lb.vbctl("status")["state"] == "stopping", "it stops")
    assert "stop" in lb.reload_in_vain()
    lb.hup()
    assert lb.generation == 1
    there.released.set()
    assert client.response().text == "/slow"
    lb.stop()


def test_a_signal_before_it_serves(lifetimes, backend, tmp_path):
    """While it waits for the answer to its first check."""
    there = backend(lambda c, r: hang(c, r) if r.target == "/health" else c.send(reply()))
    lb = Balancer(tmp_path, web(there, health={"path": "/health", "timeout": "30s"}), workers=2, name=unique_name())
    there.wait_requests(1)
    lb.hup()
    lifetimes.enter_context(lb)
    assert get(lb.port).status == 200
    lb.reload()
    assert [get(lb.port).status for _ in range(10)] == [200] * 10
    there.released.set()


# ---- many at once ----------------------------------------------------------------------------------------------------


def test_many_commands_at_once(balancer, backend, workers):
    """Each is answered after a reload that has read the file as it was when the command was given."""
    a = backend()
    lb = balancer(a, workers=workers)
    for n in range(3):
        lb.write_config(pools=web({"address": a, "name": f"b{n}"}))
        results = at_once(20, lambda _: run("vbctl", "--name", lb.name, "reload"))
        assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 20
        assert [row["name"] for row in lb.vbctl("backends")["backends"]] == [f"b{n}"]
    assert 4 <= lb.generation <= 61
    lb.wait_old_gone()
    assert len(lb.wait_workers()) == workers
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_storm_of_signals_ends_in_the_newest_file(balancer, backend, workers):
    a = backend()
    lb = balancer(a, workers=workers)
    for n in range(50):
        lb.write_config(pools=web({"address": a, "name": f"b{n}"}))
        lb.hup()
    eventually(lambda: [row["name"] for row in lb.vbctl("backends")["backends"]] == ["b49"], "the newest file holds")
    lb.reload()
    assert [row["name"] for row in lb.vbctl("backends")["backends"]] == ["b49"]
    assert lb.generation <= 52
    lb.wait_old_gone()
    eventually(lambda: len(children_of(lb.pid)) == workers, "no other process is left")
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_clients_of_the_command_that_go_away(balancer, backend):
    """Their reload is done all the same, and nobody waits for them."""
    lb = balancer(backend())
    for _ in range(20):
        process = vbctl_beside(lb, "reload")
        process.kill()
        process.communicate()
    lb.reload()
    assert get(lb.port).status == 200


def test_signals_while_commands_run(balancer, backend):
    lb = balancer(backend(), workers=2)
    over = threading.Event()

    def storm():
        while not over.wait(0.01):
            lb.hup()
    stormer = threading.Thread(target=storm, daemon=True)
    stormer.start()
    for _ in range(5):
        lb.reload()
        assert get(lb.port).status == 200
    over.set()
    stormer.join()
    lb.reload()
    lb.wait_old_gone()
