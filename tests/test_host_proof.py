"""Hosts of a tenant's own domain: nothing answers there before the domain itself has said whose it is."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.resolver
import dns.rrset
import pytest
from django.utils import timezone

from identity import hosting, ownership
from identity.members import Actor
from identity.models import Event, Session, User
from identity.ownership import Finding
from tenants import hosts
from tenants.models import Host, Tenant
from tests.test_people import old_proof, text
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
HOSTS = "/console/acme/settings/hosts/"
ACT = f"{HOSTS}act"


@dataclass
class NameServer:
    """A name server over UDP that knows a few records."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    silent: bool = False
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    def says(self, name: str, *values: str) -> None:
        self.texts[name] = list(values)

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self.socket.recvfrom(2000)
            except OSError:
                return
            if answer := self._answer(dns.message.from_wire(data)):
                self.socket.sendto(answer.to_wire(), sender)

    def _answer(self, question: dns.message.Message) -> dns.message.Message | None:
        asked = question.question[0].name.to_text(omit_final_dot=True)
        self.asked.append(asked)
        if self.silent:
            return None
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        name = asked
        while name in self.aliases:
            answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "CNAME", f"{self.aliases[name]}."))
            name = self.aliases[name]
        if name in self.texts:
            values = [f'"{value}"' for value in self.texts[name]]
            if values:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "TXT", *values))
        else:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return answer

    def close(self) -> None:
        self.socket.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    """The only name server there is."""
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], server.socket.getsockname()[1]
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    yield server
    server.close()


def add(browser: Visitor, name: str, domain: str = "") -> Any:
    return browser.post(portal_url(HOSTS), {"name": name, "cookie_domain": domain})


def do(browser: Visitor, verb: str, name: str, **fields: str) -> Any:
    return browser.post(portal_url(ACT), {verb: name, **fields})


def answers(name: str) -> bool:
    hosts.forget()
    return bool(Visitor().get(f"http://{name}:8000/welcome/").status_code == 200)


def told(kind: str) -> list[Event]:
    return list(Event.objects.filter(kind=kind).order_by("pk"))


def refused(page: Any, name: str = "name") -> str:
    found: str = page.content.decode().partition(f'id="{name}_error"')[2].partition("</div>")[0]
    return found


# --- Adding -------------------------------------------------------------------------------------------------------


def test_a_host_under_the_tenants_own_name_is_good_at_once(acme: Tenant, visitor: Open, names: NameServer) -> None:
    page = add(visitor("olivia"), "Team.Acme.portal.localhost")
    assert "is good at once" in text(page)
    assert answers("team.acme.portal.localhost")
    (event,) = told("host_added")
    assert (event.data["before"], event.data["after"]["host"]) == (None, "team.acme.portal.localhost")
    assert names.asked == []


@pytest.mark.asvs("2.2.3")
def test_a_foreign_host_answers_only_when_its_domain_says_whose_it_is(acme: Tenant, visitor: Open, names: NameServer) -> None:
    olivia = visitor("olivia")
    page = add(olivia, "https://id.acme.test/")
    host = Host.objects.get()
    assert (host.name, host.cookie_domain, host.approved_at) == ("id.acme.test", "id.acme.test", None)
    assert "_gatehouse.id.acme.test" in page.content.decode()
    assert f"gatehouse-site={host.challenge}" in page.content.decode()
    assert not answers("id.acme.test")
    names.says("_gatehouse.id.acme.test", "v=spf1 -all", f"gatehouse-site={host.challenge}")
    page = do(olivia, "check", "id.acme.test")
    assert "Proven. id.acme.test answers from now on." in text(page)
    assert answers("id.acme.test")
    (event,) = told("host_approved")
    assert (event.data["before"]["approved_at"], event.actor) == (None, User.objects.get(username="olivia"))
    assert event.data["after"]["approved_at"]


