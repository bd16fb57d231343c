"""Starting, and not starting: who is master, whose port it is (design.md 2, "Listening")."""
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from harness import BUILD, eventually, free_port, get, reply, run, to_yaml, unique_name


def start_in_vain(folder, listen, name, *, wrapper=()):
    """Starts an instance that cannot run; the one sentence that it says."""
    file = Path(folder) / "second.yaml"
    file.write_text(to_yaml({"listen": listen, "pools": {"web": {"backends": ["127.0.0.1:9"], "health": "off"}}}))
    result = run("vibebalancer", "-c", file, "--name", name, "--workers", 2, wrapper=wrapper)
    assert result.returncode == 1, result
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert not Path(f"/dev/shm/vibebalancer-{name}").exists() or name.startswith("test-first")
    return lines[0]


def test_it_serves_with_any_number_of_workers(balancer, backend, workers):
    lb = balancer(backend(reply("hello")), workers=workers)
    assert {get(lb.port).body for _ in range(20)} == {b"hello"}
    rows = lb.worker_rows()
    assert [row["index"] for row in rows] == list(range(workers))
    assert len({row["pid"] for row in rows}) == workers


def test_workers_auto_is_what_this_machine_may_use(balancer, backend):
    lb = balancer(backend(), workers=len(os.sched_getaffinity(0)), args=["--workers", "auto"])
    assert get(lb.port).status == 200


def test_check_binds_nothing_and_disturbs_nobody(balancer, backend):
    lb = balancer(backend(), workers=2)
    for _ in range(5):
        assert run("vibebalancer", "-c", lb.file, "--name", lb.name, "--check").returncode == 0
        assert get(lb.port).status == 200
    assert len(lb.worker_pids()) == 2


def test_a_second_instance_of_the_same_name_is_refused(balancer, backend, tmp_path):
    lb = balancer(backend(), workers=2, name=unique_name().replace("test", "test-first"))
    pids = lb.worker_pids()
    said = start_in_vain(tmp_path, f"127.0.0.1:{free_port()}", lb.name)
    assert lb.name in said and "running" in said
    assert get(lb.port).status == 200
    assert lb.worker_pids() == pids
    assert lb.vbctl("status")["pid"] == lb.pid


@pytest.mark.parametrize("first, second", [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"),
                                           ("127.0.0.1", "0.0.0.0")])
def test_a_second_instance_on_the_same_port_is_refused(balancer, backend, tmp_path, first, second):
    port = free_port()
    balancer(backend(reply("first")), workers=4, port=port, config={"listen": f"{first}:{port}"})
    said = start_in_vain(tmp_path, f"{second}:{port}", unique_name())
    assert f"{second}:{port}" in said
    assert {get(port).body for _ in range(50)} == {b"first"}, "connections went to the instance that should not be"


def test_a_port_of_another_program_is_refused(backend, tmp_path):
    other = backend()
    assert other.address in start_in_vain(tmp_path, other.address, unique_name())


def test_an_address_of_another_machine_is_refused(tmp_path):
    listen = f"192.0.2.1:{free_port()}"  # TEST-NET-1, RFC 5737
    assert listen in start_in_vain(tmp_path, listen, unique_name())


def test_a_privileged_port_is_refused_to_an_ordinary_user():
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 1023:
        pytest.skip("every port is unprivileged here")
    wrapper = []
    if os.getuid() == 0:
        wrapper = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all",
                   "--inh-caps=-all"]
        if run("vibebalancer", "--version", wrapper=wrapper).returncode != 0:
            pytest.skip(f"user 65534 may not run {BUILD}/vibebalancer")
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o755)
    try:
        assert "127.0.0.1:1023" in start_in_vain(folder, "127.0.0.1:1023", unique_name(), wrapper=wrapper)
    finally:
        shutil.rmtree(folder)


def test_it_listens_on_several_addresses(balancer, backend):
    ports = [free_port(), free_port()]
    lb = balancer(backend(), workers=2, port=ports[0], config={"listen": [f"127.0.0.1:{port}" for port in ports]})
    assert [get(port).status for port in ports * 4] == [200] * 8
    lb.wait_idle()
    assert lb.vbctl("status")["requests"] == 8


def test_a_port_alone_means_all_ipv4_addresses(balancer, backend):
    port = free_port()
    balancer(backend(), port=port, config={"listen": port})
    assert get(port, host="127.0.0.2").status == 200


def test_ipv6_on_both_sides(balancer, backend):
    if not Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    port, v6 = free_port(), backend(host="::1")
    balancer(v6, port=port, config={"listen": f"[::1]:{port}"})
    assert get(port, host="::1").status == 200
    assert v6.requests[0].field("X-Forwarded-For") == "::1"


def test_the_same_name_can_start_again_after_a_stop(balancer, backend):
    lb = balancer(backend())
    lb.stop()
    again = balancer(backend(), name=lb.name, port=lb.port)
    assert get(again.port).status == 200


def test_a_backend_that_is_a_host_name_is_resolved(balancer, backend):
    try:
        assert socket.gethostbyname("localhost") == "127.0.0.1"
    except OSError:
        pytest.skip("this machine does not know localhost")
    there = backend()
    lb = balancer([f"localhost:{there.port}"])
    eventually(lambda: get(lb.port).status == 200, "the name is resolved and served")
