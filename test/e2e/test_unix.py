"""Unix sockets on both sides: one file that all workers accept from, and backends behind files (README, "listen")."""
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from pathlib import Path

import pytest
from harness import (TIMEOUT, Client, Truncated, at_once, echo, eventually, free_port, get, is_running, post, reply,
                     run, to_yaml, unique_name)
from upgrade import all_over, ask, round_trip, switch_and_echo, switch_if_asked


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def path():
    """A path for a socket that fits into one, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory(prefix="vb-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder) / "vb.sock"


@pytest.fixture
def listens(balancer, path):
    """listens(backends, ...) -> a balancer that listens on `path`"""
    def do(backends, listen=None, config=None, **options):
        return balancer(backends, config={"listen": listen or f"unix:{path}", **(config or {})}, **options)
    return do


# ---- listening -------------------------------------------------------------------------------------------------------


def test_it_serves_on_a_unix_socket(listens, backend, path, workers):
    there = backend(echo)
    lb = listens(there, workers=workers)
    with Client(path) as client:
        assert [client.get().status for _ in range(10)] == [200] * 10
        body = os.urandom(3_000_000)
        assert client.request("POST", "/", body=body).body == body
    assert [get(path).status for _ in range(20)] == [200] * 20
    assert lb.vbctl("status")["requests"] == 31


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reaches_it(listens, backend, path, workers):
    listens(backend(lambda c, r: c.send(reply(r.body or r.target))), workers=workers)

    def curl(*args):
        result = subprocess.run(["curl", "-sS", "--unix-socket", path, *args], capture_output=True, text=True,
                                timeout=TIMEOUT)
        assert result.returncode == 0, result.stderr
        return result.stdout
    assert curl("http://localhost/a", "http://localhost/b") == "/a/b"
    assert curl("-d", "hello", "http://any.example/") == "hello"
    assert curl("-H", "Transfer-Encoding: chunked", "-d", "x" * 100000, "http://localhost/") == "x" * 100000
    assert curl("-I", "http://localhost/").startswith("HTTP/1.1 200 ")


def test_everybody_may_connect(listens, backend, path):
    """Its folder decides who gets there."""
    before = os.umask(0o077)
    try:
        listens(backend(), workers=2)
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(path.stat().st_mode) and path.stat().st_mode & 0o777 == 0o666
    if os.getuid() == 0:
        connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        subprocess.run(["/usr/bin/python3", "-c", connect, path], user=65534, group=65534, extra_groups=[],
                       check=True, timeout=TIMEOUT)


def test_it_is_removed_at_the_end(listens, backend, path, workers):
    lb = listens(backend(), workers=workers)
    assert path.exists()
    lb.stop()
    assert not path.exists() and list(path.parent.iterdir()) == []


def test_what_a_killed_master_has_left_is_replaced(listens, backend, path, workers):
    lb = listens(backend(reply("first")), workers=workers, config={"shutdown": {"grace": "1s"}})
    pids = lb.worker_pids()
    lb.unclean = True
    os.kill(lb.pid, signal.SIGKILL)
    lb.process.wait()
    eventually(lambda: not any(is_running(pid) for pid in pids), "its workers have noticed")
    assert path.exists()
    listens(backend(reply("second")), workers=workers)
    assert {get(path).text for _ in range(10)} == {"second"}


@pytest.mark.parametrize("hangs", [False, True])
def test_a_master_started_again_at_once_gets_its_socket(listens, backend, path, stopped, workers, hangs):
    """Also from workers of a killed one that do not let go of it."""
    lb = listens(backend(reply("first")), workers=workers)
    pids = lb.worker_pids()
    if hangs:
        stopped(*pids)
    lb.unclean = True
    os.kill(lb.pid, signal.SIGKILL)
    lb.process.wait()
    again = listens(backend(reply("second")), workers=workers, name=lb.name)
    again.wait_log(r"worker \d+ \(pid \d+\) serves", workers)  # until then one that hangs has the socket, and clients
    assert {get(path).text for _ in range(10)} == {"second"}
    eventually(lambda: not any(is_running(pid) for pid in pids), "the workers of the first are gone")
    again.stop()
    assert not path.exists()


def start_in_vain(folder, listen):
    """Starts an instance that cannot run; the one sentence that it says."""
    file = folder / f"{unique_name()}.yaml"
    file.write_text(to_yaml({"listen": listen, "pools": {"web": {"backends": ["127.0.0.1:9"], "health": "off"}}}))
    result = run("vibebalancer", "-c", file, "--name", file.stem, "--workers", 2)
    assert result.returncode == 1, result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def test_a_second_instance_on_the_same_path_is_refused(listens, backend, path, workers, tmp_path):
    lb = listens(backend(reply("first")), workers=workers)
    for spelling in (path, path.parent / "." / ".." / path.parent.name / path.name):
        assert str(path.name) in start_in_vain(tmp_path, f"unix:{spelling}")
        assert {get(path).text for _ in range(10)} == {"first"}
    lb.stop()
    assert not path.exists()


def test_a_socket_of_another_program_is_refused(backend, path, tmp_path):
    there = backend(path=path)
    assert str(path) in start_in_vain(tmp_path, f"unix:{path}")
    with Client(path) as client:
        assert client.get().status == 200
    assert len(there.requests) == 1


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_left_alone(path, tmp_path, kind):
    (tmp_path / "other").write_text("precious")
    {"file": lambda: path.write_text("precious"), "folder": path.mkdir,
     "link": lambda: path.symlink_to(tmp_path / "other")}[kind]()
    assert str(path) in start_in_vain(tmp_path, f"unix:{path}")
    assert path.exists() and (kind == "folder" or path.read_text() == "precious")
    assert path.is_symlink() == (kind == "link")


def test_a_folder_that_is_not_there(path, tmp_path):
    assert f"{path.parent}/no" in start_in_vain(tmp_path, f"unix:{path.parent}/no/vb.sock")


@pytest.mark.parametrize("text, good", [("/x" * 53 + "y", True), ("/x" * 54, False), ("/" + "x" * 300, False),
                                        ("", False), ("relative", False)],
                         ids=["107 bytes", "108 bytes", "long", "empty", "relative"])
@pytest.mark.parametrize("where", ["listen", "backend"])
def test_paths_are_checked(tmp_path, text, good, where):
    file = tmp_path / "vb.yaml"
    unix = f'"unix:{text}"'
    listen, there = (unix, "127.0.0.1:9") if where == "listen" else ("127.0.0.1:8080", unix)
    file.write_text(f"listen: {listen}\npools:\n  web:\n    backends: [{{ address: {there}, name: b }}]\n")
    result = run("vibebalancer", "-c", file, "--check")
    if good:
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith(f"{file}:{1 if where == 'listen' else 4}:")


def test_beside_a_port(listens, backend, path, workers):
    port = free_port()
    lb = listens(backend(), [f"unix:{path}", f"127.0.0.1:{port}"], port=port, workers=workers)
    assert [get(way).status for way in (path, port) * 10] == [200] * 20
    assert lb.vbctl("status")["requests"] == 20


def test_all_workers_share_it(listens, backend, path):
    lb = listens(backend(), workers=4)

    def some():
        at_once(16, lambda _: get(path))
        return all(row["requests"] > 0 for row in lb.worker_rows())
    eventually(some, "each worker has got something")


@pytest.mark.parametrize("workers", [1, 4])
def test_nothing_that_waits_is_lost_by_a_crash(listens, backend, path, workers):
    """Connections that come while nobody accepts are there for those who come next."""
    lb = listens(backend(), workers=workers)
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    clients = [Client(path) for _ in range(30)]
    for client in clients:
        client.start("GET", "/")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert [client.response().status for client in clients] == [200] * 30
    lb.wait_workers(without=pids)
    lb.wait_idle()


def test_one_worker_that_hangs_does_not_keep_the_others_from_it(listens, backend, path):
    lb = listens(backend(), workers=4)
    pid = lb.worker_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert [get(path).status for _ in range(40)] == [200] * 40
    finally:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=[pid])
    assert [get(path).status for _ in range(40)] == [200] * 40


# ---- who the client is -----------------------------------------------------------------------------------------------


def test_such_a_client_has_no_address(listens, backend, path):
    there = backend()
    listens(there, config={"headers": {"forwarded": "both"}})
    assert get(path, "/", [("X-Forwarded-For", "203.0.113.7"), ("Forwarded", "for=203.0.113.7"),
                           ("X-Forwarded-Proto", "https")]).status == 200
    request = there.requests[0]
    assert request.field("X-Forwarded-For") is None, "it must not pass for what we say"
    assert request.field("X-Forwarded-Proto") == "http" and request.field("X-Forwarded-Host") == "test"
    assert request.field("Forwarded").lower().startswith("for=unknown;")


def test_who_comes_through_it_can_be_trusted(listens, backend, path):
    there = backend()
    listens(there, config={"trusted_proxies": ["unix"]})
    assert get(path, "/", [("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "203.0.113.8"),
                           ("X-Forwarded-Proto", "https")]).status == 200
    request = there.requests[0]
    assert [item.strip() for value in request.fields("X-Forwarded-For") for item in value.split(",")] == \
        ["203.0.113.7", "203.0.113.8"]
    assert request.field("X-Forwarded-Proto") == "https"


def test_messages_about_such_a_client(listens, backend, path):
    lb = listens(backend(b"nonsense\r\n\r\n"), config={"trusted_proxies": ["unix"]})
    assert get(path, "/one").status == 502
    assert "unix: 502" in lb.wait_log("/one")[0]
    assert get(path, "/two", [("X-Forwarded-For", "203.0.113.7")]).status == 502
    assert "203.0.113.7: 502" in lb.wait_log("/two")[0]


def test_limits_of_connections(listens, backend, path, workers):
    """There is no address to count by; in all they count as any."""
    lb = listens(backend(), workers=workers, config={"limits": {"connections": 5, "connections_per_ip": 1}})
    clients = [Client(path) for _ in range(5)]
    assert [client.get().status for client in clients] == [200] * 5
    assert get(path).status == 503
    for client in clients:
        client.close()
    eventually(lambda: lb.total("connections") == 0, "all are gone")
    assert get(path).status == 200


def test_the_proxy_protocol_comes_through_it(listens, backend, path):
    there = backend()
    listens(there, [{"address": f"unix:{path}", "proxy_protocol": ["unix"]}])
    with Client(path) as client:
        client.send(b"PROXY TCP4 203.0.113.7 10.0.0.2 5000 80\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response().status == 200
    with Client(path) as client:
        client.send(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.response().status == 200
    assert [request.field("X-Forwarded-For") for request in there.requests] == ["203.0.113.7", None]
    with Client(path) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.is_closed()


# ---- backends --------------------------------------------------------------------------------------------------------


def test_a_backend_behind_a_unix_socket(balancer, backend, path, workers):
    there = backend(echo, path=path)
    lb = balancer(there, workers=workers)
    with Client(lb.port) as client:
        assert [client.get().status for _ in range(20)] == [200] * 20
        body = os.urandom(3_000_000)
        assert client.request("POST", "/", body=body).body == body
    assert len(there.connections) == 1, "its connection is kept"
    row = lb.backend(there)
    assert row["address"] == f"unix:{path}" and row["requests"] == 21 and row["errors"] == 0
    assert there.requests[0].field("Host") == f"test:{lb.port}"


def test_a_request_without_host(balancer, backend, path):
    """An HTTP/1.1 request needs one, and a path is none."""
    there = backend(path=path)
    with Client(balancer(there).port) as client:
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        assert client.response().status == 200
    assert there.requests[0].field("Host") == "localhost"


def test_unix_sockets_on_both_sides(listens, backend, path, workers):
    there = [backend(lambda c, r, n=n: c.send(reply(str(n))), path=path.with_name(f"b{n}")) for n in range(3)]
    lb = listens(there, workers=workers)
    said = [get(path).text for _ in range(30)]
    assert [said.count(name) for name in "012"] == [10] * 3
    lb.wait_idle()


def test_such_a_backend_beside_another(balancer, backend, path):
    there = [backend(reply("unix"), path=path), backend(reply("tcp"))]
    lb = balancer(there)
    assert sorted(get(lb.port).text for _ in range(10)) == ["tcp"] * 5 + ["unix"] * 5


def test_its_health_is_checked(balancer, backend, path):
    checks = []

    def answer(connection, request):
        if request.target == "/health":
            checks.append(request)
        connection.send(reply())
    there = backend(answer, path=path)
    lb = balancer(there, pool={"health": {"path": "/health", "interval": "100ms", "fast_interval": "50ms"}})
    lb.wait_health(there, "up")
    assert checks[0].field("Host") == "localhost"
    there.stop()
    row = lb.wait_health(there, "down")
    assert "refused" in row["last_failure"], row
    assert get(lb.port).status == 503
    path.unlink()
    there.start()
    lb.wait_health(there, "up")
    assert get(lb.port).status == 200


def test_its_health_is_checked_by_a_connection(balancer, backend, path):
    there = backend(path=path)
    lb = balancer(there, pool={"health": {"interval": "100ms", "fast_interval": "50ms"}})
    lb.wait_health(there, "up")
    there.stop()
    path.unlink()
    row = lb.wait_health(there, "down")
    assert "no such file" in row["last_failure"].lower(), row
    there.start()
    lb.wait_health(there, "up")


def test_its_checks_can_have_another_host(balancer, backend, path):
    there = backend(path=path)
    lb = balancer(there, pool={"health": {"path": "/health", "host": "app.example", "interval": "100ms"}})
    lb.wait_health(there, "up")
    assert there.requests[0].field("Host") == "app.example"


def test_it_fails(balancer, backend, path, workers):
    there = backend([reply("one"), lambda c, r: c.close(), lambda c, r: (c.send(reply(b"x" * 1000)[:-10]), c.close())],
                    path=path)
    lb = balancer(there, workers=workers)
    assert get(lb.port).text == "one"
    assert post(lb.port, "/", b"never sent twice").status == 502
    with pytest.raises((Truncated, ConnectionError)):
        get(lb.port)
    there.stop()
    response = get(lb.port)
    assert response.status == 502 and str(path) not in response.text, "where it is, is nobody's business"
    path.unlink()
    assert get(lb.port).status == 502
    assert f"unix:{path}" in lb.wait_log(": 502 ", count=3)[-1]
    lb.wait_idle()
    there.answer = reply("back")
    there.start()
    assert get(lb.port).text == "back"
    assert lb.backend(there)["errors"] >= 4


def test_a_backend_that_does_not_accept(balancer, path):
    """A full queue: connect(2) says EAGAIN there, where TCP would wait."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        for _ in range(10):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(path)) != 0:
                break
        lb = balancer(f"unix:{path}", pool={"timeouts": {"connect": "500ms"}})
        assert get(lb.port).status in (502, 504)
        for client in waiting:
            client.close()
    lb.wait_idle()


