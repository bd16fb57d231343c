"""Upgrades that do not come about: the old executable goes on untouched, and says why; and what comes in between."""
import fcntl
import os
import re
import signal
import struct
import subprocess

import pytest
from harness import (BUILD, TIMEOUT, Client, children_of, eventually, free_port, get, is_running, open_files, reply,
                     web)
from programs import VERSION, Program, vbctl_upgrade

HANGS = "exec sleep 1000"  # as a new executable
LAYOUT_AT = 8  # in a segment: its version


@pytest.fixture
def program(tmp_path):
    return Program(tmp_path)


def untouched(lb):
    """What must be the same before and after; and that it still serves."""
    assert [get(lb.port).status for _ in range(4)] == [200] * 4
    status = lb.vbctl("status")
    return (sorted(lb.worker_pids()), status["pid"], status["generation"], status["version"], status["state"],
            os.readlink(f"/proc/{lb.pid}/exe").removesuffix(" (deleted)"))


def upgrade_in_vain(lb):
    """The reason, which is the same for whoever asked, in the status, and in the log."""
    before, failed = untouched(lb), lb.vbctl("status")["reloads_failed"]
    status, said, complained = vbctl_upgrade(lb)
    assert (status, said) == (1, ""), (said, complained, lb.log())
    assert untouched(lb) == before
    now = lb.vbctl("status")
    assert now["reloads_failed"] == failed + 1 and now["last_reload_ok"] is False
    reason = complained.removeprefix("vbctl: ").rstrip("\n")
    assert now["last_reload_error"] == reason
    lb.wait_log("the upgrade failed, everything stays as it was", count=failed + 1)
    assert reason in lb.log()
    return reason


def good_again(lb, program):
    """What went wrong left nothing that keeps the next one from going well."""
    new = program.put_version(7)
    status, said, complained = vbctl_upgrade(lb)
    assert status == 0 and f"version {new}," in said, (complained, lb.log())
    lb.wait_old_gone()
    assert lb.vbctl("status")["last_reload_ok"] is True


# ---- executables that are none ---------------------------------------------------------------------------------------


def missing(program):
    program.path.unlink()


