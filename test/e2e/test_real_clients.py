"""What people really put in front of a balancer and behind it: curl, Python, Node.js, nginx."""
import http.client
import json
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from harness import TIMEOUT, Client, at_once, echo, eventually, free_port, get, is_refused, reply
from upgrade import all_over, ask, round_trip, switch_and_echo

CURL, NODE = shutil.which("curl"), shutil.which("node")
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
curl_only = pytest.mark.skipif(CURL is None, reason="curl is not installed")
node_only = pytest.mark.skipif(NODE is None, reason="node is not installed")
nginx_only = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def program():
    """program(*command) -> a process that has said that it is ready, and ends with the test"""
    processes = []

    def do(*command, ready=None):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        if ready:
            assert process.stdout.readline().strip() == ready
        return process
    yield do
    for process in processes:
        process.terminate()
        process.wait(TIMEOUT)
        process.stdout.close()


# ---- curl (see test_curl.py too) -------------------------------------------------------------------------------------


def curl(lb, *args, paths=("/",), data=None):
    result = subprocess.run([CURL, "-sS", "--max-time", str(TIMEOUT), "--noproxy", "*", *args,
                             *(f"http://127.0.0.1:{lb.port}{path}" for path in paths)],
                            input=data, capture_output=True, timeout=TIMEOUT + 5)
    assert result.returncode == 0, result.stderr
    return result.stdout


def echo_or_continue(connection, request):
    if request.field("Expect"):
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    connection.read_body(request)
    connection.send(reply(b"" if request.method == "HEAD" else request.body or request.target,
                          headers=[("X-Method", request.method), ("X-Length", len(request.body))]))


@curl_only
def test_curl_keeps_its_connection(balancer, backend, workers):
    lb = balancer(backend(), workers=workers)
    out = curl(lb, "-w", "%{num_connects} ", paths=["/"] * 20)
    assert out == b"ok1 " + b"ok0 " * 19


@curl_only
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
def test_curl_gets_and_heads_a_megabyte(balancer, backend, version, workers):
    data = random.Random(1).randbytes(1_000_000)
    lb = balancer(backend(lambda c, r: c.send(reply(data)[:None if r.method == "GET" else -len(data)])),
                  workers=workers)
    assert curl(lb, version) == data
    assert b"Content-Length: 1000000" in curl(lb, version, "-I")
    assert curl(lb, version, "-r", "0-9", "-o", "/dev/null", "-w", "%{http_code} %{size_download}") == b"200 1000000"


@curl_only
def test_curl_gets_a_chunked_megabyte(balancer, backend, workers):
    data = random.Random(2).randbytes(1_000_000)
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in
                      (data[i:i + 7919] for i in range(0, len(data), 7919)))
    lb = balancer(backend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"),
                  workers=workers)
    assert curl(lb) == data and curl(lb, "--http1.0") == data


@curl_only
@pytest.mark.parametrize("args", [["-T", "-"], ["-T", "-", "-H", "Expect: 100-continue"], ["-T", "-", "-H", "Expect:"],
                                  ["-X", "PATCH", "--data-binary", "@-"], ["-X", "PUT", "--data-binary", "@-", "-0"]],
                         ids=" ".join)
def test_curl_sends_a_megabyte(balancer, backend, args, workers):
    data = random.Random(3).randbytes(1_000_000)
    lb = balancer(backend(echo_or_continue, early=True), workers=workers)
    assert curl(lb, *args, "--expect100-timeout", "15", paths=["/up"], data=data) == data


@curl_only
def test_curl_posts_a_form_and_follows(balancer, backend, tmp_path):
    def answer(connection, request):
        if request.target == "/old":
            connection.send(reply("", "307 Temporary Redirect", [("Location", "/new")]))
        else:
            connection.send(reply(f"{request.method} {request.target} {len(request.body)} {request.field('Cookie')}",
                                  headers=[("Set-Cookie", "a=b")]))
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    lb = balancer(backend(answer))
    out = curl(lb, "-L", "-F", f"f=@{tmp_path}/file", "-c", tmp_path / "jar", paths=["/old"]).split()
    assert out[:2] == [b"POST", b"/new"] and int(out[2]) > 100_000
    assert curl(lb, "-b", tmp_path / "jar") == b"GET / 0 a=b"


