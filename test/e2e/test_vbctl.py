"""vbctl: what it shows of the segment, as tables for people and as one JSON document for programs (design.md 4). What
it changes is in test_control.py."""
import json
import os
import random
import re
import signal
import subprocess
import time

import pytest
from harness import BUILD, Client, at_once, eventually, get, hang, reply, reset, run, unique_name

COMMANDS = ["status", "stats", "backends", "workers"]
CHANGES = [["drain", "web/b"], ["drain", "web/b", "--wait"], ["ready", "web/b"], ["maint", "web/b"],
           ["weight", "web/b", "2"], ["add", "web", "127.0.0.1:1"], ["remove", "web/b", "--wait"], ["reload"], ["stop"],
           ["stop", "--now"]]


def vbctl(lb, *args):
    return run("vbctl", "--name", lb.name, *args)


@pytest.mark.parametrize("command", COMMANDS)
def test_tables_for_people(balancer, backend, command):
    lb = balancer([backend(), backend()], workers=2)
    get(lb.port)
    result = vbctl(lb, command)
    assert result.returncode == 0 and result.stderr == ""
    assert len(result.stdout.splitlines()) >= 2
    assert not any(line != line.rstrip() for line in result.stdout.splitlines())


def test_the_table_of_backends_has_a_row_for_each(balancer, backend):
    all_of_them = [backend() for _ in range(3)]
    lb = balancer([{"address": b, "name": f"name{i}"} for i, b in enumerate(all_of_them)])
    lines = vbctl(lb, "backends").stdout.splitlines()
    for i, b in enumerate(all_of_them):
        row, = [line for line in lines if b.address in line]
        assert f"name{i}" in row and "web" in row


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_with_snake_case_keys(balancer, backend, command):
    lb = balancer(backend())
    document = lb.vbctl(command)

    def keys(value):
        if isinstance(value, dict):
            yield from value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from keys(item)
    assert isinstance(document, dict)
    assert [key for key in keys(document) if not re.fullmatch("[a-z][a-z0-9_]*", key)] == []


def test_the_published_keys_are_there(balancer, backend):
    lb = balancer(backend(), workers=2)
    status, rows, workers = lb.vbctl("status"), lb.vbctl("backends")["backends"], lb.worker_rows()
    assert {"name", "state", "pid", "workers", "connections", "in_flight", "requests", "errors"} <= status.keys()
    assert {key: status[key] for key in status if "reload" in key} == {
        "reloads": 0, "reloads_failed": 0, "last_reload_ok": None, "last_reload_age_s": None, "last_reload_error": None}
    assert status["generation"] == 1 and "reload" not in vbctl(lb, "status").stdout
    assert {"pool", "name", "address", "state", "health", "weight", "in_flight", "requests", "errors", "retries",
            "p50_ms", "p99_ms"} <= rows[0].keys()
    assert all({"index", "pid", "connections", "requests"} <= row.keys() for row in workers)
    assert [(row["generation"], row["state"]) for row in workers] == [(1, "ready")] * 2
    assert (rows[0]["max_connections"], rows[0]["backup"]) == (0, False)
    assert {"configured", "configured_weight", "last_checks", "ejected", "ejected_for_s", "ejections",
            "failures_in_a_row", "last_request_failure", "announced_idle_ms", "learned_idle_ms"} <= rows[0].keys()
    assert status["changes"] == [] and "changes" not in vbctl(lb, "status").stdout
    pool, = lb.vbctl("stats")["pools"]
    assert {"backends_ejected", "requests_now", "pending_now"} <= pool.keys()


def test_backends_of_one_pool(balancer, backend):
    lb = balancer(backend())
    assert len(lb.vbctl("backends", "web")["backends"]) == 1
    result = vbctl(lb, "backends", "nonsense")
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1 and "nonsense" in result.stderr


def test_the_last_checks_are_shown(balancer, backend):
    """Oldest first in the document, newest on the right in the table, where '.' is one that passed."""
    statuses = [200, 200, 500, 200, 500, 500]
    there = backend([reply(status=f"{code} X") for code in statuses] + [hang])
    lb = balancer(there, pool={"health": {"path": "/health", "interval": "50ms", "fast_interval": "50ms",
                                          "timeout": "60s", "rise": 1, "fall": 9}})
    there.wait_requests(7)
    row = lb.backend(there)
    assert row["last_checks"] == [code == 200 for code in statuses]
    assert (row["checks"], row["check_failures"]) == (6, 3)
    line, = [line for line in vbctl(lb, "backends").stdout.splitlines() if there.address in line]
    assert re.search(r" \.\.x\.xx  up$", line), line


