"""Who workers are and what they may do: `user`, and what is given up in any case (README, "user")."""
import ctypes
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest
from harness import BUILD, SANITIZED, free_port, get, reply, run, to_yaml, unique_name
from privileges import (NOBODY, as_root, assert_is, assert_nobody, folder, low_port, numbers_of,  # noqa: F401
                        runs_as)


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def ordinary(*options):
    """A wrapper that runs a program as user 54321."""
    wrapper = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", *options]
    if os.getuid() != 0:
        pytest.skip("only root can run it as somebody else")
    if run("vibebalancer", "--version", wrapper=wrapper).returncode != 0:
        pytest.skip(f"user 54321 may not run {BUILD}/vibebalancer")
    return wrapper


# ---- becoming somebody else ------------------------------------------------------------------------------------------


@as_root
def test_root_listens_and_nobody_serves(runs_as, backend, workers):
    port = low_port()
    lb = runs_as("nobody", [backend(reply("hello"))], port=port, workers=workers)
    assert {get(port).text for _ in range(20)} == {"hello"}
    assert len(lb.worker_pids()) == workers
    assert_nobody(lb.worker_pids())
    assert numbers_of(lb.pid, "Uid") == [0] * 4
    assert numbers_of(lb.pid, "NoNewPrivs") == [0]
    lb.stop()
    assert "ended with status" not in lb.log()


@as_root
def test_what_is_shared_stays_roots(runs_as, backend, workers):
    """The workers count in a file that is not theirs, and only root may ask for changes."""
    there = [backend(reply("a")), backend(reply("b"))]
    lb = runs_as("nobody", there, workers=workers)
    for _ in range(10):
        assert get(lb.port).status == 200
    lb.wait_idle()
    assert lb.vbctl("status")["requests"] == 10
    assert [lb.backend(b)["requests"] for b in there] == [5, 5]
    assert lb.control.stat().st_uid == 0 and stat.S_IMODE(lb.control.stat().st_mode) == 0o600
    assert lb.segment.stat().st_uid == 0 and not lb.segment.stat().st_mode & 0o022
    assert run("vbctl", "--name", lb.name, "drain", f"web/{there[0].address}").returncode == 0
    assert {get(lb.port).text for _ in range(10)} == {"b"}


@as_root
def test_who_replaces_a_killed_worker_is_nobody_too(runs_as, backend, workers):
    lb = runs_as("nobody", [backend(reply("hello"))], port=low_port(), workers=workers)
    before = lb.worker_pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    after = lb.wait_workers(without=before)
    assert_nobody(after)
    assert {get(lb.port).text for _ in range(10)} == {"hello"}


@as_root
def test_workers_that_hang_are_killed_by_the_second_signal(runs_as, backend):
    """Root may, though they are another user's."""
    lb = runs_as("nobody", [backend()], workers=2)
    for pid in lb.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    lb.ask_to_stop()
    lb.wait_log("finishing requests")
    lb.ask_to_stop()
    lb.stop()


@as_root
def test_all_groups_of_the_user_are_taken(runs_as, backend, folder):
    """In a mount namespace with an /etc/group of its own."""
    group = folder / "group"
    group.write_text(Path("/etc/group").read_text() + "vb-one:x:54331:nobody\nvb-two:x:54332:bin,nobody\n"
                     "vb-not:x:54333:bin\n")
    wrapper = ["unshare", "-m", "sh", "-c", f'mount --bind {group} /etc/group && exec "$@"', "sh"]
    if subprocess.run([*wrapper, "grep", "-q", "vb-one", "/etc/group"], capture_output=True).returncode != 0:
        pytest.skip("no mount namespace can be had here")
    expected = {*os.getgrouplist("nobody", NOBODY.pw_gid), 54331, 54332}
    lb = runs_as("nobody", [backend()], wrapper=wrapper)
    assert_is(lb.worker_pids()[0], NOBODY.pw_uid, NOBODY.pw_gid, expected)


@as_root
@pytest.mark.parametrize("user, gid", [("54321", 54321), ("54321:54322", 54322), ("54321:0", 0)])
def test_numbers_need_no_entry(runs_as, backend, user, gid):
    lb = runs_as(user, [backend(reply("hello"))], workers=2)
    assert {get(lb.port).text for _ in range(5)} == {"hello"}
    for pid in lb.worker_pids():
        assert_is(pid, 54321, gid, [gid])


@as_root
def test_a_number_with_an_entry_is_that_user(runs_as, backend):
    lb = runs_as(str(NOBODY.pw_uid), [backend()])
    assert_nobody(lb.worker_pids())


@as_root
@pytest.mark.parametrize("user", [None, "root", "0", "0:0"])
def test_otherwise_workers_are_who_the_master_is(runs_as, backend, user):
    lb = runs_as(user, [backend(reply("hello"))])
    assert get(lb.port).text == "hello"
    assert_is(lb.worker_pids()[0], 0, 0, os.getgroups())
    assert "user" not in lb.log()