SAY = 'import os; (lambda text: os.write(int(os.environ["VIBEBALANCER_TRIAL"]), text))'
BROKEN = {
    "missing": (missing, "cannot execute .*vibebalancer: No such file or directory"),
    "not executable": (lambda p: p.put(b"#!/bin/sh\n", mode=0o644), "cannot execute .*: Permission denied"),
    "a folder": (lambda p: (p.path.unlink(), p.path.mkdir()), "cannot execute .*: Permission denied"),
    "empty": (lambda p: p.put(b""), "ended with status .* without saying that it can take over"),
    "garbage": (lambda p: p.put(os.urandom(100000)), "cannot execute|ended with status .* without saying"),
    "the first half": (lambda p: p.put((BUILD / "vibebalancer").read_bytes()[:100000]),
                       "cannot execute|killed by signal|ended with status .* without saying"),
    "another program": (lambda p: p.put_script("exec /bin/true"), "ended with status 0 without saying that it can"),
    "one that fails": (lambda p: p.put_script("exit 3"), "ended with status 3 without saying that it can"),
    "one that crashes": (lambda p: p.put_script("kill -SEGV $$"), r"killed by signal 11 \(Segmentation fault\)"),
    "one that knows less": (lambda p: p.put_script(f"unset VIBEBALANCER_HANDOVER VIBEBALANCER_TRIAL\n"
                                                   f'exec {BUILD}/vibebalancer "$@"'), "ended with status 1 without"),
    "one that says more": (lambda p: p.put_python(f"{SAY}(b'ok, or not')"), "ok, or not"),
    "one that lies": (lambda p: p.put_python(f"{SAY}(b'ok'); os._exit(4)"), "status 4 without"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_executable_that_cannot_take_over(balancer, backend, program, how):
    break_it, expected = BROKEN[how]
    lb = balancer(backend(), workers=2, program=program.path)
    break_it(program)
    assert re.search(expected, upgrade_in_vain(lb))
    if program.path.is_dir():
        program.path.rmdir()
    good_again(lb, program)


def test_one_that_hangs(balancer, backend, program):
    """It is given 10 seconds, and the requests of that time are served."""
    lb = balancer(backend(), workers=2, program=program.path)
    program.put_script(HANGS)
    assert "has not said within 10 s whether it can take over" in upgrade_in_vain(lb)
    eventually(lambda: sorted(children_of(lb.pid)) == sorted(lb.worker_pids()), "it was killed")
    good_again(lb, program)


def test_a_configuration_that_is_invalid(balancer, backend, program):
    lb = balancer(backend(), workers=2, program=program.path)
    good = dict(lb.settings)
    lb.write_config(limits={"connections": "many"})
    reason = upgrade_in_vain(lb)
    assert f"{lb.file}:" in reason and "connections" in reason
    lb.file.unlink()
    assert str(lb.file) in upgrade_in_vain(lb)
    lb.write_config(limits=good.get("limits"))
    good_again(lb, program)


def test_all_that_is_wrong_with_a_configuration_is_said(balancer, backend, program):
    lb = balancer(backend(), program=program.path)
    lb.write_config(limits={"connections": "many"}, shutdown={"grace": "long"})
    status, _, complained = vbctl_upgrade(lb)
    assert status == 1 and "connections" in complained and "grace" in complained


def test_a_segment_of_another_layout(balancer, backend, program):
    """As the new version would find one of the old version, if its own was another."""
    lb = balancer(backend(), workers=2, program=program.path)
    before = untouched(lb)
    with open(lb.segment, "r+b") as file:
        def write_layout(number):
            file.seek(LAYOUT_AT)
            file.write(struct.pack("I", number))
            file.flush()
        file.seek(LAYOUT_AT)
        layout = struct.unpack("I", file.read(4))[0]
        write_layout(999)
        os.kill(lb.pid, signal.SIGUSR2)
        lb.wait_log("the upgrade failed")
        lb.wait_log(f"{lb.segment}.* 999")
        write_layout(layout)
    assert untouched(lb) == before
    good_again(lb, program)


def test_many_that_fail_leave_nothing_behind(balancer, backend, program):
    lb = balancer(backend(), program=program.path)
    program.put_script("exit 1")
    upgrade_in_vain(lb)
    before = open_files(lb.pid)
    for _ in range(20):
        upgrade_in_vain(lb)
    program.path.unlink()
    for _ in range(5):
        upgrade_in_vain(lb)
    eventually(lambda: open_files(lb.pid) <= before, "no descriptor is left open")
    assert sorted(children_of(lb.pid)) == sorted(lb.worker_pids())


# ---- after the trial -------------------------------------------------------------------------------------------------

IN_TRIAL = f'[ -n "$VIBEBALANCER_TRIAL" ] && exec {BUILD}/vibebalancer "$@"'


def test_one_that_is_gone_when_it_is_to_be_executed(balancer, backend, program):
    """Checks and the log go on then, too."""
    there = backend()
    lb = balancer(there, workers=2, program=program.path, pool={"health": {"interval": "50ms", "timeout": "1s"}})
    program.put_script(f'rm "$0"\n{IN_TRIAL}')
    assert "cannot execute" in upgrade_in_vain(lb)
    checks = lb.backend(there)["checks"]
    eventually(lambda: lb.backend(there)["checks"] > checks + 2, "checks go on")
    lb.vbctl("drain", f"web/{there.address}")
    lb.wait_log("vbctl: .* drains")
    good_again(lb, program)


@pytest.mark.parametrize("what", ["another program", "garbage"])
def test_one_that_was_not_on_trial_is_not_executed(balancer, backend, program, what):
    """The next deploy comes in the middle of this one."""
    lb = balancer(backend(), workers=2, program=program.path)
    next_one = program.path.with_suffix(".next")
    next_one.write_bytes(b"#!/bin/sh\nexit 0\n" if what == "another program" else os.urandom(100000))
    next_one.chmod(0o755)
    program.put_script(f'mv {next_one} "$0"\n{IN_TRIAL}')
    assert "was replaced while it was on trial; upgrade again" in upgrade_in_vain(lb)
    good_again(lb, program)


def test_one_that_fails_when_it_has_been_executed(balancer, backend, program):
    """The old executable gets everything back, and goes on: with its threads, workers and clients."""
    there = backend(lambda c, r: (c.backend.released.wait(60) if r.target == "/slow" else None, c.send(reply("x"))))
    lb = balancer(there, workers=2, program=program.path)
    (program.path.parent / "old").hardlink_to(program.path)
    slow = Client(lb.port)
    slow.start("GET", "/slow")
    there.wait_requests(1)
    program.put_script(f'{IN_TRIAL}\nexport VB_FAIL_TAKE_OVER=1\nexec -a "$0" {BUILD}/vibebalancer-faults "$@"',
                       shell="bash")
    before = untouched(lb)
    status, said, complained = vbctl_upgrade(lb)
    assert (status, said) == (1, "") and "cannot start" in complained, lb.log()
    assert untouched(lb)[:5] == before[:5]
    assert os.stat(f"/proc/{lb.pid}/exe").st_ino == (program.path.parent / "old").stat().st_ino
    lb.wait_log("the upgrade failed, everything stays as it was")
    assert lb.vbctl("status")["last_reload_error"] in complained
    there.released.set()
    assert slow.response().text == "x"
    slow.close()
    pids = lb.worker_pids()
    os.kill(pids[0], signal.SIGKILL)
    lb.wait_workers(without=pids[:1])
    good_again(lb, program)


def test_a_reload_that_fails_after_it(balancer, backend, program):
    """The new executable goes on with the workers of the old one, and replaces them when they die."""
    lb = balancer(backend(), workers=2, program=program.path)
    old = sorted(lb.worker_pids())
    taken = backend()
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", taken.address])
    new = program.put_version(3)
    status, said, complained = vbctl_upgrade(lb)
    assert (status, said) == (1, "")
    assert f"version {new} has taken over, but its reload failed: cannot listen on {taken.address}" in complained
    now = lb.vbctl("status")
    assert (now["version"], now["pid"], now["generation"], now["last_reload_ok"]) == (new, lb.pid, 1, False)
    assert sorted(lb.worker_pids()) == old and [get(lb.port).status for _ in range(8)] == [200] * 8
    os.kill(old[0], signal.SIGKILL)
    lb.wait_workers(without=old[:1])
    assert [get(lb.port).status for _ in range(8)] == [200] * 8
    os.kill(old[1], signal.SIGSTOP)
    os.kill(old[1], signal.SIGKILL)
    lb.wait_workers(without=old)
    assert "generation 2" in lb.reload(listen=f"127.0.0.1:{lb.port}")
    lb.wait_old_gone()


def test_a_stop_with_workers_of_before(balancer, backend, program):
    lb = balancer(backend(), workers=4, program=program.path)
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", backend().address])
    old = lb.worker_pids()
    assert vbctl_upgrade(lb)[0] == 1 and sorted(lb.worker_pids()) == sorted(old)
    with Client(lb.port) as client:
        assert client.get("/").status == 200
        lb.ask_to_stop()
        lb.stop()
    assert not any(is_running(pid) for pid in old)


def test_a_worker_of_before_that_hangs_is_killed(balancer, backend, program):
    """By the watchdog of the new executable."""
    lb = balancer(backend(), workers=2, program=program.path, config={"watchdog": "2s"})
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", backend().address])
    old = lb.worker_pids()
    assert vbctl_upgrade(lb)[0] == 1
    os.kill(old[0], signal.SIGSTOP)
    lb.wait_log("killing it")
    lb.wait_workers(without=old[:1])


def test_a_log_that_nobody_reads(balancer, backend, program):
    """What waits there would be lost, so it is refused; once it is read all goes well."""
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    lb = balancer(backend(), program=program.path, stderr=write_end)
    lb.unclean = False
    before = untouched(lb)
    os.set_blocking(read_end, False)
    while True:
        try:
            os.read(read_end, 65536)
        except BlockingIOError:
            break
    filler = os.open(f"/proc/self/fd/{write_end}", os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(filler, b".\n" * 10)
    except BlockingIOError:
        pass
    status, _, complained = vbctl_upgrade(lb)
    assert status == 1 and "nobody reads standard error" in complained
    assert untouched(lb) == before
    os.set_blocking(read_end, True)
    reader = subprocess.Popen(["cat"], stdin=read_end, stdout=subprocess.DEVNULL)
    try:
        good_again(lb, program)
        lb.stop()
    finally:
        for end in (read_end, write_end, filler):
            os.close(end)
        reader.kill()
        reader.wait(TIMEOUT)


# ---- what comes in between -------------------------------------------------------------------------------------------


@pytest.fixture
def trying(balancer, backend, program):
    """A balancer in the middle of a trial that does not end, and the process of that trial."""
    lb = balancer(backend(), workers=2, program=program.path)
    program.put_script(HANGS)
    os.kill(lb.pid, signal.SIGUSR2)

    def trial():
        others = set(children_of(lb.pid)) - set(lb.worker_pids())
        return [pid for pid in others if b"sleep" in open(f"/proc/{pid}/cmdline", "rb").read()]
    return lb, eventually(trial, "the trial runs")[0]


def test_a_stop_during_the_trial(trying):
    lb, trial = trying
    lb.stop()
    assert not is_running(trial)


def test_a_stop_is_not_kept_waiting_by_a_trial(trying):
    lb, trial = trying
    with Client(lb.port) as client:
        assert client.get("/").status == 200
        lb.ask_to_stop()
        lb.wait(5)
    assert not is_running(trial)


def test_reloads_that_are_asked_for_during_the_trial(trying):
    """They are carried out after it."""
    lb, trial = trying
    lb.hup()
    reload = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "reload"], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.kill(trial, signal.SIGKILL)
    said, complained = reload.communicate(timeout=TIMEOUT)
    assert reload.returncode == 0 and re.match("reloaded: generation [23],", said), complained
    lb.wait_log("killed by signal 9")


def test_an_upgrade_that_is_asked_for_during_the_trial(trying, program):
    lb, trial = trying
    new = program.put_version(5)
    upgrade = subprocess.Popen([BUILD / "vbctl", "--name", lb.name, "upgrade"], text=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    os.kill(trial, signal.SIGKILL)
    said, complained = upgrade.communicate(timeout=TIMEOUT)
    assert upgrade.returncode == 0 and f"version {new}, generation 2" in said, complained


def test_a_worker_that_dies_during_the_trial(trying):
    lb, trial = trying
    before = lb.worker_pids()
    os.kill(before[0], signal.SIGKILL)
    lb.wait_workers(without=before[:1])
    assert is_running(trial)


def test_another_master_can_start_after_a_kill_during_the_trial(trying, balancer, backend, program):
    """Whoever hangs in a trial has neither the lock nor a listening socket."""
    lb, trial = trying
    lb.unclean = True
    workers = lb.worker_pids()
    os.kill(lb.pid, signal.SIGKILL)
    eventually(lambda: not any(is_running(pid) for pid in workers), "its workers finish by themselves")
    assert is_running(trial)
    program.put_version(1)
    again = balancer(backend(reply("again")), name=lb.name, port=lb.port, program=program.path)
    assert get(again.port).text == "again"
    os.kill(trial, signal.SIGKILL)


def test_an_upgrade_while_a_reload_is_under_way(balancer, backend, program):
    """It waits for it: here for the first look at a backend that does not answer."""
    there = backend()
    lb = balancer(there, program=program.path, pool={"health": {"interval": "1s", "timeout": "1s", "path": "/"}})
    silent = backend(lambda c, r: c.hang())
    lb.write_config(pools=web([there, silent], health={"interval": "1s", "timeout": "1s", "path": "/"}))
    lb.hup()
    lb.wait_log("reloading")
    status, said, complained = vbctl_upgrade(lb)
    assert status == 0 and f"version {VERSION}, generation 3" in said, complained
    lb.wait_log("reloaded: generation 2")


WAITS = {
    "python3": "import os, sys, time\nwhile not os.path.exists('GO') and 'VIBEBALANCER_TRIAL' not in os.environ:\n"
               "    time.sleep(0.01)\nos.execv('PROGRAM', sys.argv)",
    "sh": '[ -n "$VIBEBALANCER_TRIAL" ] || until [ -e GO ]; do sleep 0.01; done\nexec PROGRAM "$@"',
}


@pytest.mark.parametrize("shell", WAITS)
def test_workers_that_die_as_it_is_executed(balancer, backend, program, shell):
    """One of those that serve, and one that was finishing. A shell that is executed in between reaps them."""
    there = backend(lambda c, r: (c.backend.released.wait(60) if r.target == "/slow" else None, c.send(reply("x"))))
    lb = balancer(there, program=program.path)
    slow = Client(lb.port)
    slow.start("GET", "/slow")
    there.wait_requests(1)
    finishing = lb.worker_pids()
    lb.reload()
    serving = lb.worker_pids()
    go = program.path.parent / "go"
    program.put_script(WAITS[shell].replace("GO", str(go)).replace("PROGRAM", f"{BUILD}/vibebalancer"), shell=shell)
    lb.write_config(listen=[f"127.0.0.1:{lb.port}", backend().address])  # so that the serving generation stays
    os.kill(lb.pid, signal.SIGUSR2)
    eventually(lambda: shell in os.readlink(f"/proc/{lb.pid}/exe") or "dash" in os.readlink(f"/proc/{lb.pid}/exe"),
               "it executes the script")
    for pid in finishing + serving:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not is_running(pid), "it is dead")
    go.touch()
    lb.wait_log("has taken over")
    lb.wait_workers(without=serving)
    assert [get(lb.port, "/quick").text for _ in range(4)] == ["x"] * 4
    lb.wait_old_gone()
    lb.wait_idle()
    assert len(lb.wait_log(r"was killed by signal 9|ended with status 0|has finished", count=2)) == 2
    slow.close()


def test_a_stop_that_comes_as_it_is_executed(balancer, backend, program):
    """The signal is not lost, whichever of the two gets it."""
    there = backend()
    for n in range(8):
        lb = balancer(there, program=program.path, port=free_port())
        program.put_script(f'[ -n "$VIBEBALANCER_TRIAL" ] || sleep 0.{n}\nexec {BUILD}/vibebalancer "$@"')
        os.kill(lb.pid, signal.SIGUSR2)
        lb.wait_log("executing")
        lb.stop()
        program.put_version(1)
