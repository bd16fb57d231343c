"""nginx, Debian's package, as a backend: it must work as well as vbdemo does (issue 2, "done when")."""
import gzip
import shutil
import subprocess

import pytest
from harness import TIMEOUT, Client, Load, eventually, free_port, get, is_refused, post

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin")
PAGE = b"<p>The quick brown fox jumps over the lazy dog.</p>\n" * 200

CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    access_log {folder}/access.log; keepalive_requests {requests};
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    gzip on; gzip_proxied any; gzip_types text/plain; default_type text/plain;
    server {{ listen 127.0.0.1:{port}; root {folder}/www; }}
}}
"""


@pytest.fixture
def nginx(tmp_path):
    """nginx(requests_on_a_connection=1000) -> its address; it serves /page and /big"""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    processes = []

    def do(requests=1000):
        port, folder = free_port(), tmp_path / f"nginx-{len(processes)}"
        (folder / "www").mkdir(parents=True)
        (folder / "www/page").write_bytes(PAGE)
        (folder / "www/big").write_bytes(PAGE * 2000)
        (folder / "conf").write_text(CONFIG.format(folder=folder, port=port, requests=requests))
        processes.append(subprocess.Popen([NGINX, "-p", folder, "-c", folder / "conf", "-e", folder / "error.log"]))
        eventually(lambda: not is_refused(port), "nginx listens")
        return f"127.0.0.1:{port}"
    yield do
    for process in processes:
        process.terminate()
        process.wait(TIMEOUT)


def test_a_thousand_requests(balancer, nginx, workers):
    lb = balancer([nginx(), nginx()], workers=workers)
    with Load(lb.port, clients=8, target="/page") as load:
        load.wait(1000)
    assert load.failures() == []
    lb.wait_idle()
    rows = lb.vbctl("backends")["backends"]
    assert abs(rows[0]["requests"] - rows[1]["requests"]) <= 1


def test_it_closes_kept_connections_now_and_then(balancer, nginx):
    """After keepalive_requests it says Connection: close."""
    lb = balancer(nginx(requests=7))
    with Client(lb.port) as client:
        assert [client.get("/page").status for _ in range(100)] == [200] * 100


def test_head(balancer, nginx):
    with Client(balancer(nginx()).port) as client:
        for _ in range(3):
            response = client.request("HEAD", "/page")
            assert response.status == 200 and response.field("Content-Length") == str(len(PAGE))
        assert client.get("/page").body == PAGE


def test_not_modified(balancer, nginx):
    with Client(balancer(nginx()).port) as client:
        etag = client.get("/page").field("ETag")
        for _ in range(3):
            response = client.get("/page", [("If-None-Match", etag)])
            assert response.status == 304 and response.body == b""
        assert client.get("/page", [("If-None-Match", '"another"')]).body == PAGE


def test_ranges(balancer, nginx):
    with Client(balancer(nginx()).port) as client:
        response = client.get("/page", [("Range", "bytes=3-11")])
        assert response.status == 206 and response.body == PAGE[3:12]
        assert response.field("Content-Range") == f"bytes 3-11/{len(PAGE)}"
        parts = client.get("/page", [("Range", "bytes=0-1,5-6")])
        assert parts.status == 206 and parts.field("Content-Type").startswith("multipart/byteranges")
        assert client.get("/page", [("Range", "bytes=999999-")]).status == 416


def test_gzip_comes_in_chunks(balancer, nginx):
    with Client(balancer(nginx()).port) as client:
        for target, body in (("/page", PAGE), ("/big", PAGE * 2000)):
            response = client.get(target, [("Accept-Encoding", "gzip")])
            assert response.field("Content-Encoding") == "gzip" and response.chunks
            assert gzip.decompress(response.body) == body


def test_post_to_a_static_page_is_405(balancer, nginx):
    lb = balancer(nginx())
    for body in (b"", b"x", b"x" * 500000):
        assert post(lb.port, "/page", body).status == 405
    assert lb.backend(lb.vbctl("backends")["backends"][0]["name"])["errors"] == 0


def test_not_found_and_bad_targets(balancer, nginx):
    lb = balancer(nginx())
    assert get(lb.port, "/none").status == 404
    assert get(lb.port, "/%00").status in (400, 404)
    assert get(lb.port, "/../../etc/passwd").status in (400, 404)


def test_a_large_file(balancer, nginx):
    with Client(balancer(nginx()).port) as client:
        for _ in range(3):
            assert client.get("/big").body == PAGE * 2000


def test_health_checks_of_nginx(balancer, nginx):
    address = nginx()
    lb = balancer(address, pool={"health": {"path": "/page", "interval": "100ms", "fast_interval": "50ms"}})
    assert lb.wait_health(address, "up")
    lb = balancer(address, pool={"health": {"path": "/none", "interval": "100ms", "fast_interval": "50ms"}})
    assert "404" in lb.wait_health(address, "down")["last_failure"]
