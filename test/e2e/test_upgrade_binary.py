"""Upgrading: another executable takes the place of the one that runs, in the same process, and nobody notices.

What does not come about leaves everything as it was: test_upgrade_binary_failures.py. VB_UPGRADES: how many upgrades
there are under load; 10 unless it is given.
"""
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest
from harness import (BUILD, TIMEOUT, eventually, free_port, get, held, is_running, open_files, reply, run,
                     start_slow, unique_name, web)
from programs import VERSION, Program, vbctl_upgrade
from upgrade import ask, round_trip, switch_and_echo

UPGRADES = int(os.environ.get("VB_UPGRADES", "10"))
CLOSE = [("Connection", "close")]


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def upgrade(lb):
    """What vbctl says."""
    status, said, complained = vbctl_upgrade(lb)
    assert (status, complained) == (0, ""), (said, complained, lb.log())
    lb.worker_pids()
    return said


# ---- asking for it ---------------------------------------------------------------------------------------------------


def test_by_vbctl(balancer, backend, program, workers):
    lb = balancer(backend(), workers=workers, program=program.path)
    first = lb.worker_pids()
    assert lb.vbctl("status")["version"] == VERSION
    new = program.put_version(1)
    said = upgrade(lb)
    assert said == f"upgraded: version {new}, generation 2, {workers} worker{'s' * (workers > 1)}, 1 pool\n"
    status = lb.vbctl("status")
    assert (status["version"], status["pid"], status["generation"]) == (new, lb.pid, 2)
    assert (status["reloads"], status["reloads_failed"], status["last_reload_ok"]) == (1, 0, True)
    second = lb.wait_workers(without=first)
    assert os.readlink(f"/proc/{lb.pid}/exe") == str(program.path)
    assert {os.readlink(f"/proc/{pid}/exe") for pid in second} == {str(program.path)}
    lb.wait_old_gone()
    assert not any(is_running(pid) for pid in first)
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_by_a_signal(balancer, backend, program):
    lb = balancer(backend(), workers=2, program=program.path)
    new = program.put_version(1)
    os.kill(lb.pid, signal.SIGUSR2)
    lb.wait_generation(2)
    lb.wait_log(f"upgraded: version {new}, generation 2")
    status = lb.vbctl("status")
    assert (status["version"], status["pid"]) == (new, lb.pid)


def test_json_says_the_same(balancer, backend, program):
    lb = balancer(backend(), program=program.path)
    said = json.loads(run("vbctl", "--name", lb.name, "upgrade", "--json").stdout)
    assert said["ok"] is True and f"version {VERSION}, generation 2" in said["message"]


def test_the_file_is_read_anew(balancer, backend, program):
    """So what was changed at run time is as the file has it."""
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer([a, b], program=program.path)
    lb.vbctl("drain", f"web/{a.address}")
    lb.vbctl("weight", f"web/{b.address}", "7")
    lb.write_config(limits={"connections": 1000})
    upgrade(lb)
    assert lb.backend(a)["state"] == "ready" and lb.backend(b)["weight"] == 1
    assert {get(lb.port).text for _ in range(4)} == {"a", "b"}


def test_by_a_name_that_path_finds(balancer, backend, program):
    """It is looked up again: a new file in an earlier folder is the one."""
    first, second = program.path.parent / "first", program.path.parent
    first.mkdir()
    lb = balancer(backend(), env={"PATH": f"{first}:{second}:{os.environ['PATH']}"},
                  wrapper=["sh", "-c", 'exec vibebalancer "$@"'], program=program.path)
    earlier = Program(first)
    new = earlier.put_version(2)
    assert f"version {new}," in upgrade(lb)
    assert os.readlink(f"/proc/{lb.pid}/exe") == str(earlier.path)


def test_one_after_the_other(balancer, backend, program, workers):
    there = backend(held)
    lb = balancer(there, workers=workers, program=program.path)
    clients = []
    for n in range(1, 4):
        clients += start_slow(lb, there, 2)
        new = program.put_version(n)
        upgrade(lb)
        assert (lb.vbctl("status")["version"], lb.generation) == (new, n + 1)
        assert get(lb.port, "/quick").text == "/quick"
        assert lb.vbctl("status")["in_flight"] == len(clients)
        if n == 2:  # two old generations may linger
            there.released.set()
            assert [client.response().text for client in clients] == ["/slow"] * 4
            clients = []
            lb.wait_old_gone()
            there.released.clear()
    there.released.set()
    assert [client.response().text for client in clients] == ["/slow"] * 2
    lb.wait_old_gone()
    lb.wait_idle()


