"""balance: hash. Who asks with the same key is served by the same backend (design.md 7, the key `hash`)."""
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from harness import Client, at_once, eventually, get, reply, run, web

KEYS = [f"key-{i}" for i in range(60)]


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def backends(backend):
    return [{"address": backend(reply(name)), "name": name} for name in "abcd"]


@pytest.fixture
def hashed(balancer):
    """hashed(backends, key=..., bounded=..., pool={...}, the options of `balancer`)"""
    def make(backends, key, bounded="off", pool=None, **options):
        return balancer(backends, pool={**pool_by(key, bounded), **(pool or {})}, **options)
    return make


def pool_by(key, bounded="off"):
    return {"balance": "hash", "hash": {"key": key, "bounded": bounded}}


def do(lb, *args):
    result = run("vbctl", "--name", lb.name, *args)
    assert result.returncode == 0 and result.stderr == "", (args, result)


def by_header(key):
    return {"headers": [("X-Key", key)]}


def by_cookie(key):
    return {"headers": [("Cookie", f"a=b; id={key}")]}


def by_path(key):
    return {"target": f"/{key}"}


def by_query(key):
    return {"target": f"/?{key}"}


KINDS = [("header:X-Key", by_header), ("cookie:id", by_cookie), ("path", by_path), ("uri", by_query)]


def served(lb, how, **more):
    response = get(lb.port, **{**how, **more})
    assert response.status == 200
    return response.text


def places(lb, ask=by_header, keys=KEYS):
    """Where each key is served, over connections that go to any worker."""
    return {key: served(lb, ask(key)) for key in keys}


def stay(lb, wanted, times=2):
    for _ in range(times):
        assert places(lb) == wanted


# ---- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key, ask", KINDS, ids=[key for key, _ in KINDS])
def test_a_key_has_its_place(hashed, backends, workers, key, ask):
    lb = hashed(backends, key, workers=workers)
    first = places(lb, ask)
    assert set(first.values()) == set("abcd"), "keys are shared out"
    for _ in range(3):
        assert places(lb, ask) == first
    with Client(lb.port) as client:
        assert {k: client.get(**ask(k)).text for k in KEYS} == first, "over one connection too"
    at = at_once(20, lambda _: places(lb, ask, KEYS[:5]))
    assert at == [{k: first[k] for k in KEYS[:5]}] * 20


def sources():
    return [f"127.0.0.{i}" for i in range(1, 41)]


def test_by_client_ip(hashed, backends, workers):
    lb = hashed(backends, "client_ip", workers=workers)
    first = {ip: served(lb, {}, source=ip) for ip in sources()}
    assert set(first.values()) == set("abcd")
    for _ in range(3):
        assert {ip: served(lb, by_header(str(i)), source=ip) for i, ip in enumerate(sources())} == first


def test_client_ip_is_the_default(balancer, backends):
    lb = balancer(backends, pool={"balance": "hash"})
    assert len({served(lb, {}) for _ in range(12)}) == 1
    assert len({served(lb, {}, source=ip) for ip in sources()}) == 4


def forwarded(ip):
    return {"headers": [("X-Forwarded-For", ip)]}


def test_the_client_ip_behind_a_trusted_proxy(hashed, backends):
    direct = hashed(backends, "client_ip")
    behind = hashed(backends, "client_ip", config={"trusted_proxies": ["127.0.0.1"]})
    for ip in sources()[1:]:
        assert served(behind, forwarded(ip)) == served(direct, {}, source=ip), "it is the same client"
        assert served(behind, forwarded(f"10.0.0.1, {ip}")) == served(behind, forwarded(ip))
    assert len({served(direct, forwarded(f"10.0.0.{i}")) for i in range(12)}) == 1, "who is not trusted says nothing"
    spelled = [served(behind, forwarded(ip)) for ip in ("2001:db8::1", "2001:DB8:0::0:1", "2001:db8:0:0:0:0:0:1")]
    assert len(set(spelled)) == 1


def test_the_path_in_its_normal_form(hashed, backends):
    lb = hashed(backends, "path")
    for i in range(12):
        wanted = served(lb, by_path(f"a/{i}"))
        for target in (f"/a/{i}?q={i}", f"/%61/{i}", f"/x/../a/./{i}?", f"http://test:{lb.port}/a/{i}"):
            assert served(lb, {"target": target}) == wanted, target
    assert len({served(lb, by_path(f"x{i}/a")) for i in range(30)}) == 4


