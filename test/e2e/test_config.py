"""The configuration as its writer meets it: --check, errors with their places, exit status 2 (design.md 4 and 5)."""
import re

import pytest
from harness import run

VALID = """\
listen: 127.0.0.1:8080
pools:
  web:
    backends: [127.0.0.1:9001, 127.0.0.1:9002]
"""


@pytest.fixture
def check(tmp_path):
    """check(text) -> the finished process, with .file and .errors: (line, column, message) of each line it printed"""
    def do(text, *args, env=None):
        file = tmp_path / "vb.yaml"
        file.write_text(text)
        result = run("vibebalancer", "-c", file, "--check", *args, env=env)
        result.file = file
        result.errors = []
        for line in result.stderr.splitlines():
            place = re.fullmatch(re.escape(str(file)) + r":(\d+):(\d+): (.+)", line)
            assert place, f"not FILE:LINE:COLUMN: message: {line}"
            result.errors.append((int(place[1]), int(place[2]), place[3]))
        return result
    return do


def test_check_says_that_a_good_file_is_valid(check):
    result = check(VALID)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{result.file}: configuration is valid\n", "")


def test_all_errors_of_a_file_come_in_one_go_with_their_places(check):
    result = check("""\
listn: 8080
listen: 127.0.0.1:99999
pools:
  web:
    balance: round_robbin
    backends:
      - 127.0.0.1
      - {address: 127.0.0.1:9001, weight: heavy}
    keepalive: {idle: -1}
timeouts:
  header: soon
shutdown: 30s
""")
    assert result.returncode == 2
    assert result.stdout == ""
    assert [line for line, _, _ in result.errors] == [1, 2, 5, 7, 8, 9, 11, 12]
    places = {line: column for line, column, _ in result.errors}
    assert places[1] == 1 and places[5] == 14 and places[8] == 43 and places[11] == 11


@pytest.mark.parametrize("text, suggestion", [
    (VALID.replace("listen", "listn"), "listen"),
    (VALID.replace("pools", "pool"), "pools"),
    (VALID.replace("backends", "backend"), "backends"),
    (VALID + "    ballance: least_conn\n", "balance"),
    (VALID + "    health: {intervall: 1s}\n", "interval"),
    (VALID + "timeouts: {haeder: 1s}\n", "header"),
])
def test_an_unknown_key_gets_the_nearest_known_one(check, text, suggestion):
    result = check(text)
    assert result.returncode == 2
    assert any(re.search(rf"\b{suggestion}\b", message) for _, _, message in result.errors), result.errors


NOT_YET = ["admin: {listen: 127.0.0.1:9900}", "routes: [{path: /, pool: web, cache: true}]",
           "routes: [{path: /, pool: web, rate_limit: {rate: 100/s}}]", "rate_limit: {rate: 100/s}",
           "cache: {size: 64MiB}", "access_log: {path: stdout}", "segment: {recent: 4096}",
           "tls: {}", "http2: {}", "discovery: {}", "compression: {}", "auth: {}", "tracing: {}", "cluster: {}"]


@pytest.mark.parametrize("line", NOT_YET)
def test_what_is_not_built_yet_is_refused_not_ignored(check, line):
    result = check(f"{VALID}{line}\n")
    assert result.returncode == 2
    assert len(result.errors) == 1 and "not supported yet" in result.errors[0][2], result.errors


BROKEN = {
    "no pools": ("listen: 8080\n", None),
    "no backends": (VALID.replace("[127.0.0.1:9001, 127.0.0.1:9002]", "[]"), 4),
    "empty file": ("", None),
    "not YAML": (VALID + "  }\n", 5),
    "a tab for indentation": (VALID + "\tname: x\n", 5),
    "a key twice": (VALID + "listen: 8081\n", 5),
    "a list in place of a mapping": (VALID + "timeouts: [1s]\n", 5),
    "a name twice": (VALID.replace("[127.0.0.1:9001, 127.0.0.1:9002]", "[{address: 127.0.0.1:1, name: a}, "
                                   "{address: 127.0.0.1:2, name: a}]"), 4),
    "a backend twice": (VALID.replace("9002", "9001"), 4),
    "a listener twice": (VALID.replace("127.0.0.1:8080", "[127.0.0.1:8080, 127.0.0.1:8080]"), 1),
    "port 0": (VALID.replace("9002", "0"), 4),
    "weight 0": (VALID.replace("127.0.0.1:9002", "{address: 127.0.0.1:9002, weight: 0}"), 4),
    "a number without unit": (VALID + "timeouts: {header: 10}\n", 5),
    "workers out of range": (VALID + "workers: 100000\n", 5),
    "an expected status that is none": (VALID + "    health: {expect: 200-999}\n", 5),
    "https, which is not spoken": (VALID.replace("127.0.0.1:9002", "https://127.0.0.1:9002"), 4),
    "a route to no pool": (VALID + "routes:\n  - {path: /, pool: wep}\n", 6),
    "no routes": (VALID + "routes: []\n", 5),
    "a method in lower case": (VALID + "routes:\n  - {method: get, pool: web}\n", 6),
    "a port in a route's host": (VALID + "routes:\n  - {host: 'a:80', pool: web}\n", 6),
    "bits behind a network": (VALID + "trusted_proxies: [10.0.0.1/8]\n", 5),
    "an upgrade to h2c": (VALID + "    upgrade: h2c\n", 5),
    "a unix socket that is a listener twice": (VALID.replace("127.0.0.1:8080", "['unix:/a', 'unix:/a']"), 1),
    "a unix socket without a path": (VALID.replace("127.0.0.1:9002", "'unix:web.sock'"), 4),
    "a share without its sign": (VALID + "    panic: 50\n", 5),
    "an ejection longer than the longest": (VALID + "    outlier: {eject: 10m}\n", 5),
    "more attempts than a request can have": (VALID + "    retry: {attempts: 11}\n", 5),
    "nothing to retry on": (VALID + "    retry: {on: []}\n", 5),
    "a status that is never retried": (VALID + "    retry: {on: [connect, 500]}\n", 5),
    "a limit of requests that is none": (VALID + "    circuit_breaker: {max_requests: -1}\n", 5),
    "a control socket without a path": (VALID + "admin: {socket: vb.sock}\n", 5),
    "a port for health of a unix socket": (VALID.replace("127.0.0.1:9002", "'unix:/a'") +
                                           "    health: {port: 81}\n", 4),
}


