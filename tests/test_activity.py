"""One's own activity: every kind of event in plain words, and nothing of anybody else's."""

import ast
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory
from django.utils import timezone

from identity import events, sessions
from identity.models import Event, Session, User
from portal.views import activity
from tenants.models import Tenant
from tests.conftest import PASSWORD
from tests.test_structure import ALLOWED, modules
from tests.visitor import Visitor, portal_url

Open = Callable[..., Visitor]
PAGE = "/account/activity/"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"


def lines(page: Any) -> list[str]:
    """The list as a person reads it, a line for each entry, without its time."""
    found = re.findall(r"<li>\s*<time[^>]*>[^<]*</time>\s*<div>(.*?)</div>\s*</li>", page.content.decode(), re.DOTALL)
    return [re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", each))).strip() for each in found]


def read(browser: Visitor) -> list[str]:
    page = browser.get(portal_url(PAGE))
    assert page.status_code == 200
    return lines(page)


def test_a_person_reads_what_happened_the_newest_first(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave", at="acme", address="203.0.113.40")
    assert read(dave) == [
        "Opened Acme. Firefox 142 on Linux · 203.0.113.40",
        "Signed in. Password only · Firefox 142 on Linux · 203.0.113.40",
    ]
    assert "My activity" in dave.page.content.decode()
    assert 'aria-current="page">Activity' in dave.page.content.decode()
    assert f'href="{PAGE}"' in dave.get(portal_url("/account/sessions/")).content.decode()


def test_wrong_passwords_of_somebody_else_are_told_calmly_and_once(cast: dict[str, User], visitor: Open) -> None:
    for _n in range(4):
        visitor(user_agent=EDGE, address="198.51.100.9").sign_in("dave", "a wrong guess")
    told = read(visitor("dave"))
    assert re.fullmatch(
        r"Somebody typed a wrong password for your account\. 4 times since \d\d:\d\d:\d\d Edge 141 on Windows · 198\.51\.100\.9", told[1]
    )
    assert "a wrong guess" not in " ".join(told)


def test_an_end_by_an_admin_names_him_and_his_reason_but_not_his_browser(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    dave, bob = visitor("dave", at="acme", address="203.0.113.40"), visitor(user_agent=EDGE, address="198.51.100.77")
    bob.sign_in("bob", PASSWORD)
    bob.post(portal_url("/console/acme/sessions/end"), {"ids": [str(dave.session("acme").pk)], "reason": "Laptop lost"})
    told = read(dave)
    assert told[0] == "Bob Marsh ended your session at Acme. “Laptop lost” Firefox 142 on Linux · 203.0.113.40"
    assert "198.51.100.77" not in dave.page.content.decode()
    assert "Edge" not in dave.page.content.decode()


def test_what_the_program_notes_of_ones_own_doing_is_no_quotation(cast: dict[str, User], visitor: Open) -> None:
    events.record("lockout_released", actor=cast["dave"], subject=cast["dave"], bucket="person", reason="mailed link")
    assert "mailed link" not in " ".join(read(visitor("dave")))


def test_what_one_does_to_others_names_nobody(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    visitor("alice", at="acme")
    dave, bob = visitor("dave", at="acme"), visitor("bob")
    ids = [str(row.pk) for row in Session.objects.filter(tenant=acme).exclude(user=cast["bob"])]
    bob.post(portal_url("/console/acme/sessions/end"), {"ids": ids, "reason": "Fire drill for Dave"})
    told = " ".join(read(bob))
    assert "You ended a session of somebody else at Acme. 2 times since" in told
    assert not re.search(r"dave|alice|Fire drill", told, re.IGNORECASE)
    assert dave.page.status_code == 200


def test_nobody_is_told_of_an_admin_of_elsewhere_who_got_nothing(cast: dict[str, User], visitor: Open, globex: Tenant) -> None:
    events.record("foreign_lockout", tenant=globex, actor=cast["olivia"], subject=cast["alice"])
    assert len(read(visitor("alice"))) == 1
    assert "You named somebody who is not locked out of Globex. Nobody was let in." in " ".join(read(visitor("olivia")))


@pytest.mark.asvs("8.2.2")
def test_nobody_reads_the_activity_of_others(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    events.record("sign_in_failed", subject=cast["dave"])
    events.record("alarm", tenant=acme, failed=99, addresses=[{"address": "198.51.100.9", "failed": 99}])
    events.record("session_ended", tenant=acme, actor=cast["bob"], subject=cast["dave"], reason="by_admin", note="secret of dave")
    assert read(visitor("alice")) == ["Signed in. Password only · Firefox 142 on Linux · 127.0.0.1"]
    assert visitor().get(portal_url(PAGE), follow=False).status_code == 302


def recorded_kinds() -> set[str]:
    """The kind of every event that some line of the program records."""
    found: set[str] = set()
    for package in ALLOWED:
        for path in modules(package):
            if "doctor" in str(path):  # its notes are findings
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                named = {each.arg: each.value for each in node.keywords}
                if name in {"record", "make", "note"} and node.args:
                    found |= {f"{kind}" for kind in texts(node.args[0])}
                if name == "prove_again":
                    found |= texts(named.get("kind"))
                found |= {f"{what}_failed" for what in texts(named.get("what"))}
    return found


def texts(node: ast.expr | None) -> set[str]:
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


# Of a tenant, or of nobody in particular: nobody finds them in his own activity.
OF_NO_PERSON = {
    "alarm", "csrf_refused", "duplicate_cookie", "hand_off_loop", "host_added", "host_removed", "host_approved", "host_changed",
    "host_not_proven",
    "isolation_probe", "link_failed", "mails_retried", "log_pruned", "log_verified", "operator_link_made", "pruned",
    "rekeyed", "restored", "tenant_added",
    "tenant_changed", "tenant_resumed", "tenant_suspended",
}  # fmt: skip


def test_every_kind_that_is_recorded_has_words() -> None:
    """Whoever records a new kind writes down here what a person reads of it, or that it is about nobody."""
    known = activity.WORDS.keys() | activity.BY_ME.keys() | OF_NO_PERSON
    assert recorded_kinds() - known == set()
    assert len(recorded_kinds()) > 30


@pytest.mark.parametrize("kind", sorted(activity.WORDS))
def test_each_kind_reads_well_with_and_without_its_data(cast: dict[str, User], visitor: Open, acme: Tenant, kind: str) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7", HTTP_USER_AGENT=EDGE)
    full: dict[str, Any] = {
        "name": "my phone", "authenticator": "my phone", "left": 7, "until": timezone.now(), "bucket": "person", "verdict": "blocked",
        "after": {"role": "admin"}, "reason": "lost the phone", "methods": ["pwd"], "slug": "acme",
    }  # fmt: skip
    odd: dict[str, Any] = {name: ["of", {"no": "use"}] for name in full}
    events.record(kind, request=request, tenant=acme, actor=cast["dave"], subject=cast["dave"], **full)
    events.record(kind, subject=cast["dave"])
    events.record(kind, subject=cast["dave"], actor=cast["erin"], request=request, **odd)
    events.record(kind, subject=cast["carol"], actor=cast["dave"], **full)
    told = read(visitor("dave"))
    assert len(told) >= 4
    for line in told:
        assert not re.search(r"%\(|\(s\)|None|\{|\[|  |_|“”", line), line


@pytest.mark.parametrize("reason", [*Session.Reason.values, "a reason from tomorrow", ["odd"], None])
def test_each_end_of_a_session_reads_well(cast: dict[str, User], visitor: Open, acme: Tenant, reason: Any) -> None:
    for tenant in (acme, None):
        events.record("session_ended", tenant=tenant, subject=cast["dave"], reason=reason, note="")
    told = read(visitor("dave"))
    assert "Acme" in told[2]
    assert "Gatehouse" in told[1]
    assert not re.search(r"_|odd|tomorrow|None", " ".join(told))


@pytest.mark.asvs("16.2.5")
def test_a_kind_without_words_shows_nothing_of_its_inside(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    request = RequestFactory().get("/", REMOTE_ADDR="192.0.2.7")
    mine = events.record("quantum_state_changed", tenant=acme, subject=cast["dave"], inner="x7y8z9", path="/console/globex/")
    events.record("quantum_state_changed", tenant=acme, actor=cast["dave"], subject=cast["carol"], request=request, inner="x7y8z9")
    dave = visitor("dave")
    told = read(dave)
    assert f"Something else was noted about your account (acme-{mine.pk})." in told
    assert not re.search("x7y8z9|quantum|globex|carol", dave.page.content.decode())


@pytest.mark.parametrize("data", [[], "text", 7, None, {"after": []}, {"left": {}}])
def test_an_event_with_odd_data_breaks_no_page(cast: dict[str, User], visitor: Open, data: Any) -> None:
    Event.objects.create(at=timezone.now(), kind="member_added", subject=cast["dave"], data=data if data is not None else {"after": None})
    assert read(visitor("dave"))[1].startswith("You belong to Gatehouse now, as member.")


def test_a_note_cannot_put_markup_into_the_page(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    events.record("session_ended", tenant=acme, subject=cast["dave"], reason="by_admin", note="<script>alert(1)</script> 100% %(who)s")
    dave = visitor("dave")
    assert "“<script>alert(1)</script> 100% %(who)s”" in unescape(dave.get(portal_url(PAGE)).content.decode())
    assert b"<script>alert" not in dave.page.content


def test_the_pages_are_walked_by_key_and_show_each_event_once(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    dave = visitor("dave")
    for n in range(130):  # of both kinds: about dave, and by dave about somebody else
        subject = cast["dave"] if n % 3 else cast["carol"]
        events.record("factor_enrolled" if n % 3 else "session_ended", actor=cast["dave"], subject=subject, tenant=acme, name=f"number {n}")
    seen, url = [], PAGE
    pages = 0
    while url:
        page = dave.get(portal_url(url))
        seen += lines(page)
        pages += 1
        found = re.search(r'href="([^"]+)">Older', page.content.decode())
        url = unescape(found[1]) if found else ""
    assert pages == 3
    numbers = [int(found[1]) for line in seen if (found := re.search(r"number (\d+)", line))]
    assert numbers == sorted((n for n in range(130) if n % 3), reverse=True)
    newer = re.search(r'href="([^"]+)">Newer', page.content.decode())
    assert newer
    assert "number" in " ".join(lines(dave.get(portal_url(unescape(newer[1])))))


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WyIxIiwgIngiXQ", "WyJhIiwgbnVsbF0", "WzEsIDFd", "%00"])
def test_a_cursor_that_is_none_of_ours_is_a_404(cast: dict[str, User], visitor: Open, cursor: str) -> None:
    assert visitor("dave").get(portal_url(f"{PAGE}?after={cursor}")).status_code in {400, 404}


def test_nothing_yet_says_what_will_appear(cast: dict[str, User], visitor: Open) -> None:
    dave = visitor("dave")
    Event.objects.all().delete()
    page = dave.get(portal_url(PAGE)).content.decode()
    assert "Nothing yet" in page
    assert "Each sign-in" in page


def test_what_the_person_no_longer_belongs_to_still_reads_well(cast: dict[str, User], visitor: Open, acme: Tenant) -> None:
    """Names that are gone are not asked for: an account or a tenant that was deleted."""
    dave = visitor("dave")
    for actor, tenant in ((999_999, None), (None, 999_999)):
        event = events.make("session_ended", reason="by_admin", note="bye")
        event.actor_id, event.tenant_id, event.subject_id = actor, tenant, cast["dave"].pk
        events.write([event])
    told = [line.partition(". ")[0] for line in read(dave)[:2]]
    assert told == ["An admin ended your session at a place that is no more", "An admin ended your session at Gatehouse"]


def test_the_list_costs_the_same_number_of_questions_however_long_it_is(
    cast: dict[str, User], visitor: Open, django_assert_max_num_queries: Any
) -> None:
    dave = visitor("dave", at="acme")
    sessions.end(Session.objects.filter(user=cast["dave"], tenant__isnull=False), by=cast["bob"], reason=Session.Reason.BY_ADMIN, note="x")
    for n in range(60):
        events.record("session_ended", subject=cast["dave"], actor=cast["bob"], reason="by_admin", n=n, note=f"{n}")
    with django_assert_max_num_queries(5):
        assert len(read(dave)) == 50


def test_no_path_of_the_page_is_missing_from_the_account_frame() -> None:
    frame = (Path(__file__).parent.parent / "templates" / "account.html").read_text()
    assert '{% url "activity" %}' in frame
