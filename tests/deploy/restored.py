"""Two people before and after a restore: `python -m tests.deploy.restored VERB …`, inside a machine's network."""

import pickle
import re
import time
from pathlib import Path
from typing import Any

from tests.deploy.client import PASSWORD, PORTAL, Person, go
from tests.deploy.sitting import code, enrol


def arrive(authority: str, link: str) -> Person:
    person = Person(authority)
    page = person.get(link)
    done = person.post(page.url, page, {"password": PASSWORD, "new_password": PASSWORD})
    assert done.status_code == 200, (done.status_code, done.url)
    return person


def prove(authority: str, name: str, proof: str) -> Person | None:
    """Sign in with a password and a code; None if the code is not taken."""
    person = Person(authority)
    page = person.get(f"{PORTAL}/login/")
    page = person.post(f"{PORTAL}/login/", page, {"username": name, "password": PASSWORD})
    assert "/login/code/" in page.url, page.url
    mark = re.search(r'name="mark" value="([^"]*)"', page.text)
    assert mark
    url = page.url if proof.isdigit() else f"{page.url.partition('?')[0]}?lost=1"
    done = person.post(url, page, {"code": proof, "mark": mark[1]})
    if is_in(person):
        return person
    print(" ".join(re.sub(r"<[^>]+>", " ", done.text.partition("<main")[2]).split()))  # why not
    return None


def is_in(person: Person) -> bool:
    return "/login/" not in person.get(f"{PORTAL}/account/").url


def before(authority: str, memory: str, link_of_olivia: str, link_of_bob: str) -> None:
    """olivia is signed in; bob has an authenticator, ten recovery codes, and uses one."""
    arrive(authority, link_of_olivia)
    olivia, bob = Person(authority), arrive(authority, link_of_bob)
    olivia.sign_in("olivia")
    bob.sign_in("bob")
    key, codes = enrol(bob)
    assert prove(authority, "bob", codes[0])
    remember(memory, {"olivia": olivia.session.cookies, "bob": bob.session.cookies, "key": key, "codes": codes})


def meanwhile(authority: str, memory: str) -> None:
    """After the copy: bob uses another recovery code and a code of his authenticator; olivia signs out."""
    known = remembered(memory)
    assert prove(authority, "bob", known["codes"][1])
    olivia = Person(authority)
    olivia.session.cookies = known["olivia"]
    olivia.sign_out()
    shown = code(known["key"], later=30)  # the one that the enrolment took is spent
    assert prove(authority, "bob", shown)
    remember(memory, known | {"shown": shown})


def after(authority: str, memory: str, link: str) -> None:
    """Nothing from before opens anything, but passwords and unused recovery codes, those used since the copy among them."""
    known = remembered(memory)
    Path(memory).touch()  # the minute of `later` begins now: a restore takes its time
    for name in ("olivia", "bob"):
        person = Person(authority)
        person.session.cookies = known[name]
        assert not is_in(person), f"{name} is still signed in"
    assert not prove(authority, "bob", known["shown"]), "a code that the authenticator had shown was taken again"
    assert not prove(authority, "bob", known["codes"][0]), "a recovery code that was used before the copy was taken"
    assert prove(authority, "bob", known["codes"][1]), "the recovery code used since the copy"
    assert prove(authority, "bob", known["codes"][2]), "an unused recovery code"
    assert Person(authority).get(link).status_code in {404, 410}, "a link from before"
    Person(authority).sign_in("olivia")


def later(authority: str, memory: str) -> None:
    """A minute after the restore the authenticator is good again; the recovery codes were voided by hand."""
    known = remembered(memory)
    assert not prove(authority, "bob", known["codes"][3])
    time.sleep(max(0, Path(memory).stat().st_mtime + 65 - time.time()))
    assert prove(authority, "bob", code(known["key"]))


def again(authority: str, memory: str) -> None:
    """On a new machine: the password, and an authenticator whose key the old machine has encrypted."""
    known = remembered(memory)
    Person(authority).sign_in("olivia")
    time.sleep(65)
    assert prove(authority, "bob", code(known["key"]))


def remember(memory: str, what: dict[str, Any]) -> None:
    Path(memory).write_bytes(pickle.dumps(what))


def remembered(memory: str) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads(Path(memory).read_bytes())  # noqa: S301 # our own
    return found


if __name__ == "__main__":
    go(before, meanwhile, after, later, again)
