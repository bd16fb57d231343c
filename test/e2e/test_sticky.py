"""Sticky sessions: a signed cookie brings a client back to its backend (design.md 7, the key `sticky`)."""
import base64
import os
import re
import signal
from collections import Counter

import pytest
from harness import Client, at_once, eventually, get, post, reply, run, web
from upgrade import ASKS, round_trip, switch_and_echo

SECRET = "a secret of some length"
FAST = {"health": {"interval": "200ms", "fast_interval": "100ms"}}
VALUE = re.compile(r"[A-Za-z0-9_-]{27}")


@pytest.fixture(params=[1, 4], ids=lambda n: f"workers={n}")
def workers(request):
    return request.param


@pytest.fixture
def three(backend):
    return [backend(reply(name)) for name in "abc"]


@pytest.fixture
def sticky(balancer):
    """sticky(backends, sticky={...}, the options of `balancer`) -> a balancer whose backends are named a, b, c"""
    def make(backends, sticky=None, pool=None, **options):
        return balancer(named(backends), pool={"sticky": sticky or {"cookie": "vb"}, **(pool or {})}, **options)
    return make


def named(backends):
    backends = backends if isinstance(backends, list) else [backends]
    return [{"address": there, "name": "abcdefgh"[i]} for i, there in enumerate(backends)]


def do(lb, *args):
    result = run("vbctl", "--name", lb.name, *args)
    assert result.returncode == 0 and result.stderr == "", (args, result)


def cookies_set(response, name="vb"):
    """The values in its Set-Cookie fields of that name."""
    return [value.split(";")[0].partition("=")[2] for value in response.fields("Set-Cookie")
            if value.startswith(f"{name}=")]


class Browser:
    """Keeps the one cookie as browsers do, over a new connection for each request: so each goes to any worker."""

    def __init__(self, lb, cookie=None):
        self.lb, self.cookie = lb, cookie
        self.was_set = None  # by the last response

    def get(self, target="/", headers=()):
        own = [("Cookie", f"vb={self.cookie}")] if self.cookie else []
        response = get(self.lb.port, target, [*headers, *own])
        values = cookies_set(response)
        assert len(values) <= 1, values
        self.was_set = values[0] if values else None
        self.cookie = self.was_set or self.cookie
        return response

    def served_by(self, target="/"):
        response = self.get(target)
        assert response.status == 200
        return response.text


def bound_to(lb, name):
    """A browser that has been served by this backend."""
    def try_one():
        browser = Browser(lb)
        return browser.served_by() == name and browser
    return eventually(try_one, f"somebody is served by {name}")


def bound_to_each(lb, names="abc"):
    return {name: bound_to(lb, name) for name in names}


def stay(browsers, times=5):
    """All are served where they are bound to, and get no other cookie."""
    for name, browser in browsers.items():
        for _ in range(times):
            assert browser.served_by() == name
            assert browser.was_set is None


# ---- the cookie ------------------------------------------------------------------------------------------------------


def test_the_cookie_is_opaque_and_for_the_whole_site(sticky, three):
    lb = sticky(three, sticky={"cookie": "vb", "ttl": "1h"})
    values = {}
    for name, browser in bound_to_each(lb).items():
        response = Browser(lb, browser.cookie[:-1]).get()  # not a good one, so it is set anew
        field, = response.fields("Set-Cookie")
        value, *attributes = field.split("; ")
        assert attributes == ["Path=/", "Max-Age=3600", "HttpOnly", "SameSite=Lax"]
        assert VALUE.fullmatch(value.removeprefix("vb="))
        values[name] = browser.cookie
    assert len(set(values.values())) == 3
    plain = [base64.urlsafe_b64decode(value + "=") for value in values.values()]
    assert len({value[:8] for value in plain}) == len({value[12:] for value in plain}) == 3
    for value in plain:
        assert not any(there.address.encode() in value or str(there.port).encode() in value for there in three)


def test_without_the_key_there_is_no_cookie(balancer, three):
    lb = balancer(three)
    assert get(lb.port).fields("Set-Cookie") == []
    lb.reload(pools=web(three, sticky="off"))
    assert get(lb.port).fields("Set-Cookie") == []