@curl_only
def test_curl_in_parallel(balancer, demos, workers):
    lb = balancer(demos(3), workers=workers)
    out = curl(lb, "-Z", "--parallel-max", "20", "-w", "%{http_code}\n", "-o", "/dev/null", paths=["/?[1-200]"])
    assert out.split().count(b"200") == 200
    lb.wait_idle()


# ---- Python's http.client --------------------------------------------------------------------------------------------


def test_http_client_keeps_its_connection(balancer, backend, workers):
    data = random.Random(4).randbytes(1_000_000)
    lb = balancer(backend(echo_or_continue, early=True), workers=workers)
    client = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=TIMEOUT)
    client.connect()
    used = client.sock
    for i in range(100):
        client.request("GET", f"/{i}")
        assert client.getresponse().read() == b"/%d" % i
    for body in (data, iter([data[:1], data[1:70000], data[70000:]])):
        client.request("POST", "/", body=body, encode_chunked=body is not data,
                       headers={"Transfer-Encoding": "chunked"} if body is not data else {})
        assert client.getresponse().read() == data
    client.request("HEAD", "/")
    response = client.getresponse()
    assert response.status == 200 and response.read() == b"" and response.getheader("X-Method") == "HEAD"
    client.request("DELETE", "/x")
    response = client.getresponse()
    assert response.getheader("X-Method") == "DELETE" and response.read() == b"/x"
    assert client.sock is used, "one connection was enough"
    client.close()


def test_http_client_on_many_threads(balancer, demos, workers):
    lb = balancer(demos(3), workers=workers)

    def one(_):
        client = http.client.HTTPConnection("127.0.0.1", lb.port, timeout=TIMEOUT)
        statuses = []
        for _ in range(50):
            client.request("GET", "/")
            response = client.getresponse()
            statuses.append(response.status if response.read().startswith(b"hello from ") else None)
        client.close()
        return statuses
    assert at_once(8, one) == [[200] * 50] * 8
    lb.wait_idle()


# ---- Node.js ---------------------------------------------------------------------------------------------------------

NODE_CLIENT = r"""
const http = require('http'), zlib = require('zlib');
const port = Number(process.argv[2]), agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
const big = Buffer.alloc(1000000, 'abcdefg');
let sockets = new Set();
function ask(options, body) {
    return new Promise((resolve, reject) => {
        const request = http.request({ host: '127.0.0.1', port, agent, ...options }, response => {
            const parts = [];
            response.on('data', part => parts.push(part));
            response.on('end', () => resolve({ status: response.statusCode, headers: response.headers,
                                               trailers: response.trailers, body: Buffer.concat(parts) }));
            response.on('error', reject);
        });
        let continued = false;
        request.on('socket', socket => sockets.add(socket));
        request.on('error', reject);
        if (options.headers && options.headers.Expect) {
            request.on('continue', () => { continued = true; request.end(body); });
            request.flushHeaders();
        } else if (Array.isArray(body)) {
            for (const part of body) request.write(part);
            request.end();
        } else {
            request.end(body);
        }
    });
}
(async () => {
    const out = {};
    const gets = await Promise.all([...Array(200).keys()].map(i => ask({ path: '/' + i })));
    out.gets = gets.filter((response, i) => response.status === 200 && response.body.toString() === '/' + i).length;
    out.sockets = sockets.size;
    out.post = (await ask({ method: 'POST', path: '/' }, big)).body.equals(big);
    out.chunked = (await ask({ method: 'PUT', path: '/' }, [big, Buffer.from('x'), big])).body.length;
    out.expect = (await ask({ method: 'POST', path: '/',
                              headers: { Expect: '100-continue',
                                         'Content-Length': big.length } }, big)).body.equals(big);
    const head = await ask({ method: 'HEAD', path: '/head' });
    out.head = [head.status, head.body.length];
    out.all_sockets = sockets.size;
    agent.destroy();
    console.log(JSON.stringify(out));
})().catch(error => { console.error(error); process.exit(1); });
"""