@pytest.mark.parametrize(
    ("typed", "domain", "says"),
    [
        ("wiki.globex.portal.localhost", "", "Choose a host inside acme.portal.localhost"),
        ("login.portal.localhost", "", "Choose another"),
        ("10.0.0.1", "", "A host is a name"), ("co.uk", "", "Choose a host of your own"), ("no host", "", "no host name"),
        ("acme.portal.localhost", "", "already has a place"), ("wiki.acme.portal.localhost", "", "already has a place"),
        ("", "", "required"),
        ("x" * 70 + ".test", "", "no host name"), ("<b>", "", "no host name"),
    ],
)  # fmt: skip
def test_a_host_that_cannot_be_had_is_refused_with_the_cure(acme: Tenant, visitor: Open, typed: str, domain: str, says: str) -> None:
    page = add(visitor("olivia"), typed, domain)
    assert page.status_code == 422
    assert says in refused(page)
    assert re.search(r'<input[^>]*name="name"[^>]*autofocus', page.content.decode())  # below the list, out of sight on a phone
    assert not Host.objects.exists()


@pytest.mark.parametrize(
    ("domain", "says"),
    [("test", "Strangers can register"), ("other.test", "does not accept"), ("portal.localhost", "portal"), ("no domain", "no host name")],
)
def test_a_cookie_domain_that_leaks_is_refused_with_the_cure(acme: Tenant, visitor: Open, domain: str, says: str) -> None:
    page = add(visitor("olivia"), "id.acme.test", domain)
    assert page.status_code == 422
    assert says in refused(page, "cookie_domain")
    assert not Host.objects.exists()


# --- What is no proof ---------------------------------------------------------------------------------------------


def waiting(tenant: Tenant, name: str = "id.acme.test", domain: str = "") -> Host:
    return Host.objects.create(tenant=tenant, name=name, cookie_domain=domain)


@pytest.mark.asvs("2.2.3")
def test_nothing_but_the_very_value_at_the_very_name_is_a_proof(acme: Tenant, globex: Tenant, names: NameServer) -> None:
    host = waiting(acme, domain="acme.test")
    value, name = f"gatehouse-site={host.challenge}", "_gatehouse.acme.test"
    assert ownership.look(host) is Finding.NOTHING
    other = waiting(globex, "id.other.test")
    wrongs = (host.challenge, f"{value}x", value.upper(), f" {value}", f"gatehouse-site={other.challenge}", value[:-1])
    for wrong in wrongs:
        names.says(name, wrong)
        assert ownership.look(host) is Finding.OTHER, wrong
    names.texts.clear()
    for sibling in ("acme.test", "_gatehouse.id.acme.test", "_gatehouse.www.acme.test", "_gatehouse.other.test", "gatehouse.acme.test"):
        names.says(sibling, value)
    assert ownership.look(host) is Finding.NOTHING  # above all: a proof for id.acme.test is none for its whole domain
    names.says(name)
    assert ownership.look(host) is Finding.NOTHING
    names.says(name, "something else", value)
    assert ownership.look(host) is Finding.PROVEN


@pytest.mark.asvs("2.2.3")
def test_a_name_that_leads_elsewhere_proves_nothing(acme: Tenant, names: NameServer) -> None:
    host = waiting(acme)
    names.aliases["_gatehouse.id.acme.test"] = "customer.hosting.test"
    assert ownership.look(host) is Finding.ELSEWHERE
    names.says("customer.hosting.test", host.record_value)
    assert ownership.look(host) is Finding.ELSEWHERE
    names.says("customer.hosting.test")
    assert ownership.look(host) is Finding.ELSEWHERE


@pytest.mark.asvs("13.2.6", "16.5.2")
def test_a_server_that_does_not_answer_is_waited_for_a_little_and_said(
    acme: Tenant, visitor: Open, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "SECONDS", 0.3)
    names.silent = True
    waiting(acme)
    page = do(visitor("olivia"), "check", "id.acme.test")
    assert "did not answer in time" in text(page)
    (event,) = told("host_not_proven")
    assert event.data["finding"] == "silent"
    assert Host.objects.get().approved_at is None


@pytest.mark.parametrize(("value", "says"), [(None, "There is no such record yet"), ("other", "it says something else")])
def test_what_was_found_instead_is_said_with_the_cure(acme: Tenant, visitor: Open, names: NameServer, value: str | None, says: str) -> None:
    waiting(acme)
    if value:
        names.says("_gatehouse.id.acme.test", value)
    assert says in text(do(visitor("olivia"), "check", "id.acme.test"))
    assert not answers("id.acme.test")