def test_its_name_and_time_are_configured(sticky, three):
    lb = sticky(three, sticky={"cookie": "SERVERID", "ttl": "90s"})
    response = get(lb.port)
    assert re.fullmatch(r"SERVERID=[\w-]{27}; Path=/; Max-Age=90; HttpOnly; SameSite=Lax", response.field("Set-Cookie"))
    value, = cookies_set(response, "SERVERID")
    for _ in range(6):
        again = get(lb.port, headers=[("Cookie", f"vb=x; SERVERID={value}")])
        assert again.text == response.text and again.fields("Set-Cookie") == []


def test_the_backend_sees_the_cookie_as_it_came(sticky, three):
    lb = sticky(three)
    browser = Browser(lb)
    browser.get()
    cookie = f"a=1; vb={browser.cookie};b=\"2\""
    served = get(lb.port, headers=[("Cookie", cookie)]).text
    assert three["abc".index(served)].requests[-1].fields("Cookie") == [cookie]


def test_what_the_backend_sets_stays(sticky, backend):
    own = [("Set-Cookie", "session=1; Path=/"), ("set-cookie", "vb=own; Path=/app"), ("Set-Cookie", "vb=own2")]
    lb = sticky(backend(reply(headers=own)))
    response = get(lb.port)
    assert response.fields("Set-Cookie")[:3] == [value for _, value in own]
    assert VALUE.fullmatch(response.fields("Set-Cookie")[3].split(";")[0].removeprefix("vb=")), "ours comes last"
    again = get(lb.port, headers=[("Cookie", f"vb={cookies_set(response)[-1]}")])
    assert again.fields("Set-Cookie") == [value for _, value in own]


@pytest.mark.parametrize("method, answer", [
    ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
    ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ("GET", reply("x", status="302 Found", headers=[("Location", "/")])),
    ("GET", reply("x", status="500 Internal Server Error")),
    ("GET", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + reply()),
    ("POST", reply()),
], ids=["HEAD", "304", "204", "302", "500", "103", "POST"])
def test_every_response_of_a_backend_may_bind(sticky, backend, method, answer):
    lb = sticky(backend(answer))
    with Client(lb.port) as client:
        client.start(method, "/", body=b"x" if method == "POST" else None)
        response = client.head()
        while response.status < 200:
            assert response.fields("Set-Cookie") == [], "an interim response binds nobody"
            response = client.head()
        client.body(response, method)
        value, = cookies_set(response)
        again = client.request(method, "/", [("Cookie", f"vb={value}")], b"x" if method == "POST" else None)
        assert again.status == response.status and again.fields("Set-Cookie") == []


def test_a_switch_of_protocols_binds_too(sticky, backend, workers):
    there = [backend(switch_and_echo) for _ in range(3)]
    lb = sticky(there, workers=workers)
    with Client(lb.port) as client:
        client.start("GET", "/chat", ASKS)
        response = client.head()
        assert response.status == 101 and round_trip(client)
        value, = cookies_set(response)
    served = [len(b.requests) for b in there].index(1)
    for _ in range(6):
        with Client(lb.port) as client:
            client.start("GET", "/chat", [*ASKS, ("Cookie", f"vb={value}")])
            response = client.head()
            assert response.status == 101 and response.fields("Set-Cookie") == [] and round_trip(client)
    assert [len(b.requests) for b in there][served] == 7


def test_our_own_answers_bind_nobody(sticky, backend):
    there = backend()
    lb = sticky(there)
    there.stop()
    response = get(lb.port)
    assert response.status == 502 and response.fields("Set-Cookie") == []


def test_large_heads_have_room_for_it(sticky, backend):
    """A response head as long as may be, to which the longest cookie is added."""
    def head(n):
        return reply("", "204 No Content", [("X-Fill", "f" * 1000)] * 15 + [("X-More", "f" * n)], length=False)

    name, there = "n" * 63, backend(head(16384 - len(head(0))))
    lb = sticky(there, sticky={"cookie": name, "ttl": "8760h"})
    response = get(lb.port)
    assert response.status == 204 and VALUE.fullmatch(cookies_set(response, name)[0])