NODE_SERVER = r"""
const http = require('http');
const server = http.createServer((request, response) => {
    if (request.url === '/stream') {
        response.writeHead(200, { 'Content-Type': 'text/plain', Trailer: 'X-Sum' });
        for (let i = 0; i < 10; i++) response.write('x'.repeat(i * 1000));
        response.addTrailers({ 'X-Sum': '45000' });
        return response.end();
    }
    if (request.url === '/hints') response.writeEarlyHints({ link: '</a>; rel=preload' });
    if (request.url === '/close') response.setHeader('Connection', 'close');
    if (request.url === '/empty') return response.writeHead(204).end();
    if (request.url === '/destroy') return request.socket.destroy();
    if (request.url === '/headers') return response.end(JSON.stringify(request.headers));
    response.setHeader('X-Url', request.url);
    request.pipe(response);
});
server.on('checkContinue', (request, response) => {
    if (request.url === '/no') return response.writeHead(417, { 'Content-Length': 0 }).end();
    response.writeContinue();
    request.pipe(response);
});
server.on('upgrade', (request, socket) => {
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    socket.pipe(socket);
});
server.keepAliveTimeout = Number(process.argv[3] || 5000);
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('ready'));
"""


@node_only
def test_node_as_a_client(balancer, backend, tmp_path, workers):
    (tmp_path / "client.js").write_text(NODE_CLIENT)
    lb = balancer(backend(echo_or_continue, early=True), workers=workers)
    result = subprocess.run([NODE, tmp_path / "client.js", str(lb.port)], capture_output=True, text=True,
                            timeout=2 * TIMEOUT)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"gets": 200, "sockets": 4, "post": True, "chunked": 2_000_001, "expect": True,
                                         "head": [200, 0], "all_sockets": 4}
    all_over(lb)


@pytest.fixture
def node(program, tmp_path):
    """node(keep_alive_ms) -> the address of a server"""
    def do(keep_alive_ms=5000):
        port, file = free_port(), tmp_path / "server.js"
        file.write_text(NODE_SERVER)
        program(NODE, file, str(port), str(keep_alive_ms), ready="ready")
        return f"127.0.0.1:{port}"
    return do


