"""What a reload takes from the new file, what it leaves as it is, and files that change nothing because they are wrong.
"""
import os
import re
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import contextmanager

import pytest
from harness import (Client, Load, Turns, at_once, deaf_address, eventually, free_port, get, hang, post, reply, reset,
                     run, web)

SOON = {"path": "/health", "interval": "100ms", "fast_interval": "50ms", "timeout": "1s", "rise": 1, "fall": 1}
ONCE = {**SOON, "interval": "1h", "fast_interval": "1h"}  # nothing is looked at again by itself


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


def named(*backends, **more):
    return [{"address": b, "name": f"b{i + 1}", **more} for i, b in enumerate(backends)]


def checks_of(backend):
    return [request for request in backend.requests if request.target.startswith("/health")]


def requests_of(backend):
    return [request for request in backend.requests if not request.target.startswith("/health")]


def served_by(lb, n=12, target="/"):
    return Counter(get(lb.port, target).text for _ in range(n))


def backend_names(lb):
    return [row["name"] for row in lb.vbctl("backends")["backends"]]


def do(lb, *args):
    result = run("vbctl", "--name", lb.name, *args)
    assert result.returncode == 0, result


class Healthy:
    """Answers checks by `well`, /slow when it is released, and all else with its name."""

    def __init__(self, name, well=True):
        self.name, self.well = name, well

    def __call__(self, connection, request):
        if request.target.startswith("/health"):
            connection.send(reply(status="200 OK" if self.well else "500 No"))
            return
        if request.target == "/slow":
            connection.backend.released.wait(60)
        connection.send(reply(self.name))


# ---- files that are wrong --------------------------------------------------------------------------------------------


@pytest.fixture
def untouched(balancer, backend):
    """with untouched() as lb: within, nothing may happen to what it does, whatever is asked of it. Then it takes a good
    file."""
    @contextmanager
    def check():
        there = backend(reply("old"))
        lb = balancer(there, workers=2)
        good, pids = lb.settings, lb.worker_pids()
        with Client(lb.port) as kept:
            assert kept.get().text == "old"
            yield lb
            assert kept.get().text == "old", "its connection is not even closed"
        assert lb.worker_pids() == pids and lb.generation == 1
        assert served_by(lb) == {"old": 12} and backend_names(lb) == [there.address]
        lb.reload(**{**dict.fromkeys(lb.settings), **good, "pools": web(backend(reply("new")))})
        assert lb.generation == 2 and served_by(lb) == {"new": 12}
        status = lb.vbctl("status")
        assert status["last_reload_ok"] is True and status["last_reload_error"] is None
    return check


def assert_told(lb, said, *parts):
    """In the answer of vbctl, in `vbctl status`, and in the log."""
    status, as_text = lb.vbctl("status"), run("vbctl", "--name", lb.name, "status").stdout
    assert status["last_reload_ok"] is False and status["last_reload_age_s"] >= 0
    for part in parts:
        assert part in said and part in status["last_reload_error"] and part in as_text, (part, said, status, as_text)
        lb.wait_log(re.escape(part))


def place(lb, start, column=1):
    """FILE:LINE:COLUMN of the line that begins so."""
    lines = lb.file.read_text().splitlines()
    return f"{lb.file}:{next(n for n, line in enumerate(lines, 1) if line.startswith(start))}:{column}: "


def refused_as_it_is(lb):
    """The reason why the file is refused that the test has made itself."""
    result = run("vbctl", "--name", lb.name, "reload")
    assert result.returncode == 1 and result.stdout == "", result
    return result.stderr


def test_an_unknown_key(untouched):
    with untouched() as lb:
        said = lb.reload_in_vain(helth="x")
        assert_told(lb, said, place(lb, "helth:") + "unknown key `helth`")


def test_all_errors_are_told(untouched):
    with untouched() as lb:
        lb.file.write_text("listen: 99999\npools:\n  web:\n    balance: best\n    backends: [127.0.0.1]\n")
        said = refused_as_it_is(lb)
        assert_told(lb, said, f"{lb.file}:1:9: ")
        for line in (4, 5):
            assert re.search(rf"^{re.escape(str(lb.file))}:{line}:\d+: ", said, re.M), said
            lb.wait_log(re.escape(f"{lb.file}:{line}:"))


def test_more_errors_than_anybody_reads(untouched):
    with untouched() as lb:
        lb.file.write_text("".join(f"key{n}: x\n" for n in range(2000)))
        said = refused_as_it_is(lb)
        assert_told(lb, said, f"{lb.file}:1:1: unknown key `key0`")
        assert re.search(r"\d+ more", said)