# ---- stickiness ------------------------------------------------------------------------------------------------------


def test_many_clients_stay_where_they_are(sticky, three, workers):
    """Over new connections and kept ones, one after the other and all at once."""
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    stay(browsers, times=20)
    for name, browser in browsers.items():
        cookie = [("Cookie", f"vb={browser.cookie}")]
        responses = at_once(30, lambda _: get(lb.port, headers=cookie))  # noqa: B023
        with Client(lb.port) as client:
            responses += [client.get(headers=cookie) for _ in range(10)]
        assert {(r.status, r.text, len(r.fields("Set-Cookie"))) for r in responses} == {(200, name, 0)}


def test_newcomers_are_shared_out_as_ever(sticky, three, workers):
    lb = sticky(three, workers=workers)
    served = [Browser(lb).served_by() for _ in range(30)]
    assert Counter(served) == {"a": 10, "b": 10, "c": 10}


def test_who_sticks_is_counted_as_such(sticky, three):
    lb = sticky(three)
    browser = bound_to(lb, "a")
    before = lb.backend("a")["picks"]
    for _ in range(5):
        browser.get()
    after = lb.backend("a")["picks"]
    assert after["sticky"] == before.get("sticky", 0) + 5 and after["policy"] == before["policy"]


def forgeries(value):
    flipped = "B" if value[0] == "A" else "A"
    return {"one character": flipped + value[1:], "the last": value[:-1] + ("A" if value[-1] != "A" else "Q"),
            "cut": value[:-1], "longer": value + "A", "nothing": "", "zeros": "A" * 27, "padded": value + "=",
            "long": "x" * 4000, "bytes": "\xff" * 27, "another case": value.swapcase()}


def test_a_forged_cookie_is_ignored_and_replaced(sticky, three):
    lb = sticky(three)
    value = bound_to(lb, "a").cookie
    for what, forged in forgeries(value).items():
        response = get(lb.port, headers=[("Cookie", f"vb={forged}")])
        assert response.status == 200 and len(cookies_set(response)) == 1, what
        assert Browser(lb, cookies_set(response)[0]).served_by() == response.text, what
    served = {get(lb.port, headers=[("Cookie", f"vb={forgeries(value)['one character']}")]).text for _ in range(9)}
    assert served == set("abc"), "it is as if there were none"


def test_two_pools_with_one_name_of_cookie(balancer, backend):
    """The cookie of one pool says nothing in the other, and does no harm there."""
    web_backends, api_backends = ([backend(reply(pool + name)) for name in "abc"] for pool in ("web-", "api-"))
    lb = balancer(named(web_backends), pool={"sticky": {"secret": SECRET}},
                  more_pools={"api": {"backends": named(api_backends), "health": "off",
                                      "sticky": {"secret": SECRET}}},
                  config={"routes": [{"path": "/api/", "pool": "api"}, {"pool": "web"}]})
    browser = Browser(lb)
    at_web = browser.served_by()
    value = browser.cookie
    assert browser.served_by() == at_web and browser.was_set is None
    at_api = browser.served_by("/api/x")
    assert browser.was_set and at_api.startswith("api-")
    assert browser.served_by("/api/x") == at_api and browser.was_set is None
    for _ in range(6):
        assert Browser(lb, value).served_by() == at_web


def test_two_pools_with_cookies_of_their_own(balancer, backend):
    web_backends, api_backends = ([backend(reply(pool + name)) for name in "abc"] for pool in ("web-", "api-"))
    lb = balancer(named(web_backends), pool={"sticky": {"cookie": "one"}},
                  more_pools={"api": {"backends": named(api_backends), "health": "off", "sticky": {"cookie": "two"}}},
                  config={"routes": [{"path": "/api/", "pool": "api"}, {"pool": "web"}]})
    first, second = get(lb.port), get(lb.port, "/api/x")
    cookie = [("Cookie", f"two={cookies_set(second, 'two')[0]}; one={cookies_set(first, 'one')[0]}")]
    for _ in range(6):
        assert get(lb.port, headers=cookie).text == first.text
        assert get(lb.port, "/api/x", headers=cookie).text == second.text