def test_a_file_with_many_keys_is_valid(check):
    result = check("""\
listen:
  - {address: 127.0.0.1:8080, proxy_protocol: [10.0.0.0/8, "::1"]}
  - unix:/run/vibebalancer.sock
routes:
  - {host: "*.example.com", path: /v1/, method: [GET], header: {X-Beta: "1"}, pool: api, strip_prefix: true}
  - {pool: web}
pools:
  web:
    backends: [127.0.0.1:9001, 127.0.0.1:9002]
    upgrade: [websocket]
    outlier: {consecutive: 5, eject: 10s, eject_max: 300s, max_ejected: 50%}
    panic: 50%
    circuit_breaker: {max_requests: 1000, max_pending: 1024}
    retry: {attempts: 2, budget: 20%, on: [connect, reset, timeout, 503], buffer: 64KiB, total: 60s}
  api: {backends: ["unix:/run/api.sock"], upgrade: off, outlier: off, panic: off, circuit_breaker: off, retry: off}
timeouts: {tunnel: 1h}
limits: {body: 1GiB, connections: 1000, connections_per_ip: 10}
trusted_proxies: [10.0.0.0/8, unix]
headers: {forwarded: both}
admin: {socket: /run/vibebalancer-control.sock}
""")
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("text, line", BROKEN.values(), ids=BROKEN)
def test_a_mistake_is_refused_where_it_is(check, text, line):
    result = check(text)
    assert result.returncode == 2
    assert result.errors, "nothing was said"
    assert line is None or line in [at for at, _, _ in result.errors], result.errors


def test_the_environment_fills_in(check):
    text = VALID.replace("127.0.0.1:9001", '"${VB_TEST_HOST}:${VB_TEST_PORT:-9001}"')
    assert check(text, env={"VB_TEST_HOST": "127.0.0.1"}).returncode == 0
    assert check(text, env={"VB_TEST_HOST": "127.0.0.1", "VB_TEST_PORT": "none"}).returncode == 2
    assert check(text).returncode == 2, "a variable that is not set is an error"


def test_a_host_that_does_not_resolve_is_no_error(check):
    assert check(VALID.replace("127.0.0.1:9001", "no-such-host.invalid:9001")).returncode == 0


def test_a_missing_file_is_named(tmp_path):
    result = run("vibebalancer", "-c", tmp_path / "none.yaml")
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1 and str(tmp_path / "none.yaml") in result.stderr


def test_the_file_is_found_in_the_current_folder(tmp_path):
    (tmp_path / "vibebalancer.yaml").write_text(VALID)
    result = run("vibebalancer", "--check", cwd=tmp_path)
    assert result.returncode == 0 and "vibebalancer.yaml: configuration is valid" in result.stdout


@pytest.mark.parametrize("args", [["--no-such-option"], ["--workers", "0"], ["--workers", "many"], ["--workers"],
                                  ["--log-level", "loud"], ["--name", "a/b"], ["stray"]], ids=" ".join)
def test_a_wrong_command_line_is_refused(tmp_path, args):
    (tmp_path / "vibebalancer.yaml").write_text(VALID)
    result = run("vibebalancer", "--check", *args, cwd=tmp_path)
    assert result.returncode == 2 and result.stdout == "" and result.stderr != ""


@pytest.mark.parametrize("program", ["vibebalancer", "vbctl", "vbdemo"])
def test_help_is_there(program):
    result = run(program, "--help")
    assert result.returncode == 0 and program in result.stdout and result.stderr == ""
