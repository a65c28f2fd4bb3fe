"""People at a portal that runs on a booted machine: `python -m tests.deploy.client VERB …`, inside that machine's network.

Every name leads to 127.0.0.1, as DNS would lead to the machine. No test's settings, no Django: what a browser sees.
"""

import json
import pickle
import re
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

PORTAL = "https://login.example.com"
TENANT = "https://acme.example.com"
PAGES = (f"{PORTAL}/account/", f"{TENANT}/")  # of somebody who is signed in
PASSWORD = "a portal on a bare machine"

_resolve = socket.getaddrinfo


def _here(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
    return _resolve("127.0.0.1", port, *args, **kwargs)


socket.getaddrinfo = _here


class Person:
    """A browser. A new connection for each request: what a proxy does with idle ones is not the product's matter."""

    def __init__(self, authority: str) -> None:
        self.session = requests.Session()
        self.session.verify = authority
        self.session.trust_env = False
        self.session.headers.update({"User-Agent": "Mozilla/5.0 Firefox/142.0", "Accept": "text/html", "Connection": "close"})

    def get(self, url: str) -> requests.Response:
        return self.session.get(url, timeout=20)

    def post(self, url: str, page: requests.Response, data: dict[str, str]) -> requests.Response:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token, f"no form at {page.url}: {page.status_code}"
        data = {"csrfmiddlewaretoken": token[1], **data}
        return self.session.post(url, data, headers={"Origin": url[: url.index("/", 8)], "Referer": url}, timeout=20)

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

    def sign_out(self) -> list[requests.Response]:
        page = self.get(f"{PORTAL}/account/")
        end = self.post(f"{PORTAL}/logout/", page, {})
        return [page, *end.history, end]


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


@dataclass
class Load:
    """What was asked and how it ended."""

    kinds: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    slowest: float = 0
    over: threading.Event = field(default_factory=threading.Event)

    def note(self, kind: str, answers: list[requests.Response]) -> None:
        for answer in answers:
            self.kinds[kind] += 1
            self.slowest = max(self.slowest, answer.elapsed.total_seconds())
            if answer.status_code >= 400:
                self.failed.append(f"{kind}: {answer.status_code} {answer.url}")

    def forever(self, act: Any) -> None:
        while not self.over.is_set():
            try:
                act()
            except (requests.RequestException, AssertionError) as error:
                self.failed.append(f"{type(error).__name__}: {error}"[:300])
            time.sleep(0.005)


def load(authority: str) -> None:
    """Readers who are signed in, and people who come and go, until standard input ends. Prints what happened."""
    result = Load()

    def come_and_go() -> None:
        person = Person(authority)
        result.note("sign-in", person.sign_in("olivia"))
        result.note("hand-off", person.enter())
        result.note("end", person.sign_out())

    readers = [Person(authority), Person(authority)]
    for person in readers:
        person.sign_in("olivia")
        person.enter()

    def reading(person: Person) -> Any:
        def read() -> None:
            for url in (*PAGES, f"{PORTAL}/readyz"):
                page = person.get(url)
                assert page.url == url, f"thrown out of {url} to {page.url}"
                result.note("read", [page])

        return read

    threads = [threading.Thread(target=result.forever, args=[act]) for act in (come_and_go, *map(reading, readers))]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.read()
    result.over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"kinds": result.kinds, "failed": result.failed, "slowest": round(result.slowest, 3)}))


if __name__ == "__main__":
    verbs: dict[str, Callable[..., None]] = {
        "sign-up": sign_up,
        "set-password": set_password,
        "come-in": come_in,
        "still-in": still_in,
        "load": load,
    }
    verbs[sys.argv[1]](*sys.argv[2:])