def test_it_goes_before_any_policy(sticky, three):
    for policy in ("least_conn", "random", "p2c"):
        lb = sticky(three, pool={"balance": policy})
        stay(bound_to_each(lb))


# ---- time ------------------------------------------------------------------------------------------------------------


def test_it_is_renewed_when_half_of_its_time_is_over(sticky, three):
    lb = sticky(three, sticky={"ttl": "4s"})
    browser = bound_to(lb, "b")
    seen = [browser.cookie]

    def renewed():
        assert browser.served_by() == "b"
        if browser.was_set:
            seen.append(browser.was_set)
        return len(seen) == 4  # longer than the first one's whole time
    eventually(renewed, "it is renewed, again and again")
    assert len(set(seen)) == 4


def test_it_ends_after_its_time(sticky, three):
    lb = sticky(three, sticky={"ttl": "2s"})
    value = bound_to(lb, "b").cookie

    def served_elsewhere():
        response = get(lb.port, headers=[("Cookie", f"vb={value}")])
        return response.text != "b" and response
    assert len(cookies_set(eventually(served_elsewhere, "it is over"))) == 1


# ---- backends that go ------------------------------------------------------------------------------------------------


def test_a_dead_backend_costs_no_request(sticky, demos, workers):
    there = demos(3)
    lb = sticky(there, workers=workers, pool=FAST)
    for demo in there:
        lb.wait_health(demo, "up")

    def who(response):
        return response.field("X-Backend")

    browsers = [Browser(lb) for _ in range(30)]
    before = [who(browser.get()) for browser in browsers]
    there[0].kill()
    after = at_once(30, lambda i: browsers[i].get())
    assert {response.status for response in after} == {200}
    for browser, was, response in zip(browsers, before, after):
        assert (browser.was_set is not None) == (was == "a")
        assert who(response) == was if was != "a" else who(response) != "a"
    lb.wait_health(there[0], "down")
    moved = [who(response) for response in after]
    assert [who(browser.get()) for browser in browsers] == moved, "they stay where they are now"
    there[0].start()
    lb.wait_health(there[0], "up")
    assert [who(browser.get()) for browser in browsers] == moved, "also when it is there again"