def test_a_kept_connection_that_it_has_closed_is_no_error(balancer, backend, path):
    def answer(connection, request):
        connection.send(reply())
        connection.close()
    there = backend(answer, path=path)
    lb = balancer(there)
    with Client(lb.port) as client:
        assert [client.get().status for _ in range(20)] == [200] * 20
    assert lb.backend(there)["errors"] == 0


# ---- tunnels, truncation ---------------------------------------------------------------------------------------------


def test_a_tunnel_through_unix_sockets(listens, backend, path, workers):
    there = backend(switch_and_echo, path=path.with_name("b"))
    lb = listens(there, workers=workers)
    with ask(path) as client:
        assert round_trip(client, os.urandom(100_000))
        client.half_close()
        assert client.rest() == b""
    all_over(lb)


def test_half_closing_a_tunnel_through_unix_sockets(listens, backend, path):
    there = backend(switch_if_asked, path=path.with_name("b"))
    lb = listens(there)
    with ask(path) as client:
        client.send(b"all I have")
        client.half_close()
        connection = there.connections[0]
        connection.socket.settimeout(TIMEOUT)
        assert connection.rest() == b"all I have"
        connection.send(b"still here")
        assert client.exactly(10) == b"still here"
        there.released.set()
        assert client.rest() == b""
    all_over(lb)


def test_a_client_that_goes_away_ends_the_request(listens, backend, path):
    """What it leaves unread is what tells a reset from a half-close there."""
    there = backend(lambda c, r: (c.send(b"HTTP/1.1 103 Early Hints\r\n\r\n"), c.hang()), path=path.with_name("b"))
    lb = listens(there)
    with Client(path) as client:
        client.start("GET", "/")
        assert client.socket.recv(1) == b"H"
    eventually(lambda: not there.connections[0].is_open, "the backend's connection is closed")
    all_over(lb)


def test_a_stop_finishes_requests(listens, backend, path):
    there = backend(lambda c, r: (c.backend.released.wait(10), c.send(reply("finished"))))
    lb = listens(there, workers=2)
    with Client(path) as client:
        client.start("GET", "/")
        there.wait_requests(1)
        lb.ask_to_stop()
        eventually(lambda: lb.vbctl("status")["state"] == "stopping", "it stops")
        there.released.set()
        response = client.response()
        assert response.text == "finished" and response.closes
    lb.stop()
    assert not path.exists()
