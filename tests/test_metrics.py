"""What Prometheus reads, who may, and the line that each request leaves in the log."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError

from identity import ledger, sessions
from identity.models import Session, User
from portal import metrics
from portal.logs import JsonFormatter, RequestFilter
from portal.settings import _networks
from tenants.models import Tenant
from tests.browser.site import new_database, seeded
from tests.servers import Portal
from tests.test_isolation_command import quiet
from tests.visitor import Visitor, portal_url, tenant_url

Open = Callable[..., Visitor]
DEPLOY = Path(__file__).parent.parent / "deploy"
LINE = re.compile(r'(?P<name>gatehouse_[a-z0-9_]+)(?:\{(?P<labels>(?:[a-z]+="[^"\\\n]*",?)+)\})? (?P<value>[0-9.e+-]+)')


@pytest.fixture
def watched(settings: Any, tmp_path: Path) -> Iterator[None]:
    """Prometheus may read, from 10.0.0.0/24."""
    settings.METRICS_FROM, settings.STATE = ["10.0.0.0/24"], tmp_path
    yield
    metrics._tallies.clear()


def read(visitor: Open) -> dict[str, float]:
    """The samples, by name and labels as they stand on the page."""
    answer = visitor(address="10.0.0.9").get(portal_url("/metrics"))
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line for line in answer.content.decode().splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in lines), [line for line in lines if not LINE.fullmatch(line)]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.asvs("13.4.5")
def test_nobody_finds_the_metrics_before_the_operator_says_who_may(
    cast: dict[str, User], visitor: Open, tmp_path: Path, settings: Any
) -> None:
    settings.STATE = tmp_path
    answer = visitor(address="127.0.0.1").get(portal_url("/metrics"))
    assert answer.status_code == 404
    assert visitor("erin").get(portal_url("/metrics")).status_code == 404
    assert not list(tmp_path.iterdir()), "and nothing is counted for nobody"


@pytest.mark.asvs("13.4.5")
def test_only_the_named_networks_read_the_metrics_and_only_at_the_portal(cast: dict[str, User], visitor: Open, watched: None) -> None:
    assert visitor(address="10.0.0.9").get(portal_url("/metrics")).status_code == 200
    for address in ("10.0.1.9", "127.0.0.1", ""):
        assert visitor(address=address).get(portal_url("/metrics")).status_code == 404
    assert visitor(address="203.0.113.9").get(portal_url("/metrics"), HTTP_X_FORWARDED_FOR="10.0.0.9").status_code == 404
    assert visitor(address="10.0.0.9").get(tenant_url("acme", "/metrics")).status_code == 404


def test_requests_are_counted_by_kind_of_page_and_class_of_status(cast: dict[str, User], visitor: Open, watched: None) -> None:
    before = read(visitor)
    for _n in range(3):
        visitor().get(portal_url("/login/"))
    visitor().get(portal_url("/console/nowhere/at/all/"))
    after = read(visitor)

    def grown(name: str) -> float:
        return after[f"gatehouse_{name}"] - before[f"gatehouse_{name}"]

    assert grown('requests_total{group="sign_in",status="2xx"}') == 3
    assert grown('requests_total{group="console",status="4xx"}') == 1
    assert grown('requests_total{group="health",status="2xx"}') == 1
    assert grown('request_seconds_count{group="sign_in"}') == grown('request_seconds_bucket{group="sign_in",le="+Inf"}') == 3
    assert grown('request_seconds_sum{group="sign_in"}') > 0
    buckets = [value for name, value in after.items() if name.startswith('gatehouse_request_seconds_bucket{group="sign_in"')]
    assert len(buckets) == len(metrics.BOUNDS) + 1
    assert buckets == sorted(buckets)


def test_the_counts_of_all_processes_add_up_and_never_go_back(tmp_path: Path) -> None:
    mine = metrics.Tally(tmp_path)
    mine.add("/login/", 200, 0.02)
    code = (
        "import sys, django, os; os.environ['DJANGO_SETTINGS_MODULE'] = 'portal.settings'; django.setup()\n"
        "from pathlib import Path; from portal.metrics import Tally\n"
        "Tally(Path(sys.argv[1])).add('/login/', 500, 7)"
    )
    for _process in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    mine.add("/login/", 200, 0.02)
    numbers = metrics.in_all(tmp_path)
    row = metrics.GROUPS.index("sign_in") * metrics._COLUMNS
    assert numbers[row : row + len(metrics.CLASSES)] == [0, 2, 0, 0, 2]
    assert numbers[row + metrics._COLUMNS - 1] == pytest.approx(14.04)
    assert len(list(tmp_path.iterdir())) == 2, "the second process went on where the first had stopped"


def test_whichever_worker_is_asked_says_the_same(tmp_path: Path) -> None:
    """A server of two processes, as in production."""
    watching = {"METRICS_FROM": "127.0.0.1", "STATE_DIRECTORY": str(tmp_path / "state")}
    with quiet(), Portal(new_database(tmp_path, of=seeded()), tmp_path, is_seeded=True, workers=2, port=0, **watching) as portal:

        def ask(path: str) -> str:
            line = HTTPConnection("127.0.0.1", portal.port, timeout=10)
            line.request("GET", path, headers={"Host": f"login.{portal.base}"})
            text = line.getresponse().read().decode()
            line.close()
            return text

        for _n in range(30):
            ask("/healthz/none")
            ask("/login/")
        told = {re.findall(r'requests_total\{group="sign_in",status="2xx"\} (\d+)', ask("/metrics"))[0] for _n in range(10)}
    assert told == {"30"}


def test_what_happens_at_the_platform_shows(cast: dict[str, User], visitor: Open, watched: None) -> None:
    visitor("dave", at="acme")
    visitor("carol")
    for _n in range(5):
        visitor().sign_in("alice", "wrong-password")
    sessions.end(Session.objects.filter(user=cast["carol"]), by=cast["erin"], reason=Session.Reason.BY_OPERATOR)
    found = read(visitor)
    assert found["gatehouse_database_up"] == 1
    assert found['gatehouse_sessions{at="portal"}'] == 1
    assert found['gatehouse_sessions{at="tenant"}'] == 1
    assert found["gatehouse_sign_ins_5m"] == 2
    assert found['gatehouse_failures_5m{what="sign_in"}'] == 5
    assert found['gatehouse_lockouts_5m{bucket="person"}'] == 1
    assert found['gatehouse_ends_5m{reason="by_operator"}'] == 1
    assert found['gatehouse_ends_5m{reason="idle"}'] == 0
    assert found["gatehouse_mails_waiting"] >= 1
    assert found["gatehouse_events_unsealed"] > 0
    assert ledger.explain("alice")[0].is_locked
    Tenant.objects.filter(slug="acme").update(status=Tenant.Status.SUSPENDED)
    assert read(visitor)['gatehouse_sessions{at="tenant"}'] == 0


@pytest.mark.asvs("16.2.5")
def test_the_metrics_name_nobody(cast: dict[str, User], visitor: Open, watched: None) -> None:
    visitor("dave", at="acme")
    visitor().sign_in("alice", "wrong-password")
    page = visitor(address="10.0.0.9").get(portal_url("/metrics")).content.decode().lower()
    for word in ("dave", "alice", "acme", "globex", "127.0.0.1", "10.0.0.9"):
        assert word not in page


def test_a_database_that_does_not_answer_is_a_figure(
    cast: dict[str, User], visitor: Open, watched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down() -> None:
        raise DatabaseError("the server closed the connection")

    monkeypatch.setattr("identity.pulse.take", down)
    found = read(visitor)
    assert found["gatehouse_database_up"] == 0
    assert 'gatehouse_requests_total{group="other",status="5xx"}' in found
    assert "gatehouse_sign_ins_5m" not in found


def test_a_folder_that_cannot_be_written_stops_no_visitor(cast: dict[str, User], visitor: Open, settings: Any, tmp_path: Path) -> None:
    (tmp_path / "metrics").write_text("in the way")
    settings.METRICS_FROM, settings.STATE = ["10.0.0.0/24"], tmp_path
    assert visitor().get(portal_url("/login/")).status_code == 200


def test_alerts_and_dashboard_ask_for_what_there_is(cast: dict[str, User], visitor: Open, watched: None) -> None:
    visitor().sign_in("alice", "wrong-password")
    there = {name.partition("{")[0] for name in read(visitor)}
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    asked = " ".join(target["expr"] for panel in board["panels"] for target in panel["targets"])
    rules = (DEPLOY / "alerts.yml").read_text()
    asked += " " + " ".join(re.findall(r"expr: (.+)", rules))
    named = set(re.findall(r"\bgatehouse_[a-z0-9_]+", asked))
    assert len(named) >= 10
    assert named <= there
    for group in set(re.findall(r'group!?[=~]+"([a-z_|]+)"', asked)):
        assert set(group.split("|")) <= set(metrics.GROUPS)
    for reason in re.findall(r'reason[=~]+"([a-z_|]+)"', asked):
        assert set(reason.split("|")) <= set(Session.Reason.values)
    for command in re.findall(r"gatehouse ([a-z]+)", " ".join(re.findall(r"cure: (.+)", rules))):
        assert list((DEPLOY.parent / "identity" / "management" / "commands").glob(f"{command}.py")) or command in {"nginx"}, command


def test_a_network_that_is_none_is_refused_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_FROM", "10.0.0.0/99")
    with pytest.raises(Exception, match=r"METRICS_FROM: “10.0.0.0/99” is no address or network. Example"):
        _networks("METRICS_FROM")


@pytest.mark.asvs("16.2.1", "16.2.5")
def test_each_request_leaves_one_line_without_query_or_link(
    cast: dict[str, User], visitor: Open, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.LOG_REQUESTS = True
    caplog.handler.addFilter(RequestFilter())
    secret = "s" * 43
    with caplog.at_level(logging.INFO, logger="gatehouse.access"):
        answer = visitor().get(portal_url(f"/password/reset/{secret}/?ticket=geheim"), follow=False)
        visitor().get(portal_url(f"/invitation/{secret}"), follow=False)
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == "gatehouse.access"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/password/reset/…/", answer.status_code),
        ("GET", "/invitation/…", 301),
    ]
    assert lines[0]["request_id"] == answer.headers["X-Request-ID"]
    assert all(line["ms"] >= 0 for line in lines)
    assert secret not in json.dumps(lines)
    assert "geheim" not in json.dumps(lines)
