"""Attacks on the consoles that worked once. Each has its promise here."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, transaction

from identity import panic, sessions
from identity.members import COMMAND_LINE
from identity.models import Session, TotpDevice, User
from identity.sessions import Verdict, admission
from tenants.models import Tenant
from tests.conftest import PASSWORD
from tests.phone import enrol, first_code, hidden
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
WHY = "Somebody is guessing"


# --- An end is an end: a change of one's own secrets is no proof for a place that has ended something since -------------


def add_authenticator(browser: Visitor, name: str) -> None:
    browser.get(portal_url("/account/two-factor/add/"))
    browser.post(browser.url, {"code": first_code(name), "device": hidden(browser, "device"), "name": "Another"})


def change_password(browser: Visitor, name: str) -> None:
    new = "three little words"
    browser.post(portal_url("/account/password/"), {"old_password": PASSWORD, "new_password1": new, "new_password2": new})


def drop_authenticator(browser: Visitor, name: str) -> None:
    device = TotpDevice.objects.filter(user__username=name, confirmed=True).latest("created_at")
    browser.post(portal_url(f"/account/two-factor/{device.pk}/remove/"), {"sure": "1"})


def end_of_one(acme: Tenant) -> None:
    sessions.end(Session.objects.filter(tenant=acme), by=None, reason=Session.Reason.BY_ADMIN)


def end_of_all(acme: Tenant) -> None:
    panic.end_everything(acme, by=COMMAND_LINE, note=WHY)


def demand(acme: Tenant) -> None:
    panic.demand_proof(acme, by=COMMAND_LINE, note=WHY)


@pytest.mark.parametrize("end", [end_of_one, end_of_all, demand])
@pytest.mark.parametrize("change", [add_authenticator, change_password, drop_authenticator])
@pytest.mark.asvs("7.4.1")
def test_a_change_of_ones_secrets_is_no_way_round_an_end(acme: Tenant, globex: Tenant, visitor: Open, change: Any, end: Any) -> None:
    """Within ten minutes of a proof nobody is asked for another one, and such a change gives the tree a later proof."""
    dave = visitor("dave", at="acme")
    enrol(dave, "dave")
    dave.get(tenant_url("globex"))
    dave.get(tenant_url("acme"))
    assert dave.is_in("acme")
    end(acme)
    before = dave.session()
    assert admission(before, "acme").verdict is Verdict.PROVE
    change(dave, "dave")
    after = dave.session()
    assert after.authenticated_at > before.authenticated_at, "the change was made"
    assert admission(after, "acme").verdict is Verdict.PROVE
    assert not dave.is_in("acme")
    assert dave.is_in("globex"), "where nothing has ended, the tree goes on"
    assert admission(after, "globex").verdict is Verdict.OPEN


@pytest.mark.asvs("7.4.1", "15.4.2")
@pytest.mark.django_db(transaction=True)
def test_no_branch_outlives_an_end_of_everything_by_a_change_under_way(acme: Tenant, visitor: Open) -> None:
    """The end has its stamp and is not committed yet; the new password would give the branch a proof from after the stamp."""
    dave = visitor("dave", at="acme")
    person, root = User.objects.get(username="dave"), dave.session()
    stamped, changed = threading.Event(), threading.Event()

    def end() -> None:
        try:
            with transaction.atomic():
                sessions.stamp_tenant(Tenant.objects.get(pk=acme.pk))
                stamped.set()
                changed.wait(0.5)  # it waits for this end, so this is how long it gets
        finally:
            connection.close()

    def change() -> None:
        try:
            stamped.wait(20)
            sessions.change_password(person, "three little words", by=person, request=None, spare=root)
            changed.set()
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(end), pool.submit(change)]:
            each.result(60)
    assert dave.is_in(), "the tree goes on"
    assert not dave.is_in("acme")
    assert admission(dave.session(), "acme").verdict is Verdict.PROVE
