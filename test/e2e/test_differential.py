"""What we forward has one meaning: nginx, Node's http, h11, gunicorn and waitress see the messages that we meant.

Every case of hostile.py goes through the balancer; the bytes that reach its backend are then fed to each server as they
are, with a request behind them that would be swallowed or doubled if a server read the message as longer or shorter.
What a server refuses outright is no harm, but it is listed here, so that the comparison cannot become empty unnoticed.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import TIMEOUT, Backend, Balancer, Client, Malformed, Truncated, eventually, free_port, is_refused
from hostile import CASES
from test_rules_requests import heard
from wire import messages

SERVERS = Path(__file__).parent / "servers"
PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"
PYTHON = sys.executable

NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    log_format seen escape=json '["$request_method", "$request_uri", "$request_body"]';
    access_log off; keepalive_requests 100000; keepalive_timeout 60s;
    client_max_body_size 16m; client_body_buffer_size 16m; large_client_header_buffers 8 64k;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{ listen unix:{folder}/inner; return 200 ok; }}
    server {{
        listen 127.0.0.1:{port}; access_log {folder}/notes seen if=$is_whole;
        location / {{ proxy_pass http://unix:{folder}/inner; }}
    }}
    map $status $is_whole {{ ~^2 1; default 0; }}
}}
"""