@pytest.mark.asvs("2.4.1")
def test_the_dns_is_not_asked_without_end(acme: Tenant, globex: Tenant, visitor: Open, names: NameServer) -> None:
    waiting(acme)
    olivia = visitor("olivia")
    for _try in range(10):
        do(olivia, "check", "id.acme.test")
    assert len(names.asked) == 10
    assert "Wait ten minutes" in text(do(olivia, "check", "id.acme.test"))
    assert len(names.asked) == 10
    assert hosting.prove(waiting(globex, "id.globex.test"), by=Actor()) is Finding.NOTHING  # another tenant is not held up


# --- Whose it is when two want it ---------------------------------------------------------------------------------


@pytest.mark.asvs("2.2.3", "8.4.1")
def test_a_host_that_waits_at_another_tenant_goes_to_who_proves_it(acme: Tenant, globex: Tenant, visitor: Open, names: NameServer) -> None:
    squatted = waiting(globex, "id.acme.test", "acme.test")
    olivia = visitor("olivia")
    add(olivia, "id.acme.test")
    mine = Host.objects.get(tenant=acme)
    names.says("_gatehouse.id.acme.test", mine.record_value)
    names.says("_gatehouse.acme.test", mine.record_value)  # with acme's value, which proves nothing for globex
    assert hosting.prove(squatted, by=Actor()) is Finding.OTHER
    do(olivia, "check", "id.acme.test")
    assert answers("id.acme.test")
    assert hosts.tenant_at("id.acme.test").tenant == acme  # type: ignore[union-attr]
    names.says("_gatehouse.acme.test", squatted.record_value)  # whoever comes later cannot put himself around it
    page = olivia.post(portal_url("/console/globex/settings/hosts/act"), {"check": "id.acme.test"})
    assert "already has a place" in text(page)
    squatted.refresh_from_db()
    assert squatted.approved_at is None
    hosting.settle(acme, "team.acme.portal.localhost", by=Actor())  # and what waits in vain is in nobody's way


@pytest.mark.asvs("8.2.2")
def test_a_host_of_another_tenant_is_a_404_and_changes_nothing(acme: Tenant, globex: Tenant, visitor: Open, names: NameServer) -> None:
    host = Host.objects.create(tenant=globex, name="id.globex.test", approved_at=timezone.now())
    acme.memberships.filter(user__username="bob").update(role="owner")
    bob = visitor("bob")
    for verb in ("check", "approve", "domain", "remove"):
        assert do(bob, verb, host.name, sure="1", cookie_domain="globex.test").status_code == 404
    assert do(bob, "nonsense", host.name).status_code == 404
    assert Host.objects.get() == host
    assert len(told("foreign_host")) == 4
    assert names.asked == []


def test_an_operator_approves_without_a_proof_and_an_owner_does_not(acme: Tenant, visitor: Open, names: NameServer) -> None:
    waiting(acme)
    assert do(visitor("olivia"), "approve", "id.acme.test").status_code == 403
    erin = visitor("erin")
    old_proof(erin)
    assert "Prove that it is you" in text(do(erin, "approve", "id.acme.test"))
    assert not answers("id.acme.test")
    assert "Approved." in text(do(visitor("erin"), "approve", "id.acme.test"))
    assert answers("id.acme.test")
    assert names.asked == []


# --- Changing and removing ----------------------------------------------------------------------------------------


def moved_in(tenant: Tenant, visitor: Open, *people: str, domain: str = "") -> list[Visitor]:
    """These people, signed in at id.acme.test."""
    Host.objects.create(tenant=tenant, name="id.acme.test", cookie_domain=domain, approved_at=timezone.now())
    browsers = [visitor(name) for name in people]
    for browser in browsers:
        browser.get("http://id.acme.test:8000/")
        assert browser.page.status_code == 200
    return browsers