def test_a_signal_for_a_bad_file(untouched):
    with untouched() as lb:
        lb.write_config(helth="x")
        lb.hup()
        said = eventually(lambda: lb.vbctl("status")["last_reload_error"], "it has failed")
        assert_told(lb, said, place(lb, "helth:"))


def test_a_file_that_is_gone(untouched):
    with untouched() as lb:
        lb.file.unlink()
        assert_told(lb, refused_as_it_is(lb), str(lb.file), "No such file")


def test_a_file_that_cannot_be_read(untouched):
    with untouched() as lb:
        lb.file.unlink()
        lb.file.mkdir()
        assert_told(lb, refused_as_it_is(lb), str(lb.file), "not a regular file")
        lb.file.rmdir()


def test_an_empty_file(untouched):
    with untouched() as lb:
        lb.file.write_text("")
        assert_told(lb, refused_as_it_is(lb), str(lb.file))


def test_a_port_of_another_program(untouched, backend):
    """... and the other new port, which could be had, is given back."""
    other, free = backend(), free_port()
    with untouched() as lb:
        said = lb.reload_in_vain(listen=[f"127.0.0.1:{lb.port}", f"127.0.0.1:{free}", other.address])
        assert_told(lb, said, other.address)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", free))
            probe.listen()
    assert get(other.port).status == 200


def test_a_user_that_does_not_exist(untouched):
    with untouched() as lb:
        said = lb.reload_in_vain(user="no-such-user-here")
        assert_told(lb, said, place(lb, "user:", len("user: ") + 1), "no-such-user-here")


def test_more_backends_than_the_segment_has_room_for(balancer, backend, workers):
    """Old and new are there together for a while. What was put in already is taken out again."""
    a, b, c, d = (backend(reply(name)) for name in "abcd")
    lb = balancer([a, b], workers=workers, config={"segment": {"backends": 3}})
    for _ in range(3):
        said = lb.reload_in_vain(pools={**web([c]), "api": {"backends": [d], "health": "off"}})
        assert_told(lb, said, "segment")
        assert lb.generation == 1 and served_by(lb) == {"a": 6, "b": 6}
        assert [(row["pool"], row["name"]) for row in lb.vbctl("backends")["backends"]] == [
            ("web", a.address), ("web", b.address)]
    lb.reload(pools=web([a, c]))
    assert served_by(lb) == {"a": 6, "c": 6}
    lb.wait_old_gone()
    lb.reload(pools=web([c, d]))
    assert served_by(lb) == {"c": 6, "d": 6}


def test_what_was_changed_at_run_time_outlives_a_bad_file(balancer, backend, workers):
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(named(a, b), workers=workers)
    do(lb, "drain", "web/b1")
    lb.reload_in_vain(pools=web(named(a, b)), nonsense=1)
    assert served_by(lb) == {"b": 12}
    assert [row["change"] for row in lb.vbctl("status")["changes"]] == ["drain"]


def test_what_fails_and_what_is_done_is_counted(balancer, backend):
    lb = balancer(backend())
    assert lb.vbctl("status")["last_reload_ok"] is None
    lb.reload()
    lb.reload_in_vain(nonsense=1)
    lb.reload_in_vain()
    lb.reload(nonsense=None)
    status = lb.vbctl("status")
    assert (status["reloads"], status["reloads_failed"], status["generation"]) == (2, 2, 3)


# ---- what goes on ----------------------------------------------------------------------------------------------------


def test_one_that_is_down_stays_down_without_another_look(balancer, backend, workers):
    a, sick = backend(Healthy("a")), backend(Healthy("sick", well=False))
    new = backend(Healthy("new"))
    lb = balancer([a, sick], workers=workers, pool={"health": ONCE})
    before = lb.wait_health(sick, "down")
    sick.answer.well = True
    lb.reload(pools=web([a, sick, new], health=ONCE))
    assert served_by(lb) == {"a": 6, "new": 6}
    now = lb.backend(sick)
    for key in ("health", "checks", "check_failures", "last_checks", "last_failure"):
        assert now[key] == before[key], key
    assert now["health_since_s"] > before["health_since_s"]
    assert len(checks_of(sick)) == len(checks_of(a)) == len(checks_of(new)) == 1
    assert len(requests_of(sick)) == 0