def test_path_and_uri_are_as_the_client_wrote_them(hashed, backends):
    """Also where a route takes a prefix away: what is another request for the client is another key."""
    for key in ("path", "uri"):
        lb = hashed(backends, key, config={
            "routes": [{"path": "/v1/", "pool": "web", "strip_prefix": True}, {"pool": "web"}]})
        with_prefix = {k: served(lb, by_path(f"v1/{k}")) for k in KEYS}
        plain = hashed(backends, key)
        assert with_prefix == {k: served(plain, by_path(f"v1/{k}")) for k in KEYS}
        arrived = {request.target for there in backends for request in there["address"].requests}
        assert {f"/{k}" for k in KEYS} <= arrived, "the prefix was taken away"


def test_the_uri_has_its_query(hashed, backends):
    lb = hashed(backends, "uri")
    assert len({served(lb, {"target": f"/a?q={i}"}) for i in range(30)}) == 4


@pytest.mark.parametrize("key, without", [
    ("header:X-Key", [{}, by_header("")]),
    ("cookie:id", [{}, by_cookie(""), {"headers": [("Cookie", "ID=1")]}]),
], ids=["header", "cookie"])
def test_without_a_key_it_goes_by_turns(hashed, backends, workers, key, without):
    lb = hashed(backends, key, workers=workers)
    for ask in without:
        assert Counter(served(lb, ask) for _ in range(40)) == {name: 10 for name in "abcd"}


def test_who_comes_through_a_unix_socket_has_no_ip(hashed, backends):
    with TemporaryDirectory(prefix="vb-") as folder:
        os.chmod(folder, 0o755)
        path = Path(folder) / "vb.sock"
        hashed(backends, "client_ip", config={"listen": f"unix:{path}"})
        assert Counter(get(path).text for _ in range(40)) == {name: 10 for name in "abcd"}


# ---- what comes and goes ---------------------------------------------------------------------------------------------


def moved(before, now):
    return {key for key in before if before[key] != now[key]}


def test_only_the_keys_of_one_that_goes_move(hashed, backends, workers):
    lb = hashed(backends, "header:X-Key", workers=workers)
    first = places(lb)
    of_b = {key for key in KEYS if first[key] == "b"}
    for go, come in (("remove", ("add", "web", backends[1]["address"].address)), ("drain", ("ready", "web/b")),
                     ("maint", ("ready", "web/b"))):
        do(lb, go, "web/b")
        now = places(lb)
        assert moved(first, now) == of_b and "b" not in now.values(), go
        assert len({now[key] for key in of_b}) > 1, "they do not all go to one"
        stay(lb, now)
        do(lb, *come)
        stay(lb, first)


def test_a_newcomer_takes_its_share_from_all(hashed, backends, backend):
    lb = hashed(backends[:3], "header:X-Key")
    first = places(lb)
    lb.reload(pools=web(backends, **pool_by("header:X-Key")))
    now = places(lb)
    assert {now[key] for key in moved(first, now)} == {"d"}
    assert {first[key] for key in moved(first, now)} == set("abc")
    assert len(moved(first, now)) < len(KEYS) / 2


def test_a_dead_backend_costs_no_request(hashed, backends, workers):
    """The next best of a key takes over at once, and for all workers it is the same one."""
    lb = hashed(backends, "header:X-Key", workers=workers, pool={"outlier": {"eject": "2s"}})
    first = places(lb)
    backends[1]["address"].stop()
    now = places(lb)
    assert moved(first, now) == {key for key in KEYS if first[key] == "b"}
    stay(lb, now)
    backends[1]["address"].start()
    eventually(lambda: places(lb) == first, "they come back with it")


def test_instances_agree_in_whatever_order_their_files_are(hashed, backends):
    one = hashed(backends, "header:X-Key")
    other = hashed(list(reversed(backends)), "header:X-Key", workers=2)
    assert places(one) == places(other)


def test_reload_and_restart_move_nothing(hashed, backends, workers):
    lb = hashed(backends, "header:X-Key", workers=workers)
    first = places(lb)
    lb.reload()
    stay(lb, first)
    lb.reload(pools=web(list(reversed(backends)), **pool_by("header:X-Key")))
    lb.wait_old_gone()
    stay(lb, first)
    lb.stop()
    stay(hashed(backends, "header:X-Key", workers=workers), first)


