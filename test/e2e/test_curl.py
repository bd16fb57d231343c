"""curl, as a person would try it (issue 2, "done when")."""
import shutil
import subprocess
import time

import pytest
from harness import TIMEOUT, reply

CURL = shutil.which("curl")
pytestmark = pytest.mark.skipif(CURL is None, reason="curl is not installed")


def curl(lb, path, *args, data=None):
    result = subprocess.run([CURL, "-sS", "--max-time", str(TIMEOUT), "--noproxy", "*", *args,
                             f"http://127.0.0.1:{lb.port}{path}"], input=data, capture_output=True, timeout=TIMEOUT + 5)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_curl_reaches_the_three_backends_in_turn(balancer, demos, workers):
    lb = balancer(demos(3), workers=workers)
    served = [curl(lb, "/").decode().strip() for _ in range(9)]
    assert served == served[:3] * 3
    assert set(served) == {"hello from a", "hello from b", "hello from c"}


@pytest.mark.parametrize("args", [["-H", "Expect:"], ["--http1.0"], ["-H", "Expect: 100-continue"],
                                  ["-H", "Expect:", "-H", "Transfer-Encoding: chunked"]], ids=" ".join)
def test_curl_uploads(balancer, backend, args):
    def answer(connection, request):
        if request.field("Expect"):
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(request)
        connection.send(reply(request.body))
    data = b"0123456789" * 200000
    lb, began = balancer(backend(answer, early=True)), time.monotonic()
    assert curl(lb, "/", "--data-binary", "@-", "--expect100-timeout", "15", *args, data=data) == data
    assert time.monotonic() - began < 14, "curl waited in vain for the 100 (Continue) that the backend had sent"


def test_curl_head_and_status(balancer, demos):
    lb = balancer(demos(1))
    assert curl(lb, "/", "-I").startswith(b"HTTP/1.1 200 ")
    assert curl(lb, "/status?code=418", "-o", "/dev/null", "-w", "%{http_code}") == b"418"