@as_root
def test_root_without_the_capability_says_so_and_gives_up(folder, backend):
    file = folder / "vb.yaml"
    file.write_text(to_yaml({"listen": f"127.0.0.1:{free_port()}", "user": "nobody",
                             "pools": {"web": {"backends": [backend()], "health": "off"}}}))
    result = run("vibebalancer", "-c", file, "--name", unique_name(), "--workers", 1,
                 wrapper=["setpriv", "--bounding-set=-setuid,-setgid", "--inh-caps=-setuid,-setgid"])
    assert result.returncode == 1, result
    assert "cannot become another user (65534:65534): Operation not permitted" in result.stderr.replace(
        f"{NOBODY.pw_uid}:{NOBODY.pw_gid}", "65534:65534")
    assert "giving up" in result.stderr


# ---- not root --------------------------------------------------------------------------------------------------------


def test_an_ordinary_user_is_told_that_it_has_no_effect(runs_as, backend):
    lb = runs_as("nobody", [backend(reply("hello"))], wrapper=ordinary())
    assert len(lb.wait_log(r"warn.*`user: nobody` has no effect: only root")) == 1
    assert get(lb.port).text == "hello"
    assert_is(lb.worker_pids()[0], 54321, 54321, [])


@pytest.mark.parametrize("user", ["54321", "54321:54321"])
def test_an_ordinary_user_may_name_itself(runs_as, backend, user):
    lb = runs_as(user, [backend(reply("hello"))], wrapper=ordinary())
    assert get(lb.port).text == "hello"
    assert "no effect" not in lb.log()


# ---- wrong -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--check"], ["--workers", "1"]], ids=["check", "start"])
def test_an_unknown_user_is_an_error_in_the_file(folder, args):
    file = folder / "vb.yaml"
    file.write_text("listen: 127.0.0.1:9\npools: {web: {backends: [127.0.0.1:9]}}\nuser:  nobodyy\n")
    result = run("vibebalancer", "-c", file, "--name", unique_name(), *args)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == (f"{file}:3:8: `user`: this machine has no user `nobodyy`; add it "
                             "(useradd --system nobodyy), or write UID:GID\n")


@pytest.mark.parametrize("user", ["nobody", "54321", "54321:0", "root"])
def test_a_good_user_passes_the_check(folder, user):
    file = folder / "vb.yaml"
    file.write_text(f"listen: 127.0.0.1:9\npools: {{web: {{backends: [127.0.0.1:9]}}}}\nuser: {user}\n")
    result = run("vibebalancer", "-c", file, "--check")
    assert (result.returncode, result.stderr) == (0, "")


# ---- unix sockets ----------------------------------------------------------------------------------------------------


@as_root
def test_a_socket_in_roots_own_folder_is_served(runs_as, backend, folder, workers):
    """Root makes it, where nobody may not even look."""
    (folder / "own").mkdir(mode=0o700)
    path = folder / "own" / "vb.sock"
    lb = runs_as("nobody", [backend(reply("hello"))], workers=workers, config={"listen": f"unix:{path}"})
    assert {get(path).text for _ in range(10)} == {"hello"}
    assert_nobody(lb.worker_pids())
    lb.stop()
    assert not path.exists()


@as_root
def test_a_backend_behind_a_socket_of_root_cannot_be_reached(runs_as, backend, folder):
    path = folder / "b.sock"
    there = backend(reply("hello"), path=path)
    os.chmod(path, 0o600)
    lb = runs_as("nobody", [there])
    assert get(lb.port).status == 502
    line, = lb.wait_log(": 502 ")
    assert f"unix:{path}" in line and "permission denied" in line
    os.chmod(path, 0o666)
    assert get(lb.port).text == "hello"


# ---- files -----------------------------------------------------------------------------------------------------------

# In the place of libuv's function, which a worker calls when it begins to serve. The master has the file open, too.
TRIES_A_FILE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

int uv_run(uv_loop_t *loop, uv_run_mode mode)
{
    int (*real)(uv_loop_t *, uv_run_mode) = dlsym(RTLD_NEXT, "uv_run");
    errno = 0;
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    fprintf(stderr, "%s opens a file: %s\\n", program_invocation_short_name, strerror(errno));
    if (fd >= 0)
        fprintf(stderr, "(%d)\\n", fd);
    return real(loop, mode);
}
"""


@pytest.mark.skipif(SANITIZED, reason="sanitizers need files, so workers may open them")
@pytest.mark.parametrize("user", [None, "nobody"])
def test_workers_open_no_files(runs_as, backend, folder, user):
    source, library = folder / "tries.c", folder / "tries.so"
    source.write_text(TRIES_A_FILE)
    if user and os.getuid() != 0:
        pytest.skip("only root can become another user")
    if not shutil.which("cc") or subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source],
                                                capture_output=True).returncode != 0:
        pytest.skip("no compiler, or no libuv for it")
    if ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1) < 1:  # landlock_create_ruleset: which version?
        pytest.skip("this kernel has no Landlock")
    lb = runs_as(user, [backend(reply("hello"))], workers=2, env={"LD_PRELOAD": str(library)})
    assert get(lb.port).text == "hello"
    assert len(lb.wait_log(r"opens a file: Permission denied", count=2)) == 2
    lb.wait_log(r"opens a file: Success")  # the master