def test_checks_go_on_and_so_does_their_record(balancer, backend):
    lb = balancer(there := backend(Healthy("a")), pool={"health": SOON})
    eventually(lambda: lb.backend(there)["checks"] >= 5, "5 checks")
    for _ in range(5):
        before = lb.backend(there)
        lb.reload()
        now = lb.backend(there)
        assert now["checks"] >= before["checks"] and now["health"] == "up" and now["check_failures"] == 0
        eventually(lambda: lb.backend(there)["checks"] > now["checks"] + 2, "checks go on")
    assert lb.backend(there)["checks"] <= len(checks_of(there))


def test_one_that_is_ejected_stays_ejected(balancer, backend, workers):
    ok, bad = backend(reply("ok")), backend(reset)
    pool = {"outlier": {"consecutive": 2, "eject": "60s"}}
    lb = balancer(named(ok, bad), workers=workers, pool=pool)
    eventually(lambda: get(lb.port).status == 200 and lb.backend(bad)["ejected"], "the bad one is ejected")
    before, asked = lb.backend(bad), len(bad.requests)
    lb.reload(pools=web([*named(ok, bad), backend(reply("new"))], **pool))
    assert served_by(lb) == {"ok": 6, "new": 6} and len(bad.requests) == asked
    now = lb.backend(bad)
    for key in ("ejected", "ejections", "errors", "failures_in_a_row", "last_request_failure"):
        assert now[key] == before[key], key
    assert 0 < now["ejected_for_s"] <= before["ejected_for_s"]


def test_counters_and_percentiles_go_on(balancer, backend, workers):
    """Those of the old workers stay counted when these are gone."""
    a, b = backend(reply("a")), backend(reply("b", "404 Not Found"))
    lb = balancer([a, b], workers=workers)

    def figures():
        lb.wait_idle()
        eventually(lambda: lb.total("connections") == 0, "all clients are gone")
        status, rows, all_of_them = lb.vbctl("status"), lb.vbctl("backends")["backends"], lb.vbctl("stats")
        keys = ("requests", "errors", "responses_2xx", "responses_4xx", "bytes_in", "bytes_out", "p50_ms", "p99_ms")
        counts = [row[key] for row in rows for key in keys]
        return counts + [status["requests"], all_of_them["connections_total"], all_of_them["requests"]]
    for n in range(1, 4):
        for _ in range(10):
            get(lb.port)
        before = figures()
        assert lb.vbctl("status")["requests"] == 10 * n
        assert [row["requests"] for row in lb.vbctl("backends")["backends"]] == [5 * n] * 2
        lb.reload()
        lb.wait_old_gone()
        assert figures() == before
    assert lb.vbctl("status")["uptime_s"] > 0


def test_the_turns_of_round_robin_go_on(balancer, backend, workers):
    lb = balancer([backend(reply(name)) for name in "abc"], workers=workers)
    served = ""
    for _ in range(8):
        served += get(lb.port).text
        lb.reload()
    assert served == served[:3] * 2 + served[:2] and set(served) == set("abc")


def test_what_was_changed_at_run_time_is_set_back(balancer, backend, workers):
    a, b, c, d, e = (backend(reply(name)) for name in "abcde")
    lb = balancer(named(a, b, c, d), workers=workers)
    do(lb, "drain", "web/b1")
    do(lb, "weight", "web/b2", "7")
    do(lb, "remove", "web/b3")
    do(lb, "maint", "web/b4")
    do(lb, "add", "web", e.address)
    eventually(lambda: lb.backend(e)["health"] == "unchecked", "the new one")
    assert len(lb.vbctl("status")["changes"]) == 5
    lb.reload()
    assert lb.vbctl("status")["changes"] == []
    assert served_by(lb) == {"a": 3, "b": 3, "c": 3, "d": 3}
    assert backend_names(lb) == ["b1", "b2", "b3", "b4"]
    assert [(row["state"], row["weight"], row["configured"]) for row in lb.vbctl("backends")["backends"]] == [
        ("ready", 1, True)] * 4


def test_what_was_added_at_run_time_may_come_into_the_file(balancer, backend):
    """It is not new then: what it has done is not forgotten."""
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer([a])
    do(lb, "add", "web", b.address)
    eventually(lambda: lb.backend(b)["health"] == "unchecked", "it is taken as it is")
    assert served_by(lb) == {"a": 6, "b": 6}
    lb.reload(pools=web([a, {"address": b, "weight": 2}]))
    row = lb.backend(b)
    assert (row["requests"], row["weight"], row["configured"]) == (6, 2, True)
    assert lb.vbctl("status")["changes"] == [] and served_by(lb) == {"a": 4, "b": 8}