class Server:
    """One of them, as a process. `refuses` says why a message may be refused by it, or is None; `fails` why it is not
    fed at all."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.notes = folder / "notes"
        self.notes.touch()
        self.read = 0

    def __enter__(self):
        environment = {**os.environ, "NOTES": str(self.notes), "PYTHONPATH": str(SERVERS),
                       "PYTHONDONTWRITEBYTECODE": "1"}
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment,
                                            cwd=self.folder)
        try:
            eventually(self.listens, f"{self.name} listens")
        except BaseException:
            self.__exit__()
            raise
        return self

    def listens(self):
        assert self.process.poll() is None, (self.folder / "log").read_text()
        return not is_refused(self.port)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(TIMEOUT)

    def seen(self):
        """The messages since the last time, as (method, target, body)."""
        text = self.notes.read_bytes()[self.read:].decode("latin-1")
        self.read += len(text)
        return [self.message(*json.loads(line)) for line in text.split("\n")[:-1]]

    def message(self, method, target, body):
        return method, target, bytes.fromhex(body)

    def refuses(self, message):
        return None

    def fails(self, message):
        return None

    def means(self, message):
        """What this server makes of a message that it understands as we do."""
        return message.method, message.target, message.body


class Nginx(Server):
    name = "nginx"

    @staticmethod
    def missing():
        return None if shutil.which("nginx", path=PATH) else "nginx is not installed (Debian: nginx-light)"

    def command(self):
        (self.folder / "conf").write_text(NGINX.format(folder=self.folder, port=self.port))
        return [shutil.which("nginx", path=PATH), "-p", self.folder, "-c", self.folder / "conf", "-e",
                self.folder / "error.log"]

    def message(self, method, target, body):
        return method, target, body.encode("latin-1")

    def refuses(self, message):
        if not re.fullmatch(r"[A-Z_-]+", message.method):
            return "a method with other letters than A-Z"
        if "%00" in message.target or re.search(r"%(?![0-9A-Fa-f]{2})",
                                                message.target) or message.target.startswith("/../"):
            return "a path that it cannot decode"
        if message.target == "*":
            return "the target *"
        if message.values("Host") == [""]:
            return "an empty Host"
        return "tabs around Host" if re.search(rb"\nHost:[^\r]*\t", message.raw, re.I) else None


class Node(Server):
    name = "node"

    @staticmethod
    def missing():
        return None if shutil.which("node") else "node is not installed (Debian: nodejs)"

    def command(self):
        return [shutil.which("node"), SERVERS / "node.js", str(self.port), self.notes]

    def refuses(self, message):
        known = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "PURGE", "M-SEARCH"}
        return None if message.method in known else "a method that it does not know"

    def fails(self, message):
        return "a method that it reads but cannot name (20.19)" if message.method == "QUERY" else None


class H11(Server):
    name = "h11"

    @staticmethod
    def missing():
        found = subprocess.run([PYTHON, "-c", "import h11"], capture_output=True)
        return None if found.returncode == 0 else "h11 is not installed (Debian: python3-h11)"

    def command(self):
        return [PYTHON, SERVERS / "h11_server.py", str(self.port), self.notes]


class Wsgi(Server):
    @classmethod
    def missing(cls):
        found = subprocess.run([PYTHON, "-c", f"import {cls.name}"], capture_output=True)
        return None if found.returncode == 0 else f"{cls.name} is not installed (Debian: {cls.package})"


class Gunicorn(Wsgi):
    name, package = "gunicorn", "gunicorn"

    def command(self):
        return [PYTHON, "-c", "from gunicorn.app.wsgiapp import run; run()", "--bind", f"127.0.0.1:{self.port}",
                "--worker-class", "gthread", "--threads", "4", "--keep-alive", "60", "--limit-request-line", "0",
                "--limit-request-field_size", "0", "--limit-request-fields", "1000", "--worker-tmp-dir", "/dev/shm",
                "wsgi:application"]

    def refuses(self, message):
        return None if re.fullmatch(r"[^a-z#]{3,20}", message.method) else "an unusual method (23.0)"

    def means(self, message):
        return message.method.upper(), message.target, message.body  # 20.1 takes all methods for upper case


class Waitress(Wsgi):
    name, package = "waitress", "python3-waitress"

    def command(self):
        return [PYTHON, "-m", "waitress", f"--listen=127.0.0.1:{self.port}", "--max-request-header-size=65536",
                "wsgi:application"]

    def refuses(self, message):
        return "a method in small letters" if message.method != message.method.upper() else None

    def fails(self, message):
        no_body = message.framing == "none"
        return "it waits for the body that is not to come" if no_body and message.values("Expect") else None


ALL = [Nginx, Node, H11, Gunicorn, Waitress]


@pytest.fixture(scope="module")
def forwarded(tmp_path_factory):
    """What reached the backend for each case: (case, the messages that were whole, the bytes of one that was not)."""
    found = []
    with Backend(heard) as there:
        pools = {"web": {"backends": [there], "health": "off"}}
        with Balancer(tmp_path_factory.mktemp("balancer"), pools) as lb:
            for number, case in enumerate(CASES, 1):
                case = case.named(number)
                with Client(lb.port) as client:
                    try:
                        client.send(case.data)
                        client.half_close()
                    except ConnectionError:
                        pass
                    try:
                        client.rest()
                    except ConnectionError:
                        pass
                there.drop_connections()
                eventually(lambda: not any(connection.is_open for connection in there.connections), "they are closed")
                for connection in there.connections:
                    if connection.received:
                        found.append((case, *messages(connection.received)))
                there.connections.clear()
    return found


@pytest.fixture(scope="module", params=ALL, ids=lambda kind: kind.name)
def server(request, tmp_path_factory):
    reason = request.param.missing()
    if reason:
        pytest.skip(reason)
    with request.param(tmp_path_factory.mktemp(request.param.name)) as process:
        yield process


AFTER = b"GET /after HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def feed(server, message):
    """Gives a server a message and, when it has answered, a request behind it; true when it has refused the message."""
    with Client(server.port) as client:
        try:
            client.send(message.raw)
            status = client.response(message.method).status
            if status >= 400:
                client.half_close()
                client.rest()
                return True
            client.send(AFTER)
            client.rest()
        except (ConnectionError, Truncated, Malformed):
            return True
    return False


def test_there_is_something_to_compare(forwarded):
    """A table that no longer reaches the backend would compare nothing with nothing."""
    whole = [message for _, found, _ in forwarded for message in found]
    assert len(whole) > 150
    assert {message.framing for message in whole} == {"none", "length", "chunked"}
    assert sum(rest != b"" for _, _, rest in forwarded) > 10


def test_messages_mean_what_we_meant(forwarded, server):
    """One by one, on a connection each. A refusal must be one that we know of."""
    wrong = []
    server.seen()
    for case, found, _ in forwarded:
        for message in found:
            if server.fails(message):
                continue
            refused = feed(server, message)
            seen = server.seen()
            meant = [server.means(message)]
            if not refused and seen != meant + [("GET", "/after", b"")]:
                wrong.append(f"{case.name}: {message.raw[:300]!r} was seen as {seen}")
            elif refused and (seen not in ([], meant) or not server.refuses(message)):
                wrong.append(f"{case.name}: {message.raw[:300]!r} was refused; seen: {seen}")
    assert wrong == []


def test_a_row_of_messages_means_what_we_meant(forwarded, server):
    """All on one connection, as on a kept one: an error would show in all that follows."""
    row = [message for _, found, _ in forwarded for message in found
           if not server.refuses(message) and not server.fails(message)]
    server.seen()
    with Client(server.port) as client:
        for message in row:
            client.send(message.raw)
            assert client.response(message.method).status < 400, message.raw
        client.half_close()
        assert client.rest() == b""  # so it has noted the last one too
    assert server.seen() == [server.means(message) for message in row]


def test_a_part_of_a_message_is_not_taken_for_a_whole(forwarded, server):
    """What is left of a request that was refused after its head had gone; then the connection ends, as ours does."""
    wrong = []
    server.seen()
    for case, _, rest in forwarded:
        if rest:
            with Client(server.port) as client:
                try:
                    client.send(rest)
                    client.half_close()
                    client.rest()
                except ConnectionError:
                    pass
            seen = server.seen()
            if seen:
                wrong.append(f"{case.name}: {rest[:300]!r} was seen as {seen}")
    assert wrong == []