@node_only
def test_node_as_a_server(balancer, node, workers):
    lb = balancer([node(), node()], workers=workers)
    data = random.Random(5).randbytes(1_000_000)
    with Client(lb.port) as client:
        for i in range(20):
            assert client.get(f"/{i}").field("X-Url") == f"/{i}"
        stream = client.get("/stream")
        assert len(stream.body) == 45000 and stream.chunks
        client.start("POST", "/echo", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert client.head().status == 100
        client.send(b"hello")
        assert client.response().body == b"hello"
        client.start("GET", "/hints")
        assert client.head().status == 103
        assert client.response().status == 200
        assert client.request("HEAD", "/head").field("X-Url") == "/head"
        for target, status in (("/empty", 204), ("/close", 200), ("/close", 200), ("/after", 200)):
            response = client.get(target)
            assert response.status == status and not response.closes
        seen = client.get("/headers", [("X-A", "1"), ("Cookie", "a"), ("Cookie", "b")])
        assert json.loads(seen.text)["cookie"] == "a; b"
    with Client(lb.port) as client:  # its answer begins while the request is still on its way
        assert client.request("POST", "/echo", body=data).body == data
    with Client(lb.port) as client:
        client.start("POST", "/echo", [("Transfer-Encoding", "chunked")])
        client.send(b"f4240\r\n" + data + b"\r\n0\r\n\r\n")
        assert client.response().body == data
    with Client(lb.port) as client:
        client.start("POST", "/no", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert client.response().status == 417
    assert get(lb.port, "/destroy").status == 502
    lb.wait_idle()


@node_only
def test_node_closes_idle_connections_while_they_are_used(balancer, node, workers):
    """Its keepAliveTimeout of 5 s is a well-known cause of 502s behind balancers; here 20 ms, so that it often hits."""
    lb = balancer(node(keep_alive_ms=20), workers=workers)

    def one(_):
        with Client(lb.port) as client:
            statuses = []
            for i in range(60):
                statuses.append(client.get(f"/{i}").status)
                client.socket.settimeout(0.018 + i % 5 * 0.002)  # about as long as it waits
                with pytest.raises(TimeoutError):
                    client.socket.recv(1)
                client.socket.settimeout(TIMEOUT)
            return statuses
    assert at_once(8, one) == [[200] * 60] * 8
    lb.wait_idle()


@node_only
def test_node_upgrades(balancer, node, workers):
    lb = balancer(node(), workers=workers)
    with ask(lb.port) as client:
        assert round_trip(client, os.urandom(200_000))
        client.half_close()
        assert client.rest() == b""
    all_over(lb)


# ---- nginx in front, and behind unix sockets (see test_nginx.py too) -------------------------------------------------

NGINX_CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 0; default_type text/plain; keepalive_timeout 60s;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream lb {{ server {to}; keepalive 8; }}
    server {{
        listen {listen}; root {folder}/www;
        location / {{
            proxy_pass http://lb; proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https;
        }}
        location /old/ {{ proxy_pass http://lb; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; }}
        location /file {{ }}
    }}
}}
"""


@pytest.fixture
def nginx(program, tmp_path):
    """nginx(to, listen=None) -> its port (or path); it passes all to `to`, except /file which it serves"""
    def do(to, listen=None):
        folder = tmp_path / f"nginx{len(list(tmp_path.glob('nginx*')))}"
        port = listen or free_port()
        (folder / "www").mkdir(parents=True)
        (folder / "www/file").write_bytes(b"nginx" * 100_000)
        (folder / "conf").write_text(NGINX_CONFIG.format(folder=folder, to=to, listen=f"unix:{port}" if listen else
                                                         f"127.0.0.1:{port}"))
        process = program(NGINX, "-p", folder, "-c", folder / "conf", "-e", folder / "error.log")
        eventually(lambda: process.poll() is not None or (Path(port).exists() if listen else not is_refused(port)),
                   "nginx listens")
        assert process.poll() is None, (folder / "error.log").read_text()
        return port
    return do


@nginx_only
@pytest.mark.parametrize("unix", [False, True], ids=["TCP", "unix"])
def test_behind_nginx(balancer, backend, nginx, tmp_path, workers, unix):
    there = backend(echo)
    port = free_port()
    listen = f"unix:{tmp_path}/vb.sock" if unix else f"127.0.0.1:{port}"
    lb = balancer(there, workers=workers, config={"listen": listen, "trusted_proxies": ["127.0.0.1", "unix"]})
    front = nginx(listen)
    data = random.Random(6).randbytes(1_000_000)
    with Client(front, source="127.0.0.9") as client:
        assert [client.get(f"/{i}").status for i in range(50)] == [200] * 50
        assert client.request("POST", "/", body=data).body == data
        client.start("POST", "/", [("Transfer-Encoding", "chunked")])
        client.send(b"f4240\r\n" + data + b"\r\n0\r\n\r\n")
        assert client.response().body == data
        assert client.get("/old/").status == 200, "nginx speaks HTTP/1.0 there"
    peer = [] if unix else ["127.0.0.1"]
    assert [item.strip() for item in there.requests[0].field("X-Forwarded-For").split(",")] == ["127.0.0.9", *peer]
    assert there.requests[0].field("X-Forwarded-Proto") == "https"
    assert there.requests[-1].field("Via").startswith("1.0 ")
    lb.wait_idle()
    assert lb.total("connections_total") < 30, "nginx keeps its connections to us"


@nginx_only
def test_a_tunnel_behind_nginx(balancer, backend, nginx, workers):
    lb = balancer(backend(switch_and_echo), workers=workers)
    with ask(nginx(f"127.0.0.1:{lb.port}")) as client:
        assert round_trip(client, os.urandom(200_000))
        assert lb.total("tunnels") == 1
    all_over_but_kept(lb)


def all_over_but_kept(lb):
    lb.wait_idle()
    eventually(lambda: lb.total("tunnels") == 0, "no tunnel is left")


@nginx_only
def test_nginx_on_both_sides(balancer, backend, nginx, tmp_path, workers):
    """nginx, the balancer, nginx behind a unix socket, a backend: requests and a tunnel through all of them."""
    there = backend(switch_and_echo)
    inner = nginx(there.address, listen=tmp_path / "n.sock")
    lb = balancer({"address": f"unix:{inner}", "name": "inner"}, workers=workers)
    outer = nginx(f"127.0.0.1:{lb.port}")
    with Client(outer) as client:
        assert [client.get().text for _ in range(10)] == ["no"] * 10
        client.start("GET", "/file/", [])
        assert client.response().status == 404
    with Client(lb.port) as client:
        assert zlib.crc32(client.get("/file").body) == zlib.crc32(b"nginx" * 100_000)
    with ask(outer) as client:
        assert round_trip(client, os.urandom(200_000))
    all_over_but_kept(lb)
