"""The first people of a portal, each with a browser, and the mail server that they share: `python -m tests.deploy.sitting VERB …`.

Runs inside a machine's network, as tests.deploy.client does.
"""

import base64
import hmac
import html
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.deploy.client import PASSWORD, PORTAL, TENANT, Person, here
from tests.sink import Sink, text_of

PORT = 2525


def post_office(folder: str) -> None:
    """Takes mails until standard input ends; each becomes a file of its address and text."""

    class Post(Sink):
        async def handle_DATA(self, *given: Any) -> str:  # noqa: N802
            answer = await super().handle_DATA(*given)
            mail = self.mails[-1]
            Path(folder, f"{len(self.mails)}.txt").write_text(f"{mail['To']}\n{text_of(mail)}")
            return answer

    post = Post(port=PORT)
    with post:
        print("ready", flush=True)
        sys.stdin.read()


def mailed(folder: str, address: str, pattern: str) -> str:
    """The link in the newest mail to this address, which may be on its way."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for file in sorted(Path(folder).glob("*.txt"), key=lambda file: -int(file.stem)):
            text = file.read_text()
            if text.startswith(f"{address}\n") and (link := re.search(pattern, text)):
                return link[0]
        time.sleep(0.1)
    raise AssertionError(f"no mail to {address}: {[file.read_text() for file in Path(folder).glob('*.txt')]}")


def code(key: str, later: float = 0) -> str:
    """What an authenticator with this key shows, so many seconds from now (RFC 6238)."""
    step = int((time.time() + later) // 30)
    mac = hmac.digest(base64.b32decode(key + "=" * (-len(key) % 8)), step.to_bytes(8), "sha1")
    place = mac[-1] & 15
    return f"{(int.from_bytes(mac[place : place + 4]) & 0x7FFFFFFF) % 1_000_000:06}"


def enrol(person: Person) -> tuple[str, list[str]]:
    """Set an authenticator up: its key, and the recovery codes."""
    page = person.get(f"{PORTAL}/account/two-factor/")
    shown = re.search(r'id="totp-key"[^>]*>(.*?)</p>', page.text, re.DOTALL)
    device = re.search(r'name="device" value="([^"]+)"', page.text)
    assert shown, page.url
    assert device, page.url
    key = re.sub(r"<[^>]+>|\s", "", html.unescape(shown[1]))
    done = person.post(page.url, page, {"code": code(key), "device": device[1]})
    codes = re.findall(r"data-recovery-code[^>]*>([^<]+)<", done.text)
    assert len(codes) == 10, done.url
    return key, codes


def first_people(authority: str, folder: str, link: str) -> None:
    """erin becomes the operator by the link, makes a tenant and names its owner, who comes by the invitation in the mail."""
    erin = Person(authority)
    erin.post(link, erin.get(link), {"username": "erin", "email": "erin@example.com", "password": PASSWORD})
    erin.sign_in("erin")
    enrol(erin)
    add = f"{PORTAL}/console/platform/tenants/add"
    made = erin.post(add, erin.get(add), {"name": "Acme", "slug": "acme", "owner": "olivia@acme.example"})
    assert made.url == f"{PORTAL}/console/platform/tenants/acme/", made.url

    olivia = Person(authority)
    link = mailed(folder, "olivia@acme.example", rf"{PORTAL}/invitation/\S+")
    there = olivia.post(link, olivia.get(link), {"username": "olivia", "password": PASSWORD})
    assert (there.status_code, there.url) == (200, f"{TENANT}/"), there.url
    console = olivia.get(f"{TENANT}/_portal/console")
    assert (console.status_code, console.url) == (200, f"{PORTAL}/console/acme/"), console.url


if __name__ == "__main__":
    socket.getaddrinfo = here
    verbs: dict[str, Callable[..., None]] = {"post-office": post_office, "first-people": first_people}
    verbs[sys.argv[1]](*sys.argv[2:])
