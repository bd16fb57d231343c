"""What a service manager sees: sd_notify(3), and that our unit file fits what we do (README, "As a service")."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from harness import (BUILD, ROOT, TIMEOUT, Client, children_of, eventually, free_port, get, hang, is_stopped, reply,
                     run, to_yaml, unique_name)
from privileges import NOBODY, as_root, assert_nobody, folder, low_port, runs_as  # noqa: F401

UNIT = ROOT / "examples" / "vibebalancer.service"


class Manager:
    """The receiving end of NOTIFY_SOCKET, as a path or as an abstract name."""

    def __init__(self, name):
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.socket.settimeout(TIMEOUT)
        self.env = {"NOTIFY_SOCKET": name}

    def next(self):
        """The assignments of the next message."""
        return dict(line.split("=", 1) for line in self.socket.recv(4096).decode().splitlines())

    def rest(self):
        """Those that have come until now."""
        self.socket.setblocking(False)
        found = []
        try:
            while True:
                found.append(self.next())
        except BlockingIOError:
            return found
        finally:
            self.socket.settimeout(TIMEOUT)


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@{unique_name()}")
    with manager.socket:
        yield manager


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 4])
def test_it_says_when_it_serves_and_when_it_stops(balancer, backend, manager, workers):
    there = backend([reply("first"), hang])
    lb = balancer(there, env=manager.env, workers=workers)
    said = manager.next()
    assert said["READY"] == "1" and said["STATUS"]
    assert get(lb.port).text == "first"
    assert manager.rest() == [], "more than is to be said"
    with Client(lb.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: lb.vbctl("status")["in_flight"] == 1, "a request is in flight")
        lb.ask_to_stop()
        said = manager.next()
        assert said["STOPPING"] == "1" and said["STATUS"]
        assert lb.process.poll() is None, "it was said when all was over"
        there.released.set()
        assert client.response().status == 502
    lb.stop()
    assert manager.rest() == []


def test_ready_is_not_said_before_all_workers_serve(tmp_path, backend, manager):
    """At the moment of the message: no waiting, neither for a worker nor for a connection."""
    port, name, file = free_port(), unique_name(), tmp_path / "vb.yaml"
    file.write_text(to_yaml({"listen": f"127.0.0.1:{port}", "pools": {"web": {"backends": [backend(reply("hello"))]}}}))
    process = subprocess.Popen([BUILD / "vibebalancer", "-c", file, "--name", name, "--workers", "4"],
                               env={**os.environ, **manager.env}, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert manager.next()["READY"] == "1"
        status = run("vbctl", "--name", name, "status", "--json").stdout
        assert '"state": "running"' in status and re.search(r'"ready": 4\b', status), status
        assert get(port).text == "hello"
    finally:
        process.terminate()
        assert process.wait(TIMEOUT) == 0


@as_root
def test_ready_is_never_said_where_no_worker_can_serve(tmp_path, backend, manager):
    file = tmp_path / "vb.yaml"
    file.write_text(to_yaml({"listen": f"127.0.0.1:{free_port()}", "user": "54321:54321",
                             "pools": {"web": {"backends": [backend()], "health": "off"}}}))
    result = run("vibebalancer", "-c", file, "--name", unique_name(), "--workers", 1, env=manager.env,
                 wrapper=["setpriv", "--bounding-set=-setuid", "--inh-caps=-setuid"])
    assert result.returncode == 1
    said = manager.rest()
    assert [message.get("STOPPING") for message in said] == ["1"] and "READY" not in said[0]


def test_a_replaced_worker_is_no_second_start(balancer, backend, manager):
    lb = balancer(backend(), env=manager.env, workers=2)
    assert manager.next()["READY"] == "1"
    before = lb.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    lb.wait_workers(without=before[:1])
    eventually(lambda: lb.vbctl("status")["state"] == "running", "it runs again")
    assert manager.rest() == []


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_reload_is_told(balancer, backend, manager, ends):
    """As Type=notify-reload wants it (sd_notify(3)): with the time, and ready again in any case."""
    lb = balancer(backend(), env=manager.env)
    assert manager.next()["READY"] == "1"
    for _ in range(2):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        lb.reload() if ends == "well" else lb.reload_in_vain(nonsense="x")
        said = manager.next()
        assert said["RELOADING"] == "1" and said["STATUS"]
        assert before <= int(said["MONOTONIC_USEC"]) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        said = manager.next()
        assert said["READY"] == "1" and ("failed" in said["STATUS"]) == (ends == "badly")
    assert manager.rest() == []


def test_a_reload_that_fails_while_it_starts_does_not_say_ready(tmp_path, backend, manager):
    port, name, file, gate = free_port(), unique_name(), tmp_path / "vb.yaml", tmp_path / "gate"
    file.write_text(to_yaml({"listen": f"127.0.0.1:{port}", "pools": {"web": {"backends": [backend(reply("hello"))]}}}))
    gate.touch()
    process = subprocess.Popen([BUILD / "vibebalancer-faults", "-c", file, "--name", name, "--workers", "1"],
                               env={**os.environ, **manager.env, "VB_STOP_AT_START": str(gate)},
                               stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        worker, = eventually(lambda: [pid for pid in children_of(process.pid) if is_stopped(pid)], "it starts")
        file.write_text("nonsense: 1\n")
        assert run("vbctl", "--name", name, "reload").returncode == 1
        assert [message.get("READY") for message in manager.rest()] == [None]
        gate.unlink()
        os.kill(worker, signal.SIGCONT)
        assert manager.next()["READY"] == "1"
        assert get(port).text == "hello"
    finally:
        process.terminate()
        assert process.wait(TIMEOUT) == 0



def test_workers_do_not_inherit_the_socket(balancer, backend, manager):
    lb = balancer(backend(), env=manager.env, workers=2)
    for pid in lb.worker_pids():
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        assert any(entry.startswith(b"PATH=") for entry in environment)
        assert not any(entry.startswith(b"NOTIFY_SOCKET") for entry in environment)


@pytest.mark.parametrize("name", ["", "/", "@", "relative", "vsock:2:1234", "/nobody/listens", "@" + "x" * 107,
                                  "/" + "x" * 107])
def test_a_socket_that_is_none_disturbs_nobody(balancer, backend, name):
    lb = balancer(backend(reply("hello")), env={"NOTIFY_SOCKET": name})
    assert get(lb.port).text == "hello"


# ---- the unit file ---------------------------------------------------------------------------------------------------


def setting(name):
    return re.search(rf"^{name}=(.*)$", UNIT.read_text(), re.M)[1]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path):
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    for line in ("ExecStart", "ExecReload"):
        program = setting(line).split()[0]
        text = text.replace(program, str(BUILD / Path(program).name))
    unit.write_text(text)
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True,
                            timeout=TIMEOUT)
    if "Failed to" in result.stderr and unit.name not in result.stderr:
        pytest.skip(f"systemd-analyze cannot work here: {result.stderr}")
    assert (result.returncode, result.stderr) == (0, "")


def test_the_unit_waits_longer_than_requests_may():
    readme = (ROOT / "README.md").read_text()
    grace = int(re.search(r"^shutdown: \{ grace: (\d+)s \}", readme, re.M)[1])
    assert int(setting("TimeoutStopSec").removesuffix("s")) > grace + 5


@as_root
def test_the_units_capabilities_are_enough(runs_as, backend, folder):  # noqa: F811
    """To start on a low port as nobody, with unix sockets on both sides, to replace workers and to kill them."""
    kept = ",".join("+" + name.removeprefix("CAP_").lower() for name in setting("CapabilityBoundingSet").split())
    there = [backend(reply("tcp")), backend(reply("unix"), path=folder / "b.sock")]
    os.chown(folder / "b.sock", NOBODY.pw_uid, -1)
    os.chmod(folder / "b.sock", 0o600)
    port = low_port()
    lb = runs_as("nobody", there, port=port, workers=2,
                 config={"listen": [f"127.0.0.1:{port}", f"unix:{folder}/vb.sock"]},
                 wrapper=["setpriv", f"--bounding-set=-all,{kept}", "--inh-caps=-all", "--no-new-privs"])
    assert sorted(get(port).text for _ in range(10)) == ["tcp"] * 5 + ["unix"] * 5
    assert get(folder / "vb.sock").status == 200
    before = lb.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    after = lb.wait_workers(without=before[:1])
    assert_nobody(after)
    for pid in after:
        os.kill(pid, signal.SIGSTOP)
    lb.ask_to_stop()
    lb.wait_log("finishing requests")
    lb.ask_to_stop()
    lb.stop()
