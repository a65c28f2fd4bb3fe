"""Who needs a certificate, and how deploy/certificates.sh hears of it (tests/deploy/test_certificates.py lets it get some)."""

import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from identity import app_rules, hosting, platform
from identity.app_rules import Wanted
from tenants.hosts import BadHost, normalise
from tenants.models import App, Host, Tenant
from tests.test_commands import manage, told

SCRIPT = Path(__file__).parent.parent / "deploy" / "certificates.sh"
# What runs the callbacks of a transaction that a test never commits.
Commits = Callable[..., Any]


@pytest.fixture
def mark(settings: Any, tmp_path: Path) -> Path:
    settings.HOSTS_CHANGED = tmp_path / "hosts-changed"
    return tmp_path / "hosts-changed"


def test_every_host_that_people_may_come_to_is_listed_and_no_other(acme: Tenant, globex: Tenant) -> None:
    App.objects.all().delete()
    hosting.settle(acme, "id.acme.org", approved=True)
    hosting.settle(acme, "id.acme.example")  # waits to be proven
    app_rules.add(acme, Wanted("Wiki", "wiki.acme.portal.localhost"))
    platform.suspend(globex)
    gone = Tenant.objects.create(slug="gone", name="Gone", status=Tenant.Status.DELETED)
    Host.objects.create(tenant=gone, name="id.gone.org", approved_at=gone.created_at)
    assert told("hosts")["hosts"] == [
        {"host": "login.portal.localhost", "kind": "portal", "tenant": None},
        {"host": "acme.portal.localhost", "kind": "tenant", "tenant": "acme"},
        {"host": "globex.portal.localhost", "kind": "tenant", "tenant": "globex"},
        {"host": "id.acme.org", "kind": "host", "tenant": "acme"},
        {"host": "wiki.acme.portal.localhost", "kind": "app", "tenant": "acme"},
    ]


def test_the_script_can_read_the_list_without_any_right_over_others_files(acme: Tenant, tmp_path: Path) -> None:
    Tenant.objects.exclude(pk=acme.pk).delete()
    App.objects.all().delete()
    manage("hosts", "--to", str(tmp_path / "hosts"))
    assert (tmp_path / "hosts").read_text() == "login.portal.localhost portal -\nacme.portal.localhost tenant acme\n"
    assert stat.S_IMODE((tmp_path / "hosts").stat().st_mode) == 0o644
    assert manage("hosts", "--to", "-") == (tmp_path / "hosts").read_text()


def test_each_change_of_hosts_is_told_to_the_machine(acme: Tenant, mark: Path, django_capture_on_commit_callbacks: Commits) -> None:
    def tells(change: Callable[[], object]) -> bool:
        mark.unlink(missing_ok=True)
        with django_capture_on_commit_callbacks(execute=True):
            change()
            assert not mark.exists()  # not before it is true
        return mark.exists()

    assert tells(lambda: platform.add(Tenant(slug="initech", name="Initech")))
    assert tells(lambda: hosting.settle(acme, "id.acme.org"))
    assert tells(lambda: hosting.settle(acme, "id.acme.org", approved=True))
    assert tells(lambda: hosting.remove(Host.objects.get(name="id.acme.org")))
    assert tells(lambda: app_rules.add(acme, Wanted("Paper", "paper.acme.portal.localhost")))
    assert tells(lambda: app_rules.remove(App.objects.get(host="paper.acme.portal.localhost")))
    assert tells(lambda: platform.suspend(acme))
    assert tells(lambda: platform.delete(acme, reason="they left"))


@pytest.mark.django_db(transaction=True)
def test_what_did_not_happen_is_not_told(mark: Path) -> None:
    with transaction.atomic():
        platform.add(Tenant(slug="initech", name="Initech"))
        transaction.set_rollback(True)
    assert not mark.exists()


def test_a_mark_that_cannot_be_set_keeps_nobody_from_his_host(
    acme: Tenant, settings: Any, tmp_path: Path, django_capture_on_commit_callbacks: Commits
) -> None:
    settings.HOSTS_CHANGED = tmp_path / "there is no such folder" / "hosts-changed"
    with django_capture_on_commit_callbacks(execute=True):
        hosting.settle(acme, "id.acme.org", approved=True)
    assert Host.objects.filter(name="id.acme.org").exists()


def test_the_demo_tells_nobody(settings: Any) -> None:
    assert settings.DEMO
    assert settings.HOSTS_CHANGED is None


GOOD = ["login.example.com", "a.b", "xn--bcher-kva.example", "1.example", "x" * 63 + ".example", ".".join(["x" * 61] * 4) + ".org"]
HOSTILE = [
    "", ".", "..", "localhost", "-x.org", "x-.org", "*.example.com", "a b.org", "a;b.org", "a}.org", "$(id).org", "`id`.org", "../../etc/x",
    "a/b.org", "a\\b.org", "ä.org", "A.org", "10.0.0.1", "a..org", ".a.org", "a.org.", "x" * 64 + ".org", "a\nb.org", "a.org\n", "a_b.org",
    ".".join(["x" * 63] * 4) + ".org", "--help.org",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD + HOSTILE)
def test_only_what_is_a_host_becomes_the_name_of_a_file_and_a_word_of_nginx(name: str) -> None:
    function = re.search(r"^is_host\(\) \{.*?^\}", SCRIPT.read_text(), re.M | re.S)
    assert function
    done = subprocess.run(["bash", "-c", f'LC_ALL=C\n{function[0]}\nis_host "$1"', "bash", name], check=False)
    assert (done.returncode == 0) is (name in GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_what_the_script_takes_the_portal_takes_too(name: str) -> None:
    try:
        assert normalise(name) == name
    except BadHost:
        pytest.fail(f"{name} is no host to the portal")
