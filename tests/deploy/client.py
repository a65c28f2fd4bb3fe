"""People at a portal that runs on a booted machine: `python -m tests.deploy.client VERB …`, inside that machine's network.

Every name leads to 127.0.0.1, as DNS would lead to the machine. No test's settings, no Django: what a browser sees.
"""

import http.client
import itertools
import json
import pickle
import random
import re
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import requests
from requests.cookies import get_cookie_header

PORTAL = "https://login.example.com"
TENANT = "https://acme.example.com"
PAGES = (f"{PORTAL}/account/", f"{TENANT}/")  # of somebody who is signed in
ASKED = (f"{PORTAL}/api/v1/session", f"{TENANT}/_portal/whoami")  # by scripts and open tabs, more often than pages
READ = (*PAGES, *ASKED * 3)
PEOPLE = [f"person-{n:02}" for n in range(20)]  # many: whose sign-in a dying worker leaves unanswered has it counted as an attempt
PASSWORD = "a portal on a bare machine"

_resolve = socket.getaddrinfo


def here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    return _resolve("127.0.0.1", port, *args, **kwargs)


class Person:
    """A browser. A new connection for each request: what a proxy does with idle ones is not the product's matter."""

    def __init__(self, authority: str) -> None:
        self.session = requests.Session()
        self.session.verify = authority
        self.session.trust_env = False
        self.session.headers.update({"User-Agent": "Mozilla/5.0 Firefox/142.0", "Accept": "text/html", "Connection": "close"})

    def get(self, url: str) -> requests.Response:
        return self.session.get(url, timeout=35)

    def post(self, url: str, page: requests.Response, data: dict[str, str], *, follow: bool = True) -> requests.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"no form at {page.url}: {page.status_code}"
        data = {"csrfmiddlewaretoken": token[1], **data}
        headers = {"Origin": url[: url.index("/", 8)], "Referer": url}
        return self.session.post(url, data, headers=headers, timeout=35, allow_redirects=follow)

    def sign_in(self, name: str) -> list[requests.Response]:
        page = self.get(f"{PORTAL}/login/")
        home = self.post(f"{PORTAL}/login/", page, {"username": name, "password": PASSWORD})
        assert home.status_code == 200, (home.status_code, home.url)
        assert self.session.cookies.get("__Host-portal"), f"{name} is not signed in: {home.url}"
        return [page, *home.history, home]

    def enter(self) -> list[requests.Response]:
        """Into the tenant, by a hand-off if there is no session yet."""
        page = self.get(f"{TENANT}/")
        assert page.url == f"{TENANT}/", f"not let in: {page.url}"
        return [*page.history, page]

    def sign_out(self) -> None:
        self.post(f"{PORTAL}/logout/", self.get(f"{PORTAL}/account/"), {})


def sign_up(authority: str, link: str) -> None:
    person = Person(authority)
    done = person.post(link, person.get(link), {"username": "erin", "email": "erin@example.com", "password": PASSWORD})
    assert done.status_code == 201, (done.status_code, done.text)
    person.sign_in("erin")


def set_password(authority: str, link: str) -> None:
    """Then sign in, enter the tenant, and keep the browser for later."""
    person = Person(authority)
    page = person.get(link)
    done = person.post(page.url, page, {"password": PASSWORD, "new_password": PASSWORD})
    assert done.status_code == 200, (done.status_code, done.text)
    person.sign_in("olivia")
    person.enter()
    Path(authority).with_name("browser").write_bytes(pickle.dumps(person.session.cookies))


def come_in(authority: str, host: str) -> None:
    """Sign in at the portal, and from there into this host."""
    person = Person(authority)
    person.sign_in("olivia")
    page = person.get(f"https://{host}/")
    assert (page.status_code, page.url) == (200, f"https://{host}/"), (page.status_code, page.url)
    assert page.history, "nobody was asked who comes"


def still_in(authority: str) -> None:
    """The browser that was kept is still signed in, at both hosts: no hand-off, no form."""
    person = Person(authority)
    person.session.cookies = pickle.loads(Path(authority).with_name("browser").read_bytes())  # noqa: S301 # our own
    for url in PAGES:
        page = person.get(url)
        assert (page.status_code, page.url, page.history) == (200, url, []), (page.status_code, page.url)


class Away(Exception):
    """A calm 503 instead of an answer."""


class Reader:
    """Asks as somebody who is signed in, on kept connections: a tab that stays open."""

    def __init__(self, person: Person) -> None:
        self.person = person
        self.trust = ssl.create_default_context(cafile=str(person.session.verify))
        self.lines: dict[str, http.client.HTTPSConnection] = {}

    def get(self, url: str) -> tuple[int, bytes, http.client.HTTPResponse]:
        """A connection that the server had closed before it answered a word is opened again, as every browser does."""
        host, path = url.removeprefix("https://").split("/", 1)
        cookies = get_cookie_header(self.person.session.cookies, requests.Request("GET", url).prepare())  # type: ignore[no-untyped-call]
        headers = {"User-Agent": "Mozilla/5.0 Firefox/142.0", "Accept": "text/html", "Cookie": cookies or ""}
        line = self.lines.pop(host, None)
        if line:
            try:
                return self._ask(line, host, path, headers)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ssl.SSLEOFError):
                line.close()
        return self._ask(http.client.HTTPSConnection(host, timeout=35, context=self.trust), host, path, headers)

    def _ask(
        self, line: http.client.HTTPSConnection, host: str, path: str, headers: dict[str, str]
    ) -> tuple[int, bytes, http.client.HTTPResponse]:
        line.request("GET", f"/{path}", headers=headers)
        answer = line.getresponse()
        body = answer.read()
        self.lines[host] = line
        return answer.status, body, answer