def test_columns_that_say_nothing_are_hidden(balancer, backend):
    lb = balancer(backend())
    title = vbctl(lb, "backends").stdout.splitlines()[0]
    assert [word for word in ("ADDRESS", "RETRIES", "KEEP", "CHECKS") if word in title] == []


def test_backups_and_limits_are_shown(balancer, backend):
    one, other = backend(hang), backend()
    lb = balancer([{"address": one, "max_connections": 5}, {"address": other, "backup": True}])
    with Client(lb.port) as client:
        client.start("GET", "/")
        one.wait_requests(1)
        assert [(row["max_connections"], row["backup"]) for row in map(lb.backend, (one, other))] == [
            (5, False), (0, True)]
        lines = vbctl(lb, "backends").stdout.splitlines()
        row, = [line for line in lines if one.address in line]
        assert re.search(r" ready +1 +1/5 ", row), row
        row, = [line for line in lines if other.address in line]
        assert re.search(r" ready, backup +1 +0 ", row), row
        one.released.set()


REASONS = {"policy", "sticky", "retry", "panic", "backup", "only", "spill", "explore"}


def test_the_reasons_of_picks_are_counted(balancer, backend, workers):
    ok, bad = backend(), backend(reset)
    lb = balancer([ok, bad], workers=workers, pool={"outlier": "off", "retry": {"attempts": 1, "budget": "100%"}})
    for _ in range(20):
        assert get(lb.port).status == 200
    lb.wait_idle()
    stats = lb.vbctl("stats")
    rows = [lb.backend(ok), lb.backend(bad), stats, stats["pools"][0]]
    assert all(row["picks"].keys() == REASONS for row in rows)
    good, failing, total, pool = ({reason: n for reason, n in row["picks"].items() if n > 0} for row in rows)
    tried = lb.backend(bad)["requests"]
    assert failing == {"policy": tried}
    assert good == {"policy": 20 - tried, "retry": tried}
    assert total == pool == {"policy": 20, "retry": tried}


def test_an_ejected_backend_is_not_up(balancer, backend):
    ok, bad = backend(), backend(reset)
    lb = balancer([ok, bad], pool={"outlier": {"consecutive": 2, "eject": "60s", "max_ejected": "50%"},
                                   "retry": {"attempts": 1, "budget": "100%"}})
    eventually(lambda: get(lb.port).status == 200 and lb.backend(bad)["ejected"], "the bad one is ejected")
    row = lb.backend(bad)
    assert row["health"] == "unchecked" and 0 < row["ejected_for_s"] <= 60 and row["ejections"] == 1
    assert row["last_request_failure"] is not None
    line, = [line for line in vbctl(lb, "backends").stdout.splitlines() if bad.address in line]
    assert re.search(rf"ejected, (\d+s|1m 0s) left: {row['last_request_failure']}$", line), line
    counts = lb.vbctl("status")["backends"]
    assert (counts["total"], counts["up"], counts["ejected"], counts["down"]) == (2, 1, 1, 0)
    assert "2: 1 up, 0 down, 1 ejected" in vbctl(lb, "status").stdout
    assert lb.vbctl("stats")["pools"][0]["backends_ejected"] == 1
    good = lb.backend(ok)
    assert (good["ejected"], good["ejected_for_s"], good["ejections"], good["last_request_failure"]) == (
        False, None, 0, None)


def test_what_a_backend_says_of_its_idle_connections_is_shown(balancer, backend):
    there = backend(reply(headers=[("Keep-Alive", "timeout=5")]))
    lb = balancer(there)
    get(lb.port)
    assert lb.backend(there)["announced_idle_ms"] == 5000
    line, = [line for line in vbctl(lb, "backends").stdout.splitlines() if there.address in line]
    assert "  5s said  " in line, line