def test_asked_for_twice_at_once(balancer, backend, program):
    """The second is made after the first: its file may be a newer one."""
    lb = balancer(backend(), program=program.path)
    both = [subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "upgrade"], text=True, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    said = [process.communicate(timeout=TIMEOUT) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(re.match(f"upgraded: version {VERSION}, generation [23],", out) for out, _ in said)


# ---- what goes on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_under_load(town, program, workers, method):
    """Kept connections and new ones. Zero requests fail, none is processed twice, and each is counted once."""
    there = town(how={"do": "delay", "delay": 0.01}, workers=workers, program=program.path)
    with there.load(clients=8, methods=(method,)) as kept, \
            there.load(clients=4, methods=(method,), headers=CLOSE) as new:
        for n in range(UPGRADES):
            kept.wait(10)
            program.put_version(n % 10)
            upgrade(there.lb)
        new.wait(50)
    there.report(f"{UPGRADES} upgrades, kept connections", kept)
    there.report(f"{UPGRADES} upgrades, new connections", new)
    assert kept.failures() + new.failures() == []
    there.wait_quiet()
    sent = len(kept.sent) + len(new.sent)
    assert there.lb.vbctl("status")["requests"] == sent
    assert there.retried() == 0 and there.doubled() == []
    assert sum(len(recorder.seen()) for recorder in there.recorders) == sent
    assert there.lb.generation == UPGRADES + 1


def test_upgrades_and_reloads_as_fast_as_can_be(town, program):
    """By signals, so that they are asked for again while one is under way, at whatever moment."""
    there = town(how={"do": "delay", "delay": 0.01}, workers=2, program=program.path)
    over = threading.Event()

    def signals():
        for n in range(10000):
            if over.wait(0.004):
                return
            os.kill(there.lb.pid, signal.SIGUSR2 if n % 3 else signal.SIGHUP)
    sender = threading.Thread(target=signals)
    with there.load(clients=8) as load:
        sender.start()
        load.wait(500)
        over.set()
        sender.join()
    assert load.failures() == []
    there.wait_quiet()
    assert there.doubled() == [] and there.lb.vbctl("status")["requests"] == len(load.sent)
    there.lb.wait_log("has taken over", count=3)


def test_requests_under_way_are_finished(balancer, backend, program, workers):
    there = backend(held)
    lb = balancer(there, workers=workers, program=program.path)
    old = lb.worker_pids()
    clients = start_slow(lb, there, 8)
    upgrade(lb)
    assert not set(old) & set(lb.worker_pids())
    assert lb.vbctl("status")["in_flight"] == lb.backend(there)["in_flight"] == 8
    assert {row["state"] for row in lb.worker_rows() if row["generation"] == 1} == {"draining"}
    there.released.set()
    for client in clients:
        response = client.response()
        assert response.text == "/slow" and response.closes
    lb.wait_old_gone()
    lb.wait_idle()


def test_the_grace_holds_for_old_workers(balancer, backend, program):
    """One that hangs is killed at its end; through another upgrade that goes on where it was, and not anew."""
    there = backend(held)
    lb = balancer(there, config={"shutdown": {"grace": "2s"}, "watchdog": "off"}, program=program.path)
    old = lb.worker_pids()[0]
    start_slow(lb, there, 1)
    began = time.monotonic()
    upgrade(lb)
    os.kill(old, signal.SIGSTOP)
    eventually(lambda: time.monotonic() > began + 1.7, "half of it is over")
    upgrade(lb)
    assert is_running(old)
    lb.wait_log("a worker of generation 1 does not end: killing it")
    assert time.monotonic() - began < 3 + 1.5
    lb.wait_old_gone()


def test_a_tunnel_of_an_old_worker_lives(balancer, backend, program, workers):
    lb = balancer(backend(switch_and_echo), workers=workers, program=program.path)
    old = [ask(lb.port) for _ in range(4)]
    upgrade(lb)
    new = [ask(lb.port) for _ in range(4)]
    assert all(round_trip(client) for client in old + new)
    for client in old + new:
        client.close()
    lb.wait_old_gone()


def test_counters_go_on(balancer, backend, program):
    there = backend()
    lb = balancer(there, workers=2, program=program.path)
    for _ in range(7):
        get(lb.port)
    before = lb.vbctl("status")
    upgrade(lb)
    for _ in range(5):
        get(lb.port)
    assert lb.vbctl("status")["requests"] == lb.backend(there)["requests"] == 12
    assert lb.vbctl("status")["uptime_s"] > before["uptime_s"]


def test_an_ejected_backend_stays_ejected(balancer, backend, program, workers):
    bad, good = backend(reply("no", status="503 No")), backend(reply("good"))
    pool = {"outlier": {"consecutive": 2, "eject": "60s"}, "retry": {"on": ["503"]}}
    lb = balancer([bad, good], pool=pool, workers=workers, program=program.path)
    eventually(lambda: get(lb.port) and lb.backend(bad)["ejected"], "the bad one is ejected")
    before, asked = lb.backend(bad), len(bad.requests)
    upgrade(lb)
    now = lb.backend(bad)
    for key in ("ejected", "ejections", "errors", "failures_in_a_row", "last_request_failure"):
        assert now[key] == before[key], key
    assert 0 < now["ejected_for_s"] <= before["ejected_for_s"]
    assert {get(lb.port).text for _ in range(10)} == {"good"} and len(bad.requests) == asked


def test_what_checks_have_shown_goes_on(balancer, backend, program):
    """Its state needs as many results to change as ever: one check, which alone decides at a start, does not."""
    gone, there = backend(), backend(reply("there"))
    gone.stop()
    rules = {"interval": "100ms", "fast_interval": "100ms", "timeout": "1s", "rise": 1000, "fall": 1000}
    lb = balancer([gone, there], pool={"health": rules}, program=program.path)
    lb.wait_health(gone, "down")
    lb.wait_health(there, "up")
    gone.start()
    there.stop()
    eventually(lambda: lb.backend(gone)["checks"] > lb.backend(gone)["check_failures"] + 2, "it passes")
    eventually(lambda: lb.backend(there)["check_failures"] > 2, "it fails")
    before = {name: lb.backend(name) for name in (gone.address, there.address)}
    upgrade(lb)
    for name, then in before.items():
        eventually(lambda name=name, then=then: lb.backend(name)["checks"] > then["checks"] + 2, "checks go on")
        now = lb.backend(name)
        assert now["health"] == then["health"] == {gone.address: "down", there.address: "up"}[name]
        assert now["check_failures"] >= then["check_failures"] > 0
    assert len(lb.wait_log("is DOWN")) == 1 and len(lb.wait_log("is UP")) == 1, "nobody changed its mind"


def test_a_backend_in_the_middle_of_a_change(balancer, backend, program):
    """The result of before counts: one more, which is made at once, makes two."""
    there = backend()
    lb = balancer([there], program=program.path, pool={
        "health": {"interval": "50ms", "fast_interval": "1h", "timeout": "1s", "rise": 1, "fall": 2}})
    lb.wait_health(there, "up")
    there.stop()
    eventually(lambda: lb.backend(there)["check_failures"] == 1, "the first one fails; the next is due in an hour")
    assert lb.backend(there)["health"] == "up"
    upgrade(lb)
    lb.wait_health(there, "down")


def test_log_lines_keep_coming(balancer, backend, program):
    """All of them, and in order, whoever wrote them."""
    lb = balancer(backend(), workers=2, program=program.path, args=["--log-level", "debug"])
    for n in range(1, 6):
        upgrade(lb)
        lb.vbctl("drain", f"web/{lb.settings['pools']['web']['backends'][0].address}")
    lb.wait_log("vbctl: .* drains", count=5)
    found = re.findall(r"executing|has taken over|upgraded|drains", lb.log())
    assert found == ["executing", "has taken over", "upgraded", "drains"] * 5
    assert lb.vbctl("status")["log_lost"] == 0


def test_a_unix_socket(balancer, backend, program, tmp_path):
    path = tmp_path / "vb.sock"
    port = free_port()
    lb = balancer(backend(reply("hello")), workers=2, program=program.path, port=port,
                  config={"listen": [f"127.0.0.1:{port}", f"unix:{path}"]})
    inode = path.stat().st_ino
    upgrade(lb)
    assert path.stat().st_ino == inode and get(path).text == "hello"
    upgrade(lb)
    assert get(path).text == "hello"
    lb.stop()
    assert not path.exists()


def test_the_service_manager_is_told(balancer, backend, program, tmp_path):
    name = f"@{unique_name()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:])
        manager.settimeout(TIMEOUT)

        def told():
            return dict(line.split("=", 1) for line in manager.recv(4096).decode().splitlines())
        lb = balancer(backend(), env={"NOTIFY_SOCKET": name}, program=program.path)
        assert told()["READY"] == "1"
        for _ in range(2):
            upgrade(lb)
            assert told()["RELOADING"] == "1"
            assert told()["READY"] == "1"
        for pid in lb.worker_pids():
            environment = open(f"/proc/{pid}/environ", "rb").read()
            assert b"NOTIFY_SOCKET" not in environment and b"VIBEBALANCER_" not in environment
        lb.stop()
        assert told()["STOPPING"] == "1"


def test_nothing_piles_up(balancer, backend, program):
    lb = balancer(backend(), workers=2, program=program.path, pool={"health": {"interval": "50ms", "timeout": "1s"}})

    def count():
        lb.wait_old_gone()
        lb.wait_idle()
        return open_files(lb.pid)
    in_worker = open_files(lb.worker_pids()[0])
    for _ in range(3):
        upgrade(lb)
    lowest = count()
    for _ in range(30):
        upgrade(lb)
    eventually(lambda: count() <= lowest, f"{lowest} descriptors again, and not {open_files(lb.pid)}")
    assert [open_files(pid) for pid in lb.wait_workers()] == [in_worker] * 2, "workers have what they need only"
    environment = open(f"/proc/{lb.pid}/environ", "rb").read().split(b"\0")
    assert len([entry for entry in environment if entry.startswith(b"UV_THREADPOOL_SIZE")]) == 1


# ---- after it --------------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced(balancer, backend, program, workers):
    lb = balancer(backend(), workers=workers, program=program.path)
    upgrade(lb)
    before = lb.wait_workers()
    os.kill(before[0], signal.SIGKILL)
    lb.wait_workers(without=before[:1])
    assert [get(lb.port).status for _ in range(10)] == [200] * 10


def test_a_killed_worker_of_before_is_given_back(balancer, backend, program):
    """What it held is in no count any more."""
    there = backend(held)
    lb = balancer(there, workers=2, program=program.path)
    old = lb.worker_pids()
    clients = start_slow(lb, there, 4)
    upgrade(lb)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    lb.wait_old_gone()
    lb.wait_idle()
    eventually(lambda: lb.total("connections") == 0, "no client is counted")
    assert len(lb.wait_log("was killed by signal 9", count=2)) == 2
    assert get(lb.port, "/quick").text == "/quick"
    for client in clients:
        client.close()


def test_a_reload_after_it(balancer, backend, program, workers):
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(a, workers=workers, program=program.path)
    upgrade(lb)
    assert "generation 3" in lb.reload(pools=web(b))
    assert {get(lb.port).text for _ in range(8)} == {"b"}
    lb.hup()
    lb.wait_generation(4)
    lb.wait_old_gone()


def test_a_stop_finishes_what_workers_of_before_have(balancer, backend, program):
    there = backend(held)
    lb = balancer(there, workers=2, program=program.path)
    clients = start_slow(lb, there, 3)
    upgrade(lb)
    lb.ask_to_stop()
    lb.wait_log("finishing requests")
    there.released.set()
    assert [client.response().text for client in clients] == ["/slow"] * 3
    lb.stop()


def test_a_second_stop_ends_workers_of_before_too(balancer, backend, program):
    there = backend(held)
    lb = balancer(there, workers=2, program=program.path)
    old = lb.worker_pids()
    start_slow(lb, there, 3)
    upgrade(lb)
    lb.ask_to_stop()
    lb.wait_log("finishing requests")
    lb.ask_to_stop()
    lb.stop()
    assert not any(is_running(pid) for pid in old)


def test_a_master_that_is_killed_after_it(balancer, backend, program):
    """Its lock is gone with it: another one starts."""
    lb = balancer(backend(), workers=2, program=program.path)
    upgrade(lb)
    lb.unclean = True
    workers = lb.worker_pids()
    os.kill(lb.pid, signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in workers), "its workers finish by themselves")
    again = balancer(backend(reply("again")), name=lb.name, port=lb.port, program=program.path)
    assert get(again.port).text == "again"
