"""Balancers that run as another user: shared by the tests of `user` and of the unit file."""
import os
import pwd
import random
import re
import tempfile
from pathlib import Path

import pytest
from harness import Balancer, free_port

as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
try:
    NOBODY = pwd.getpwnam("nobody")
except KeyError:
    pytest.skip("there is no user nobody here", allow_module_level=True)


@pytest.fixture
def folder(lifetimes):
    """A folder that every user may enter."""
    name = lifetimes.enter_context(tempfile.TemporaryDirectory(prefix="vb-"))
    os.chmod(name, 0o755)
    return Path(name)


@pytest.fixture
def runs_as(folder, lifetimes):
    """runs_as(user, backends, ...) -> a balancer; its folder is one where other users may leave sanitizers' reports"""
    def make(user, backends, *, config=None, **options):
        config = {**({"user": user} if user is not None else {}), **(config or {})}
        lb = Balancer(folder, {"web": {"backends": backends, "health": "off"}}, config=config, **options)
        os.chmod(lb.folder, 0o777)
        return lifetimes.enter_context(lb)
    return make


def low_port():
    return free_port(random.sample(range(600, 1024), 424))


def numbers_of(pid, field):
    return [int(n) for n in re.search(rf"^{field}:(.*)$", Path(f"/proc/{pid}/status").read_text(), re.M)[1].split()]


def capabilities_of(pid):
    return {kind: int(re.search(rf"^Cap{kind}:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.M)[1], 16)
            for kind in ("Inh", "Prm", "Eff", "Amb")}


def assert_is(pid, uid, gid, groups):
    """Real, effective, saved and of the file system."""
    assert numbers_of(pid, "Uid") == [uid] * 4
    assert numbers_of(pid, "Gid") == [gid] * 4
    assert sorted(numbers_of(pid, "Groups")) == sorted(groups)
    assert numbers_of(pid, "NoNewPrivs") == [1]
    if uid != 0:
        assert set(capabilities_of(pid).values()) == {0}


def assert_nobody(pids):
    for pid in pids:
        assert_is(pid, NOBODY.pw_uid, NOBODY.pw_gid, os.getgrouplist("nobody", NOBODY.pw_gid))