def test_figures_agree_with_what_was_sent(balancer, backend, workers):
    ok, bad = backend(), backend(reset)
    lb = balancer([ok, bad], workers=workers, pool={"outlier": "off", "retry": "off"})
    for _ in range(20):
        get(lb.port)
    lb.wait_idle()
    status, rows, stats = lb.vbctl("status"), lb.vbctl("backends")["backends"], lb.vbctl("stats")
    assert (status["requests"], status["errors"], status["in_flight"]) == (20, 10, 0)
    assert [row["requests"] for row in rows] == [10, 10]
    assert [row["errors"] for row in rows] == [0, 10]
    assert sum(row["requests"] for row in lb.worker_rows()) == 20
    assert stats["requests"] == 20 and stats["pools"][0]["requests"] == 20


def test_percentiles_are_near_the_truth(balancer, demos):
    demo, = demos(1)
    lb = balancer(demo)
    assert {response.status for response in at_once(10, lambda _: get(lb.port, "/work?ms=100"))} == {200}
    lb.wait_idle()
    row = lb.backend(demo)
    assert 95 <= row["p50_ms"] <= row["p99_ms"] < 1000
    for _ in range(30):
        get(lb.port, "/")
    lb.wait_idle()
    row = lb.backend(demo)
    assert row["p50_ms"] < 95 <= row["p99_ms"], "30 of 40 were quick"


def test_connections_are_counted(balancer, backend, workers):
    lb = balancer(backend(), workers=workers)
    clients = [Client(lb.port) for _ in range(12)]
    for client in clients:
        client.get()
    assert lb.vbctl("status")["connections"] == 12 == sum(row["connections"] for row in lb.worker_rows())
    for client in clients:
        client.close()
    eventually(lambda: lb.vbctl("status")["connections"] == 0, "all connections are gone")


def test_in_flight_is_seen_while_it_lasts(balancer, backend):
    there = backend(hang)
    lb = balancer(there, workers=2)
    with Client(lb.port) as one, Client(lb.port) as two:
        one.start("GET", "/")
        two.start("POST", "/", body=b"x")
        there.wait_requests(2)
        assert lb.backend(there)["in_flight"] == lb.vbctl("status")["in_flight"] == 2
        there.released.set()
    lb.wait_idle()


def test_it_reads_while_workers_are_frozen(balancer, backend):
    """Also while it hangs: the segment is read without anybody's help."""
    lb = balancer(backend(), workers=2)
    get(lb.port)
    stopped = [lb.pid, *lb.worker_pids()]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert lb.vbctl("status")["requests"] == 1
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def one_sentence(result):
    assert result.returncode == 1 and result.stdout == "", result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_one_sentence_when_nothing_runs(command):
    name = unique_name()
    assert name in one_sentence(run("vbctl", "--name", name, command))
    assert name in one_sentence(run("vbctl", "--name", name, command, "--json"))
    assert "/nowhere/x" in one_sentence(run("vbctl", "--segment", "/nowhere/x", command))


@pytest.mark.parametrize("words", CHANGES, ids=" ".join)
def test_one_sentence_when_there_is_nothing_to_change(words):
    name = unique_name()
    assert name in one_sentence(run("vbctl", "--name", name, *words))
    assert name in one_sentence(run("vbctl", "--name", name, *words, "--json"))


def test_one_sentence_after_a_stop(balancer, backend):
    lb = balancer(backend())
    lb.stop()
    one_sentence(vbctl(lb, "status"))


def test_another_segment_path(balancer, backend, tmp_path):
    path = tmp_path / "segment"
    name = unique_name()
    lb = balancer(backend(), name=name)
    lb.stop()
    process = subprocess.Popen([BUILD / "vibebalancer", "-c", lb.file, "--name", name, "--segment", path,
                                "--workers", "1"], stderr=subprocess.PIPE)
    try:
        eventually(lambda: run("vbctl", "--segment", path, "status", "--json").returncode == 0, "the segment is there")
        assert json.loads(run("vbctl", "--segment", path, "status", "--json").stdout)["name"] == name
    finally:
        process.terminate()
        assert process.wait(10) == 0, process.stderr.read()
    assert not path.exists()