def test_what_was_drained_and_left_the_file_is_gone(balancer, backend):
    """The usual way to take one out: it drains, then it leaves the file."""
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(named(a, b))
    do(lb, "drain", "web/b2")
    lb.reload(pools=web(named(a)))
    assert backend_names(lb) == ["b1"] and lb.vbctl("status")["changes"] == []
    lb.reload(pools=web(named(a, b)))
    assert served_by(lb) == {"a": 6, "b": 6}


# ---- backends --------------------------------------------------------------------------------------------------------


def test_backends_come_go_and_change_their_weight(balancer, backend, workers):
    a, b, c, d = (backend(reply(name)) for name in "abcd")
    lb = balancer([a, b], workers=workers)
    for backends, split in (([a, b, c], {"a": 4, "b": 4, "c": 4}), ([c], {"c": 12}), ([d, b], {"d": 6, "b": 6}),
                            ([{"address": b, "weight": 5}, c], {"b": 10, "c": 2}), ([b, c], {"b": 6, "c": 6}),
                            ([a, b, c, d], {"a": 3, "b": 3, "c": 3, "d": 3})):
        lb.reload(pools=web(backends))
        assert served_by(lb) == split
        assert {row["address"] for row in lb.vbctl("backends")["backends"]} == {
            getattr(b, "address", None) or b["address"].address for b in backends}


def test_backups_and_limits_change(balancer, backend, workers):
    a, b = backend(Healthy("a")), backend(Healthy("b"))

    def file(**of_a):
        return web([{"address": a, "name": "a", **of_a}, {"address": b, "name": "b"}])
    lb = balancer([{"address": a, "name": "a", "backup": True}, {"address": b, "name": "b"}], workers=workers)
    assert served_by(lb) == {"b": 12}
    lb.reload(pools=file())
    assert served_by(lb) == {"a": 6, "b": 6}
    do(lb, "drain", "web/b")
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        a.wait_requests(7)
        lb.reload(pools=file(max_connections=1))
        assert served_by(lb) == {"b": 12}, "the request of the old generation counts"
        lb.reload(pools=file(max_connections=2))
        assert served_by(lb).keys() == {"a", "b"}
        a.released.set()
        assert client.response().text == "a"