def is_in(browser: Visitor) -> bool:
    return bool(browser._go("GET", "http://id.acme.test:8000/_portal/whoami", None, False, {}, keep=False).status_code == 200)


def test_a_removal_says_who_is_signed_in_there_and_ends_it(acme: Tenant, visitor: Open) -> None:
    alice, dave = moved_in(acme, visitor, "alice", "dave")
    bob = visitor("bob", at="acme")
    olivia = visitor("olivia")
    page = do(olivia, "remove", "id.acme.test")
    assert "2 sessions opened there end: 2 people sign in again." in text(page)
    assert is_in(alice)
    old_proof(olivia)
    assert "Prove that it is you" in text(do(olivia, "remove", "id.acme.test", sure="1"))
    assert is_in(alice)
    page = do(visitor("olivia"), "remove", "id.acme.test", sure="1")
    assert "no longer answers at id.acme.test. 2 sessions are over." in text(page)
    assert not Host.objects.exists()
    assert not answers("id.acme.test")
    assert bob.is_in("acme")
    assert dave.is_in()
    assert Session.objects.filter(tenant=acme, end_reason="host").count() == 2
    (event,) = told("host_removed")
    assert (event.data["before"]["host"], event.data["after"]) == ("id.acme.test", None)
    del dave


def test_a_wider_cookie_domain_takes_a_record_at_that_domain(acme: Tenant, visitor: Open, names: NameServer) -> None:
    (alice,) = moved_in(acme, visitor, "alice")
    host = Host.objects.get()
    olivia = visitor("olivia")
    page = do(olivia, "domain", "id.acme.test")
    assert "1 session opened there ends: 1 person signs in again." in text(page)
    names.says("_gatehouse.id.acme.test", host.record_value)
    page = do(olivia, "domain", "id.acme.test", cookie_domain="acme.test")
    assert "There is no such record yet." in refused(page, "cookie_domain")
    assert "_gatehouse.acme.test" in page.content.decode()
    host.refresh_from_db()
    assert host.cookie_domain == "id.acme.test"
    assert is_in(alice)
    names.says("_gatehouse.acme.test", host.record_value)
    page = do(olivia, "domain", "id.acme.test", cookie_domain="acme.test")
    assert "good at acme.test from now on. 1 session is over." in text(page)
    assert not is_in(alice)
    alice.get("http://id.acme.test:8000/")
    alice.get("http://id.acme.test:8000/_portal/start?again=1&next=/")
    assert is_in(alice)
    assert {cookie.domain for cookie in alice.cookies if cookie.name == "session"} >= {"acme.test"}
    event = told("host_changed")[-1]
    assert (event.data["before"]["cookie_domain"], event.data["after"]["cookie_domain"]) == ("id.acme.test", "acme.test")


def test_a_narrower_cookie_domain_is_proven_already(acme: Tenant, visitor: Open, names: NameServer) -> None:
    moved_in(acme, visitor, domain="acme.test")
    page = do(visitor("olivia"), "domain", "id.acme.test", cookie_domain="id.acme.test")
    assert "good at id.acme.test from now on." in text(page)
    assert Host.objects.get().approved_at
    assert names.asked == []


def test_an_app_that_needs_the_host_keeps_it(acme: Tenant, visitor: Open) -> None:
    moved_in(acme, visitor, domain="acme.test")
    acme.apps.create(name="Chat", host="chat.acme.test")
    olivia = visitor("olivia")
    assert "Chat would not fit any more" in text(do(olivia, "remove", "id.acme.test", sure="1"))
    page = do(olivia, "domain", "id.acme.test", cookie_domain="id.acme.test")
    assert "Chat would not fit any more" in refused(page, "cookie_domain")
    assert Host.objects.get().cookie_domain == "acme.test"


def test_what_was_changed_meanwhile_is_not_approved(acme: Tenant, names: NameServer) -> None:
    host = waiting(acme)
    names.says("_gatehouse.id.acme.test", host.record_value)
    Host.objects.all().delete()
    waiting(acme)  # removed and added anew: another challenge
    with pytest.raises(hosting.Gone):
        hosting.prove(host, by=Actor())
    assert Host.objects.get().approved_at is None