def test_a_garbage_segment_is_survived(balancer, backend, tmp_path):
    """Nothing in a segment is trusted: damaged ones are refused or read, never crashed on, never waited for."""
    lb = balancer([backend() for _ in range(3)], workers=2, config={"segment": {"backends": 8}})
    get(lb.port)
    good = lb.segment.read_bytes()
    rng = random.Random(1)
    flipped = bytearray(good)
    for _ in range(200):
        flipped[rng.randrange(128, 1 << 14)] ^= 1 << rng.randrange(8)  # rows in use are there; then come holes
    head = bytearray(good)
    for i in range(8, 256):
        head[i] = 0xff
    rows = good[:256] + rng.randbytes(len(good) - 256)
    for text in (b"", b"x", bytes(4096), bytes(len(good)), rng.randbytes(100000), good[:100], good[:4096], good[:-1],
                 bytes(flipped), bytes(head), rows, good + b"more"):
        file = tmp_path / "garbage"
        file.write_bytes(text)
        for command in COMMANDS:
            for json_too in ([], ["--json"]):
                began = time.monotonic()
                result = run("vbctl", "--segment", file, command, *json_too)
                assert result.returncode in (0, 1), (result.returncode, result.stderr)
                assert len(result.stderr.splitlines()) == (result.returncode == 1), result.stderr
                assert time.monotonic() - began < 5
                assert result.stdout.isascii() or result.stdout.encode(errors="surrogateescape").decode()
                if result.returncode == 0 and json_too:
                    json.loads(result.stdout)
        for words in CHANGES:  # nobody runs there
            result = run("vbctl", "--segment", file, *words)
            assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, (words, result)
    for kind in (tmp_path, "/dev/null"):
        one_sentence(run("vbctl", "--segment", kind, "status"))


def test_a_wrong_command_line_is_refused():
    for args in ([], ["nonsense"], ["status", "extra"], ["--nonsense", "status"], ["drain"], ["drain", "web/b", "x"],
                 ["weight", "web/b"], ["weight", "web/b", "1", "2"], ["add", "web"], ["add", "web", "h:1", "1", "2"],
                 ["remove"], ["status", "--wait"], ["ready", "web/b", "--wait"], ["drain", "web/b", "--wait=1"],
                 ["reload", "x"], ["reload", "--wait"], ["reload", "--now"], ["stop", "x"], ["stop", "now"],
                 ["stop", "--wait"], ["status", "--now"], ["simulate"], ["status", "--svg", "x"],
                 ["--name", "x", "simulate", "vibebalancer.yaml"]):
        result = run("vbctl", *args)
        assert result.returncode == 2 and result.stdout == "" and result.stderr != "", args


def test_help_lists_all_commands_with_their_arguments():
    text = run("vbctl", "--help").stdout
    for words in ("status ", "backends [POOL] ", "drain POOL/BACKEND ", "ready POOL/BACKEND ", "maint POOL/BACKEND ",
                  "weight POOL/BACKEND N ", "add POOL ADDRESS [WEIGHT] ", "remove POOL/BACKEND ", "reload ", "stop [--now] ",
                  "simulate FILE ", "--wait ", "--now ", "--svg OUT "):
        assert f"\n  {words}" in text, words
    assert max(len(line) for line in text.splitlines()) <= 120
    assert "did you mean 'drain'" in run("vbctl", "drian", "web/b").stderr


def test_names_cannot_fake_terminal_output(balancer, backend):
    """A backend's reason phrase or a host name from the file must not reach the terminal as an escape sequence."""
    there = backend(b"\x1b[31mnot HTTP\r\n\r\n")
    lb = balancer(there)
    assert get(lb.port).status == 502
    assert "\x1b" not in vbctl(lb, "backends").stdout and "\x1b" not in lb.log()


def test_reply_statuses_are_counted(balancer, backend):
    lb = balancer(there := backend([reply(status=f"{code} X") for code in (200, 201, 301, 404, 500, 503)]))
    for _ in range(6):
        get(lb.port)
    lb.wait_idle()
    row = lb.backend(there)
    figures = [row.get(f"responses_{n}xx") for n in (2, 3, 4, 5)]
    assert figures in ([2, 1, 1, 2], [None] * 4)
    assert row["errors"] == 0, "a 5xx of the backend's own is a response, not a failure to get one"