def test_one_that_leaves_finishes_what_it_has(balancer, backend, workers):
    a, b = backend(Healthy("a")), backend(Healthy("b"))
    lb = balancer(a, workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        a.wait_requests(1)
        lb.reload(pools=web(b))
        assert served_by(lb) == {"b": 12} and backend_names(lb) == [b.address]
        a.released.set()
        assert client.response().text == "a"
    lb.wait_old_gone()
    lb.wait_idle()


def test_one_that_leaves_and_comes_back_while_it_has_a_request(balancer, backend, workers):
    a, b = backend(Healthy("a")), backend(Healthy("b"))
    lb = balancer(a, workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        a.wait_requests(1)
        lb.reload(pools=web(b))
        lb.reload(pools=web([a, b]))
        assert served_by(lb) == {"a": 6, "b": 6}
        a.released.set()
        assert client.response().text == "a"
    lb.wait_old_gone()
    lb.wait_idle()
    assert served_by(lb) == {"a": 6, "b": 6}


def test_another_address_under_the_same_name(balancer, backend, workers):
    """It is another backend: what the old one did is not counted as its own, what it still has it finishes."""
    a, b = backend(Healthy("a")), backend(Healthy("b"))
    lb = balancer(named(a), workers=workers)
    assert served_by(lb) == {"a": 12}
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        a.wait_requests(13)
        lb.reload(pools=web(named(b)))
        assert served_by(lb) == {"b": 12}
        row = lb.backend("b1")
        assert (row["address"], row["requests"], row["in_flight"]) == (b.address, 12, 0)
        a.released.set()
        assert client.response().text == "a"
    lb.wait_old_gone()
    lb.wait_idle()
    assert len(a.requests) == 13


def test_two_that_change_places(balancer, backend, workers):
    a, b = backend(reply("a")), backend(reply("b"))
    ab, ba = ([{"address": x, "name": "x", "weight": 3}, {"address": y, "name": "y"}] for x, y in ((a, b), (b, a)))
    lb = balancer(ab, workers=workers)
    assert served_by(lb) == {"a": 9, "b": 3}
    for _ in range(3):
        lb.reload(pools=web(ba))
        assert served_by(lb) == {"b": 9, "a": 3}
        lb.reload(pools=web(ab))
        assert served_by(lb) == {"a": 9, "b": 3}
    assert [(row["name"], row["address"]) for row in lb.vbctl("backends")["backends"]] == [
        ("x", a.address), ("y", b.address)]


def test_another_name_for_the_same_address(balancer, backend, workers):
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(named(a, b), workers=workers)
    lb.reload(pools=web([{"address": a, "name": "first"}, {"address": b, "name": "second"}]))
    assert sorted(backend_names(lb)) == ["first", "second"] and served_by(lb) == {"a": 6, "b": 6}


def test_another_order_of_the_same(balancer, backend, workers):
    a, b, c = (backend(reply(name)) for name in "abc")
    lb = balancer([a, b, {"address": c, "weight": 2}], workers=workers)
    lb.reload(pools=web([{"address": c, "weight": 2}, b, a]))
    assert served_by(lb) == {"a": 3, "b": 3, "c": 6}
    assert {row["requests"] for row in lb.vbctl("backends")["backends"]} == {3, 6}


def test_a_new_one_that_is_dead_gets_nothing(balancer, backend, workers):
    """It was looked at before anybody could give it a request."""
    a = backend(Healthy("a"))
    pool = {"health": {**SOON, "interval": "1s"}, "retry": "off"}
    lb = balancer(a, workers=workers, pool=pool)
    lb.wait_health(a, "up")
    for _ in range(3):
        dead = f"127.0.0.1:{free_port()}"
        with Load(lb.port, clients=4) as load:
            lb.reload(pools=web([a, dead], **pool))
            load.wait(50)
        assert load.failures() == []
        row = lb.backend(dead)
        assert (row["requests"], row["health"]) == (0, "down") and row["checks"] >= 1


def test_a_new_one_that_takes_its_time_to_say_that_it_is_sick_gets_nothing(balancer, backend, workers):
    """The new generation waits for that."""
    def says_so_later(connection, request):
        time.sleep(0.4)
        connection.send(reply("sick", "500 No"))
    a, sick = backend(Healthy("a")), backend(says_so_later)
    lb = balancer(a, workers=workers, pool={"health": ONCE})
    with Load(lb.port, clients=4) as load:
        lb.reload(pools=web([a, sick], health=ONCE))
        load.wait(20)
    assert load.failures() == [] and requests_of(sick) == []
    assert lb.backend(sick)["health"] == "down"


def test_a_new_one_is_checked_once_before_it_is_used(balancer, backend, workers):
    a, new = backend(Healthy("a")), backend(Healthy("new"))
    lb = balancer(a, workers=workers, pool={"health": ONCE})
    with Load(lb.port, clients=4) as load:
        load.wait(20)
        lb.reload(pools=web([a, new], health=ONCE))
        eventually(lambda: len(requests_of(new)) > 10, "it is used")
    assert load.failures() == []
    assert new.requests[0].target == "/health" and len(checks_of(new)) == 1
    assert lb.backend(new)["health"] == "up"


def test_a_new_one_that_says_nothing_does_not_hold_it_up(balancer, backend):
    a, pool = backend(Healthy("a")), {"health": {**SOON, "timeout": "30s"}, "timeouts": {"connect": "100ms"}}
    lb = balancer(a, pool=pool)
    with deaf_address() as deaf:
        began = time.monotonic()
        lb.reload(pools=web([a, deaf], **pool))
        assert time.monotonic() - began < 10
        assert {get(lb.port).text for _ in range(6)} == {"a"}, "what it does not take goes elsewhere"


def test_a_new_one_with_a_name_that_does_not_resolve(balancer, backend):
    a = backend(Healthy("a"))
    lb = balancer(a, pool={"health": SOON})
    lb.reload(pools=web([a, "nowhere.invalid:80"], health=SOON))
    assert served_by(lb) == {"a": 12}


# ---- pools and routes ------------------------------------------------------------------------------------------------


def pools(**backends):
    return {name: {"backends": [b], "health": "off"} for name, b in backends.items()}


def routes(*named):
    return [{"path": f"/{name}", "pool": name} for name in named]


def test_pools_and_routes_come_and_go(balancer, backend, workers):
    there = {name: backend(reply(name)) for name in ("web", "api", "img", "tmp")}
    lb = balancer(there["web"], workers=workers)
    assert get(lb.port, "/api").text == "web"
    for names in (("web", "api"), ("img", "web", "api"), ("api",), ("tmp", "img"), ("web", "tmp", "api", "img")):
        lb.reload(pools=pools(**{name: there[name] for name in names}), routes=routes(*names))
        for name in there:
            response = get(lb.port, f"/{name}/x")
            assert (response.status, response.text) == (200, name) if name in names else response.status == 404
        assert {pool["name"] for pool in lb.vbctl("stats")["pools"]} == set(names)
        assert {row["pool"] for row in lb.vbctl("backends")["backends"]} == set(names)
    lb.reload(pools=web(there["web"]), routes=None)
    assert get(lb.port, "/api").text == "web"


def test_a_pool_that_leaves_serves_those_who_are_there(balancer, backend, workers):
    """Old workers know it still: what they have begun ends there, also with another of its backends."""
    over = threading.Event()

    def die(connection, request):
        over.wait(60)
        connection.reset()
    home, old = backend(reply("web")), [backend(turns := Turns(die, reply("old"))), backend(turns)]
    lb = balancer(home, workers=workers, more_pools={"old": {"backends": old, "health": "off"}},
                  config={"routes": [{"path": "/old", "pool": "old"}, {"pool": "web"}]})
    with Client(lb.port) as slow, Client(lb.port) as late:
        slow.start("GET", "/old")
        eventually(lambda: sum(len(b.requests) for b in old) == 1, "it waits there")
        late.send(b"GET /old HTTP/1.1\r\nHo")
        eventually(lambda: lb.total("connections") == 2, "the other client is there")
        assert get(lb.port).text == "web"
        lb.reload(pools=web(home), routes=None)
        assert get(lb.port, "/old").text == "web"
        assert [pool["name"] for pool in lb.vbctl("stats")["pools"]] == ["web"]
        late.send(b"st: x\r\n\r\n")
        assert late.response().text == "old"
        over.set()
        assert slow.response().text == "old", "it was tried again"
    lb.wait_old_gone()
    lb.wait_idle()


def test_a_pool_that_comes_back_while_somebody_is_there(balancer, backend, workers):
    home, api, other = backend(reply("web")), backend(Healthy("api")), backend(reply("other"))
    both, route = {**web(home), **pools(api=api)}, [{"path": "/slow", "pool": "api"}, {"path": "/api", "pool": "api"},
                                                    {"pool": "web"}]
    lb = balancer(home, workers=workers, more_pools=pools(api=api), config={"routes": route})
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        api.wait_requests(1)
        lb.reload(pools=web(home), routes=None)
        lb.reload(pools={**web(home), **pools(api=other)}, routes=route)
        assert get(lb.port, "/api").text == "other" and get(lb.port).text == "web"
        lb.reload(pools=both)
        assert get(lb.port, "/api").text == "api"
        api.released.set()
        assert client.response().text == "api"
    lb.wait_old_gone()
    lb.wait_idle()
    assert get(lb.port, "/api").text == "api"


def test_another_balance(balancer, backend, workers):
    """What is in flight counts for the new one, whoever has it."""
    a, b = backend(Healthy("a")), backend(Healthy("b"))
    lb = balancer(a, workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/slow")
        a.wait_requests(1)
        lb.reload(pools=web([a, b], balance="least_conn"))
        assert served_by(lb) == {"b": 12}
        assert lb.vbctl("stats")["pools"][0]["balance"] == "least_conn"
        lb.reload(pools=web([a, b], balance="round_robin"))
        assert served_by(lb) == {"a": 6, "b": 6}
        assert lb.vbctl("stats")["pools"][0]["balance"] == "round_robin"
        a.released.set()
        assert client.response().text == "a"


# ---- rules of health checks ------------------------------------------------------------------------------------------


def by_path(connection, request):
    """Well by /health-b, not by /health."""
    connection.send(reply("there", "500 No" if request.target == "/health" else "200 OK"))


def test_other_rules_hold_at_once(balancer, backend, workers):
    """Though the next check by the old ones would have been in an hour. What was known stays known."""
    there = backend(by_path)
    lb = balancer(there, workers=workers, pool={"health": ONCE})
    before = lb.wait_health(there, "down")
    assert get(lb.port).status == 503
    lb.reload(pools=web(there, health={**ONCE, "path": "/health-b"}))
    now = lb.wait_health(there, "up")
    assert get(lb.port).status == 200
    assert now["checks"] == before["checks"] + 1 == 2 and now["last_checks"] == [False, True]


def test_a_check_under_way_by_the_old_rules_is_no_verdict(balancer, backend):
    there = backend(lambda c, r: hang(c, r) if r.target == "/health" else c.send(reply()))
    rules = {**ONCE, "timeout": "500ms"}
    lb = balancer(there, pool={"health": {**rules, "timeout": "30s"}})
    there.wait_requests(1)
    lb.reload(pools=web(there, health={**rules, "path": "/health-b"}))
    row = lb.wait_health(there, "up")
    assert row["check_failures"] == 0
    there.released.set()


def test_checks_turned_off_and_on(balancer, backend, workers):
    there = backend(Healthy("a", well=False))
    lb = balancer(there, workers=workers, pool={"health": SOON})
    lb.wait_health(there, "down")
    assert get(lb.port).status == 503
    lb.reload(pools=web(there))
    lb.wait_health(there, "unchecked")
    assert served_by(lb) == {"a": 12}
    there.answer.well = True
    lb.reload(pools=web(there, health=SOON))
    assert served_by(lb) == {"a": 12}
    lb.wait_health(there, "up")
    there.answer.well = False
    lb.wait_health(there, "down")


def test_checks_that_are_turned_on_and_fail(balancer, backend):
    a, sick = backend(Healthy("a")), backend(Healthy("sick", well=False))
    lb = balancer([a, sick])
    assert served_by(lb) == {"a": 6, "sick": 6}
    lb.reload(pools=web([a, sick], health=SOON))
    lb.wait_health(sick, "down")
    assert served_by(lb) == {"a": 12}


def test_another_number_of_failures(balancer, backend):
    """The record of the past counts for the new rule."""
    there = backend(Healthy("a"))
    lb = balancer(there, pool={"health": {**SOON, "fall": 1000}})
    lb.wait_health(there, "up")
    there.answer.well = False
    eventually(lambda: lb.backend(there)["check_failures"] >= 3, "3 failures")
    assert lb.backend(there)["health"] == "up"
    lb.reload(pools=web(there, health={**SOON, "fall": 2}))
    lb.wait_health(there, "down")


# ---- limits, time-outs and the rest ----------------------------------------------------------------------------------


def hold(port, n, **options):
    """n clients that stay, and what they were answered."""
    clients = [Client(port, **options) for _ in range(n)]
    return clients, [client.get().status for client in clients]


def let_go(lb, clients):
    for client in clients:
        client.close()
    eventually(lambda: lb.total("connections") == 0, "all are gone")


@pytest.mark.parametrize("limit, status", [("connections", 503), ("connections_per_ip", 429)])
def test_limits_of_connections_are_turned_on_changed_and_turned_off(balancer, backend, workers, limit, status):
    lb = balancer(backend(), workers=workers)
    for n in (3, 5, 0, 2):
        lb.reload(limits={limit: n})
        lb.wait_old_gone()
        for _ in range(2):
            clients, statuses = hold(lb.port, 8)
            assert sorted(statuses) == ([200] * n + [status] * (8 - n) if n else [200] * 8), n
            let_go(lb, clients)


@pytest.mark.parametrize("limit, status", [("connections", 503), ("connections_per_ip", 429)])
def test_connections_of_the_old_generation_count_too(balancer, backend, workers, limit, status):
    there = backend(Healthy("a"))
    lb = balancer(there, workers=workers, config={"limits": {limit: 4}})
    old = [Client(lb.port) for _ in range(3)]
    for client in old:
        client.start("GET", "/slow")
    there.wait_requests(3)
    lb.reload()
    new, statuses = hold(lb.port, 3)
    assert sorted(statuses) == [200, status, status]
    there.released.set()
    assert [client.response().text for client in old] == ["a"] * 3
    let_go(lb, old + new)
    lb.wait_old_gone()
    new, statuses = hold(lb.port, 5)
    assert sorted(statuses) == [200] * 4 + [status]
    let_go(lb, new)


def test_limits_of_a_pool(balancer, backend, workers):
    there = backend(Healthy("a"))
    lb = balancer(there, workers=workers)
    lb.reload(pools=web(there, circuit_breaker={"max_requests": 3}))
    clients = [Client(lb.port) for _ in range(5)]
    at_once(5, lambda i: clients[i].start("GET", "/slow"))
    eventually(lambda: lb.total("overloaded") == 2, "2 are refused")
    there.released.set()
    assert sorted(client.response().status for client in clients) == [200] * 3 + [503] * 2


def test_places_of_a_pool_that_old_workers_hold_are_taken(balancer, backend, workers):
    there = backend(Healthy("a"))
    lb = balancer(there, workers=workers, pool={"circuit_breaker": {"max_requests": 3}})
    clients = [Client(lb.port) for _ in range(3)]
    for client in clients:
        client.start("GET", "/slow")
    there.wait_requests(3)
    lb.reload()
    assert get(lb.port).status == 503 and lb.total("overloaded") == 1
    there.released.set()
    assert [client.response().text for client in clients] == ["a"] * 3
    lb.wait_old_gone()
    assert served_by(lb) == {"a": 12}


def test_time_outs_bodies_and_fields(balancer, backend, workers):
    there = backend(lambda c, r: hang(c, r) if r.target == "/hang" else c.send(reply(r.field("Via") or "none")))
    lb = balancer(there, workers=workers, config={"timeouts": {"header": "30s"}})
    assert get(lb.port).text != "none" and post(lb.port, "/", b"x" * 1000).status == 200
    lb.reload(pools=web(there, timeouts={"response": "200ms"}, retry="off"), headers={"via": False},
              limits={"body": "100"}, timeouts={"header": "200ms"})
    assert get(lb.port).text == "none"
    assert post(lb.port, "/", b"x" * 1000).status == 413
    assert get(lb.port, "/hang").status == 504
    with Client(lb.port) as client:
        client.send(b"GET / HT")
        assert client.response().status == 408
    there.released.set()


def test_the_number_on_the_command_line_wins(balancer, backend):
    lb = balancer(backend(), workers=2, args=["--workers", "2"])
    lb.write_config(workers=4)
    assert run("vbctl", "--name", lb.name, "reload").returncode == 0
    lb.wait_old_gone()
    assert len(lb.worker_pids()) == 2


@pytest.mark.parametrize("key, config", [("segment.path", {"segment": {"path": "/dev/shm/vibebalancer-another"}}),
                                         ("segment.backends", {"segment": {"backends": 7}}),
                                         ("admin.socket", {"admin": {"socket": "off"}}),
                                         ("admin.socket", {"admin": {"socket": "/tmp/vibebalancer-another.sock"}})])
def test_what_needs_a_restart_is_said_and_does_no_harm(balancer, backend, key, config):
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(a)
    lb.reload(pools=web(b), **config)
    assert served_by(lb) == {"b": 12}
    warning = f"`{key}` has changed: that takes effect only when"
    lb.wait_log(warning)
    lb.reload(**{top: None for top in config})
    assert lb.log().count(warning) == 1, "it is as at the start again"
    assert lb.control.exists() and lb.segment.exists()


def test_the_name_on_the_command_line_wins(balancer, backend):
    lb = balancer(backend())
    lb.reload(name="another")
    assert lb.vbctl("status")["name"] == lb.name


def test_a_variable_of_the_environment_is_that_of_the_start(balancer, backend):
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer("${WHERE}", env={"WHERE": a.address})
    assert served_by(lb) == {"a": 12}
    lb.reload(pools=web(["${WHERE}", b]))
    assert served_by(lb) == {"a": 6, "b": 6}


def test_changes_after_a_reload_are_for_the_new_generation(balancer, backend, workers):
    """vbctl and respawned workers see the file that is in force."""
    a, b = backend(reply("a")), backend(reply("b"))
    lb = balancer(named(a), workers=workers)
    lb.reload(pools={"api": {"backends": named(a), "health": "off"}, **web(named(a, b))}, routes=[{"pool": "web"}])
    do(lb, "drain", "web/b1")
    assert served_by(lb) == {"b": 12}
    pids = lb.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=pids)
    assert served_by(lb) == {"b": 12}
    do(lb, "ready", "web/b1")
    assert served_by(lb) == {"a": 6, "b": 6}


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(balancer, backend, kind):
    lb = balancer(backend())
    lb.file.unlink()
    if kind == "fifo":
        os.mkfifo(lb.file)
    elif kind == "folder":
        lb.file.mkdir()
    else:
        lb.file.symlink_to("/dev/zero")
    result = run("vbctl", "--name", lb.name, "reload")
    assert result.returncode == 1 and f"cannot read {lb.file}: it is not a regular file" in result.stderr
    assert get(lb.port).status == 200
    lb.file.rmdir() if kind == "folder" else lb.file.unlink()
    lb.reload()
