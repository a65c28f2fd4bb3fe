"""The main job, told once from end to end."""

from collections.abc import Callable

import pytest

from identity import sessions
from identity.models import Session, User
from tests.visitor import Visitor, portal_url, tenant_url


@pytest.mark.asvs("7.4.5")
def test_dave_signs_in_once_and_bob_ends_his_session_at_acme(cast: dict[str, User], visitor: Callable[..., Visitor]) -> None:
    dave = visitor("dave", at="acme")
    assert dave.url == tenant_url("acme")
    assert "Good" in dave.page.content.decode()

    dave.get(tenant_url("globex"))
    assert dave.url == tenant_url("globex")
    assert not any("/login/" in url for url in dave.trail)

    bob = visitor("bob", at="acme")
    bob.get(tenant_url("acme", "/_portal/console"))
    assert bob.url == portal_url("/console/acme/")
    bob.get(portal_url("/console/acme/sessions/"))
    row = dave.session("acme")
    assert f'data-session="{row.pk}"' in bob.page.content.decode()
    answer = bob.post(portal_url("/console/acme/sessions/end"), {"ids": [str(row.pk)], "reason": "Laptop lost"}, follow=False)
    assert (answer.status_code, answer["Location"]) == (303, "/console/acme/sessions/")

    assert not dave.is_in("acme")
    assert dave.is_in("globex")
    assert dave.is_in()
    page = dave.get(tenant_url("acme")).content.decode()
    assert "Bob Marsh, admin of Acme" in page
    assert "Laptop lost" in page

    dave.get(tenant_url("acme", "/_portal/start?again=1&next=/"))
    assert dave.url.startswith(portal_url("/step-up/"))
    dave.post(dave.url, {"password": "gatehouse-demo"})
    assert dave.url == tenant_url("acme")


def test_a_visitor_leaves_no_row(cast: dict[str, User], visitor: Callable[..., Visitor]) -> None:
    for url in (
        portal_url("/login/"),
        tenant_url("acme"),
        tenant_url("acme", "/welcome/"),
        portal_url("/signup/"),
        portal_url("/account/"),
    ):
        visitor().get(url)
    assert Session.objects.count() == 0
    assert sessions.live(["x" * 43], None) == []