def test_reload_to_another_key(hashed, backends):
    lb = hashed(backends, "header:X-Key")
    lb.reload(pools=web(backends, **pool_by("path")))
    assert len({served(lb, by_header(key)) for key in KEYS}) == 1
    assert len({served(lb, by_path(key)) for key in KEYS}) == 4


def test_a_killed_worker_moves_nothing(hashed, backends, workers):
    lb = hashed(backends, "header:X-Key", workers=workers)
    first = places(lb)
    victims = lb.worker_pids()[:2]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=victims)
    stay(lb, first)


# ---- bounded load ----------------------------------------------------------------------------------------------------


def slow(connection, request):
    if request.target == "/slow":
        connection.backend.released.wait(60)
    connection.send(reply(connection.backend.name))


@pytest.fixture
def slow_ones(backend, lifetimes):
    found = []
    for name in "abcd":
        there = backend(slow)
        there.name = name
        lifetimes.callback(there.released.set)
        found.append({"address": there, "name": name})
    return found


def hold(stack, lb, backends, key, n):
    """n slow requests with one key, each begun when the one before it has arrived; how many wait at each backend."""
    there = [b["address"] for b in backends]
    for i in range(1, n + 1):
        client = stack.enter_context(Client(lb.port))
        client.start("GET", "/slow", [("X-Key", key)])
        eventually(lambda: sum(len(b.requests) for b in there) == i, "it has arrived")  # noqa: B023
    return [len(b.requests) for b in there]


def release(lb, backends):
    for b in backends:
        b["address"].released.set()
    lb.wait_idle()


def test_unbounded_a_hot_key_stays_in_its_place(hashed, slow_ones, workers):
    lb = hashed(slow_ones, "header:X-Key", workers=workers)
    with ExitStack() as stack:
        assert sorted(hold(stack, lb, slow_ones, "hot", 20)) == [0, 0, 0, 20]
        release(lb, slow_ones)


def test_bounded_a_hot_key_spills(hashed, slow_ones, workers):
    """Of 20 requests at 4 backends none gets more than 125% of the mean, rounded up; others serve the rest."""
    lb = hashed(slow_ones, "header:X-Key", bounded="125%", workers=workers)
    with ExitStack() as stack:
        counts = hold(stack, lb, slow_ones, "hot", 20)
        assert sum(counts) == 20 and max(counts) == 7, counts  # 1.25 * 20 / 4 is 6.25
        picks = [lb.backend(name)["picks"] for name in "abcd"]
        assert sum(p["spill"] for p in picks) >= 13
        release(lb, slow_ones)
    own = "abcd"[counts.index(7)]
    assert {served(lb, by_header("hot")) for _ in range(8)} == {own}, "it returns when the load is gone"


def test_the_bound_may_change_by_reload(hashed, slow_ones):
    lb = hashed(slow_ones, "header:X-Key", bounded="125%")
    lb.reload(pools=web(slow_ones, **pool_by("header:X-Key", bounded="200%")))
    lb.wait_old_gone()
    with ExitStack() as stack:
        assert max(hold(stack, lb, slow_ones, "hot", 20)) == 10
        release(lb, slow_ones)


def test_the_bound_holds_for_many_at_once(hashed, slow_ones, workers):
    """Workers that pick at the same moment may each see the same room, but not for more than one request each."""
    lb = hashed(slow_ones, "header:X-Key", bounded="125%", workers=workers)
    there = [b["address"] for b in slow_ones]
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(lb.port)) for _ in range(40)]
        at_once(40, lambda i: clients[i].start("GET", "/slow", [("X-Key", "hot")]))
        eventually(lambda: sum(len(b.requests) for b in there) == 40, "all have arrived")
        counts = [len(b.requests) for b in there]
        assert max(counts) <= 13 + workers - 1, counts  # 1.25 * 40 / 4 is 12.5
        release(lb, slow_ones)


def test_the_bound_is_by_weight(hashed, slow_ones):
    weighted = [{**b, "weight": w} for b, w in zip(slow_ones, (5, 1, 1, 1))]
    lb = hashed(weighted, "header:X-Key", bounded="101%")
    with ExitStack() as stack:
        counts = hold(stack, lb, slow_ones, "hot", 16)
        assert counts[0] <= 11 and max(counts[1:]) <= 3, counts  # 1.01 * 16 * 5/8 is 10.1, 1.01 * 16 / 8 is 2.02
        release(lb, slow_ones)