@dataclass
class Witness:
    """What somebody was told: that the session of this cookie is open, or that it has ended."""

    portal: str
    tenant: str = ""
    ended: bool | None = False  # None: it was asked for, and nobody has answered


@dataclass
class Load:
    """What was asked and how it ended."""

    may_be_away: bool  # a calm 503 is no failure
    kinds: Counter[str] = field(default_factory=Counter)
    away: int = 0
    failed: list[str] = field(default_factory=list)
    slowest: float = 0
    witnesses: list[Witness] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def note(self, kind: str, url: str, status: int, seconds: float) -> None:
        self.kinds[kind] += 1
        self.slowest = max(self.slowest, seconds)
        if status >= 400:
            self.failed.append(f"{kind}: {status} {url}")

    def calm(self, url: str, retry: str | None, body: str) -> None:
        """A 503 that says when to come again, and what to do, in the words of who asked."""
        self.away += 1
        says = '"error"' in body if "/api/" in url or "whoami" in url else "<h1>" in body and "seconds" in body
        if not self.may_be_away or not retry or not says:
            self.failed.append(f"503 {url}: {body[:200]}")

    def forever(self, act: Callable[[], None]) -> None:
        while not self.over.is_set():
            try:
                act()
            except Away:
                time.sleep(0.2)
            except (requests.RequestException, http.client.HTTPException, OSError, AssertionError) as error:
                self.failed.append(f"{time.strftime('%T')} {type(error).__name__}: {error}"[:300])

    def tell(self, place: Path) -> None:
        """How many requests so far, for whoever waits for more."""
        while not self.over.wait(0.3):
            place.write_text(str(self.kinds.total()))

    def did(self, kind: str, answers: list[requests.Response]) -> None:
        for answer in answers:
            seconds = answer.elapsed.total_seconds()
            if answer.status_code == 503:
                self.calm(answer.url, answer.headers.get("Retry-After"), answer.text)
                raise Away
            self.note(kind, answer.url, answer.status_code, seconds)

    def read(self, reader: Reader) -> None:
        for url in READ:
            began = time.monotonic()
            status, body, answer = reader.get(url)
            if status == 503:
                self.calm(url, answer.getheader("Retry-After"), body.decode())
                raise Away
            self.note("read", url, status, time.monotonic() - began)
            assert status == 200, f"thrown out of {url}: {status} {answer.headers.get('Location')}"

    def come_and_go(self, authority: str, names: Iterator[str]) -> None:
        """Every second one signs out."""
        person = Person(authority)
        page = person.get(f"{PORTAL}/login/")
        self.did("sign-in", [page])
        name = next(names)
        home = person.post(f"{PORTAL}/login/", page, {"username": name, "password": PASSWORD})
        told = Witness(person.session.cookies.get("__Host-portal") or "")
        self.witnesses.append(told)
        self.did("sign-in", [*home.history, home])
        assert told.portal, f"{name} is not signed in: {home.status_code} {home.url}"
        page = person.get(f"{TENANT}/")
        told.tenant = person.session.cookies.get("__Secure-session") or ""
        self.did("hand-off", [*page.history, page])
        assert page.url == f"{TENANT}/", f"not let in: {page.url}"
        if random.random() < 0.5:
            return
        page = person.get(f"{PORTAL}/account/")
        self.did("read", [*page.history, page])
        told.ended = None
        end = person.post(f"{PORTAL}/logout/", page, {}, follow=False)
        self.did("end", [end])
        told.ended = True


def wrong(authority: str, witnesses: list[Witness]) -> list[str]:
    """What is not as it was told: a session that is gone, or one that came back."""
    session = requests.Session()
    session.verify, session.trust_env = authority, False
    found = []
    for told in witnesses:
        for url, name, key in (
            (f"{PORTAL}/api/v1/session", "__Host-portal", told.portal),
            (f"{TENANT}/_portal/whoami", "__Secure-session", told.tenant),
        ):
            if key and told.ended is not None:
                status = session.get(url, headers={"Cookie": f"{name}={key}"}, timeout=20).status_code
                if status != (401 if told.ended else 200):
                    found.append(f"{name}, ended: {told.ended}, answers {status}")
    return found


def load(authority: str, *how: str) -> None:
    """Readers who are signed in, and people who come and go, until standard input ends. Prints what happened.

    "away": a calm 503 is no failure. Afterwards every session is asked whether it is what its person was told.
    """
    result = Load("away" in how)
    names = itertools.cycle(PEOPLE)
    acts: list[Callable[[], None]] = [partial(result.come_and_go, authority, names)] * 2
    for _ in range(4):
        person = Person(authority)
        person.sign_in("olivia")
        person.enter()
        acts.append(partial(result.read, Reader(person)))
    threads = [threading.Thread(target=result.forever, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    threads.append(threading.Thread(target=result.tell, args=[Path(authority).with_name("asked")]))
    threads[-1].start()
    print("ready", flush=True)
    sys.stdin.read()
    result.over.set()
    for thread in threads:
        thread.join()
    said = {"kinds": result.kinds, "away": result.away, "failed": result.failed, "slowest": round(result.slowest, 3)}
    told = Counter("open" if one.ended is False else "ended" for one in result.witnesses if one.portal and one.ended is not None)
    print(json.dumps({**said, "told": told, "wrong": wrong(authority, result.witnesses)}))


def go(*verbs: Callable[..., None]) -> None:
    """Do what the command line says: the name of one of these, with dashes, and what it is given."""
    socket.getaddrinfo = here
    {verb.__name__.replace("_", "-"): verb for verb in verbs}[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    go(sign_up, set_password, come_in, still_in, load)