def test_drain_keeps_who_is_bound_and_nobody_else_comes(sticky, three, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    do(lb, "drain", "web/b")
    stay(browsers)
    assert {Browser(lb).served_by() for _ in range(12)} == {"a", "c"}
    do(lb, "ready", "web/b")
    stay(browsers)
    assert {Browser(lb).served_by() for _ in range(12)} == {"a", "b", "c"}


def test_a_drain_ends_when_the_cookies_do(sticky, three):
    """It is not renewed: who comes again and again would keep it from ever being empty."""
    lb = sticky(three, sticky={"ttl": "3s"})
    browser = bound_to(lb, "b")
    do(lb, "drain", "web/b")

    def moved():
        served = browser.served_by()
        assert (served == "b") == (browser.was_set is None)
        return served != "b"
    eventually(moved, "the drained one has lost its last client")
    assert Browser(lb, browser.cookie).served_by() in ("a", "c")


def test_who_was_in_flight_when_it_was_drained_is_not_bound(sticky, backend):
    there = [backend(), backend()]
    for b in there:
        b.answer = lambda connection, request: (connection.backend.released.wait(20), connection.send(reply()))
    lb = sticky(there)
    with Client(lb.port) as client:
        client.start("GET", "/")
        eventually(lambda: any(b.requests for b in there), "the request is there")
        drained = 0 if there[0].requests else 1
        do(lb, "drain", f"web/{'ab'[drained]}")
        there[drained].released.set()
        response = client.response()
        assert response.status == 200 and cookies_set(response) == []


def test_maintenance_moves_them(sticky, three, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    do(lb, "maint", "web/b")
    for name, browser in browsers.items():
        served = browser.served_by()
        assert (served, browser.was_set) == (name, None) if name != "b" else served != "b" and browser.was_set
        assert browser.served_by() == served and browser.was_set is None


def test_a_removed_backend(sticky, three, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    old = browsers["b"].cookie
    do(lb, "remove", "web/b")
    now = browsers["b"].served_by()
    assert now in ("a", "c") and browsers["b"].was_set
    assert browsers["b"].served_by() == now and browsers["b"].was_set is None
    do(lb, "add", "web", three[1].address)
    assert Browser(lb, old).served_by() == "b", "it is the same again, and so is its cookie"


def test_an_added_backend(sticky, three, backend, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    stay(browsers)
    do(lb, "add", "web", backend(reply("d")).address)
    browsers["d"] = bound_to(lb, "d")
    stay(browsers)


# ---- what must not matter --------------------------------------------------------------------------------------------


def test_reload_keeps_it(sticky, three, backend, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    for _ in range(2):
        lb.reload()
        stay(browsers)
    d = backend(reply("d"))
    lb.reload(pools=web(list(reversed(named([*three, d]))), sticky={"cookie": "vb"}))
    stay(browsers)
    lb.wait_old_gone()
    stay(browsers)
    lb.reload(pools=web(named([*three[:2], d]), sticky={"cookie": "vb"}))  # c is another now
    stay({name: browsers[name] for name in "ab"})
    assert browsers["c"].served_by() in "abd"


def test_reload_moves_a_backend_to_another_address(sticky, three, backend):
    lb = sticky(three)
    browsers = bound_to_each(lb)
    backends = named(three)
    backends[1]["address"] = backend(reply("new"))
    lb.reload(pools=web(backends, sticky={"cookie": "vb"}))
    assert browsers["b"].served_by() == "new" and browsers["b"].was_set is None


def test_another_secret_is_another_start(sticky, three):
    lb = sticky(three, sticky={"secret": SECRET})
    browsers = bound_to_each(lb)
    lb.reload(pools=web(named(three), sticky={"secret": SECRET + "!"}))
    for browser in browsers.values():
        served = browser.served_by()
        assert browser.was_set and browser.served_by() == served and browser.was_set is None


@pytest.mark.parametrize("secret", [SECRET, None], ids=["secret", "none"])
def test_a_restart(balancer, three, secret):
    settings = {"sticky": {"secret": secret} if secret else {"cookie": "vb"}}
    first = balancer(named(three), pool=settings)
    browsers = bound_to_each(first)
    first.stop()
    second = balancer(named(three), pool=settings)
    for name, browser in browsers.items():
        browser.lb = second
        served = browser.served_by()
        assert (browser.was_set is None) == (secret is not None)
        assert secret is None or served == name


def test_instances_may_share_a_secret(balancer, three):
    """Their backends are known by name, in whatever order they stand there."""
    first = balancer(named(three), pool={"sticky": {"secret": SECRET}})
    second = balancer(list(reversed(named(three))), pool={"sticky": {"secret": SECRET}}, workers=2)
    browsers = bound_to_each(first)
    for browser in browsers.values():
        browser.lb = second
    stay(browsers)


def test_a_killed_worker_changes_nothing(sticky, three, workers):
    lb = sticky(three, workers=workers)
    browsers = bound_to_each(lb)
    victims = lb.worker_pids()[:2]
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
    lb.wait_workers(without=victims)
    stay(browsers)


def test_unfinished_bodies_and_pipelines(sticky, three):
    """Each request of a connection is looked at by itself."""
    lb = sticky(three)
    browsers = bound_to_each(lb)
    with Client(lb.port) as client:
        for name in "abcabc":
            client.start("GET", "/", [("Cookie", f"vb={browsers[name].cookie}")])
        assert [client.response().text for _ in range(6)] == list("abcabc")
    for name, browser in browsers.items():
        assert post(lb.port, "/", b"x" * 100000, [("Cookie", f"vb={browser.cookie}")]).text == name
