"""A certificate for each host, from an authority (pebble) or from files, on a booted machine: in this order, on one machine."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import missing
from tests.deploy.authority import BLOCKED, DIRECTORY, Pebble
from tests.deploy.machine import Machine, lacking
from tests.deploy.site import Site, copy

pytestmark = pytest.mark.deploy

MANAGE = "/usr/local/sbin/gatehouse"
SCRIPT = "/opt/gatehouse/current/deploy/certificates.sh"
AUTHORITY = ("--acme-email", "erin@example.com", "--acme-directory", DIRECTORY)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if lack := lacking():
        missing(lack)
    folder = tmp_path_factory.mktemp("machine")
    shared = folder / "shared"
    shared.mkdir()
    copy(shared / "first", "CHANGELOG.md", "\n")
    with Machine(folder, shared) as machine:
        lead_here(machine, "login.example.com", "acme.example.com", "globex.example.com", "id.acme.org", BLOCKED)
        Pebble(machine, shared)
        yield Site(machine, shared, "sqlite")


def lead_here(machine: Machine, *names: str) -> None:
    """What an A record does, for the machine itself and for the authority on it."""
    machine.run("sh", "-c", f"echo 127.0.0.1 {' '.join(names)} >>/etc/hosts")


def install(site: Site, *tls: str) -> str:
    names = ("--portal-url", "https://login.example.com", "--admin-email", "erin@example.com")
    return site.machine.run("/shared/first/deploy/install.sh", "--yes", *names, "--database", "sqlite", "--smtp", "none", *tls)


def shown(site: Site, host: str) -> str:
    """Issuer and serial number of the certificate that nginx shows for a name; nothing if it shakes no hands."""
    ask = f"openssl s_client -connect 127.0.0.1:443 -servername {host} </dev/null 2>/dev/null | openssl x509 -noout -issuer -serial"
    return site.machine.try_("sh", "-c", ask).stdout.strip()


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.3)


def answers(site: Site, host: str) -> bool:
    return "Pebble" in shown(site, host)


def look(site: Site, *options: str) -> str:
    """By hand; both what it says and what it warns of."""
    done = site.machine.try_(SCRIPT, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def doctor(site: Site) -> str:
    return site.machine.try_(MANAGE, "doctor", "--only", "hosts").stdout


def test_a_bare_machine_gets_a_certificate_for_its_portal(site: Site) -> None:
    said = install(site, *AUTHORITY)
    assert "login.example.com has a new certificate." in said
    link = re.search(r"https://login\.example\.com/signup/\S+", said)
    assert link, said
    site.machine.visit("sign-up", site.authority, link[0])


def test_a_new_tenant_is_served_within_seconds_and_its_owner_signs_in(site: Site) -> None:
    assert not answers(site, "acme.example.com")
    site.machine.run(MANAGE, "tenant", "add", "acme", "Acme")
    site.machine.run(MANAGE, "user", "add", "olivia", "olivia@acme.example", "--verified")
    site.machine.run(MANAGE, "member", "add", "acme", "olivia", "--role", "owner")
    link = re.search(r"https://login\.example\.com/\S+", site.machine.run(MANAGE, "user", "link", "olivia"))
    assert link
    wait_for(lambda: answers(site, "acme.example.com"))
    site.machine.visit("set-password", site.authority, link[0])


def test_a_second_tenant_has_its_own_certificate(site: Site) -> None:
    site.machine.run(MANAGE, "tenant", "add", "globex", "Globex", "--owner", "olivia")
    wait_for(lambda: answers(site, "globex.example.com"))
    assert len({shown(site, f"{name}.example.com") for name in ("login", "acme", "globex")}) == 3
    site.machine.visit("come-in", site.authority, "globex.example.com")


def test_a_tenants_own_domain_likewise(site: Site) -> None:
    site.machine.run(MANAGE, "tenant", "host", "add", "acme", "id.acme.org")
    wait_for(lambda: answers(site, "id.acme.org"))
    site.machine.visit("come-in", site.authority, "id.acme.org")
    status = site.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "http://id.acme.org/x")
    assert status == "301 https://id.acme.org/x"


def test_a_name_that_is_not_ours_learns_nothing(site: Site) -> None:
    assert shown(site, "stranger.example.net") == ""
    for path in ("/", "/.well-known/acme-challenge/guess", "/.well-known/acme-challenge/"):
        asked = ("curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{errormsg}", "-H", "Host: stranger.example.net")
        assert site.machine.try_(*asked, f"http://127.0.0.1{path}").stdout == "000 Empty reply from server"


def test_a_host_that_dns_does_not_lead_here_fails_alone_and_gets_its_own_when_it_does(site: Site) -> None:
    site.machine.run(MANAGE, "tenant", "host", "add", "globex", "id.globex.org")
    site.machine.run(MANAGE, "tenant", "add", "initech", "Initech")
    wait_for(lambda: "no address" in site.machine.try_("cat", "/var/lib/gatehouse-certificates/waiting/initech.example.com").stdout)
    wait_for(lambda: "id.globex.org has no certificate" in site.machine.run("journalctl", "-u", "gatehouse-certificates"))
    assert "FAILURE  id.globex.org: DNS knows no address of it." in doctor(site)
    assert answers(site, "acme.example.com")

    lead_here(site.machine, "id.globex.org")
    assert "No new certificate: DNS knows no address of it" in doctor(site)
    site.machine.run("systemctl", "start", "gatehouse-certificates")  # as the timer does
    wait_for(lambda: answers(site, "id.globex.org"))
    assert "id.globex.org" not in doctor(site)
    site.machine.visit("come-in", site.authority, "id.globex.org")


def test_what_the_authority_refuses_is_not_asked_for_again_at_once(site: Site) -> None:
    site.machine.run(MANAGE, "tenant", "host", "add", "globex", BLOCKED)
    wait_for(lambda: "the authority says: urn:ietf:params:acme:error:rejectedIdentifier" in doctor(site))
    asked = site.machine.run("grep", "-c", BLOCKED, "/var/lib/gatehouse-certificates/asked")
    assert f"{BLOCKED} has no certificate yet: the authority says: " in look(site)
    assert site.machine.run("grep", "-c", BLOCKED, "/var/lib/gatehouse-certificates/asked") == asked
    assert "the authority says: " in look(site, "--now", BLOCKED)
    assert site.machine.run("grep", "-c", BLOCKED, "/var/lib/gatehouse-certificates/asked") != asked
    site.machine.run(MANAGE, "tenant", "host", "remove", "globex", BLOCKED)


def test_a_tenant_with_many_hosts_does_not_use_up_what_the_authority_grants_to_all(site: Site) -> None:
    """It has had two: with eight more in these days it has to wait, and nobody else has."""
    had = "for n in 1 2 3 4 5 6 7 8; do echo $(date +%s) acme $n.acme.org; done >>/var/lib/gatehouse-certificates/asked"
    site.machine.run("sh", "-c", had)
    lead_here(site.machine, "new.acme.org", "new.globex.org")
    site.machine.run(MANAGE, "tenant", "host", "add", "acme", "new.acme.org")
    site.machine.run(MANAGE, "tenant", "host", "add", "globex", "new.globex.org")
    wait_for(lambda: answers(site, "new.globex.org"))
    assert "new.acme.org has no certificate: acme has had certificates for 10 hosts in seven days" in look(site)
    assert "new.acme.org has a new certificate." in look(site, "--now", "new.acme.org")


def test_an_app_is_served_here_if_its_name_leads_here(site: Site) -> None:
    lead_here(site.machine, "wiki.acme.example.com")
    site.machine.run(MANAGE, "tenant", "app", "add", "acme", "Wiki", "wiki.acme.example.com")
    site.machine.run(MANAGE, "tenant", "app", "add", "acme", "Paper", "paper.acme.example.com")
    assert "paper" not in look(site, "--now")
    wait_for(lambda: answers(site, "wiki.acme.example.com"))


def test_given_files_come_first_if_they_are_good(site: Site) -> None:
    given = "/etc/gatehouse/tls/acme.example.com"
    site.machine.run("mkdir", "-p", given)
    make = f"openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=Given -keyout {given}/privkey.pem -out {given}/fullchain.pem"
    site.machine.run("sh", "-c", f"{make} -addext subjectAltName=DNS:acme.example.com 2>&1")
    look(site)
    wait_for(lambda: "CN = Given" in shown(site, "acme.example.com"))
    site.machine.run("cp", "/shared/pebble.key", f"{given}/privkey.pem")
    assert "your certificate for it is not used" in look(site)
    wait_for(lambda: answers(site, "acme.example.com"))
    site.machine.run("rm", "-r", given)
    look(site)


def test_a_removed_host_is_served_no_more(site: Site) -> None:
    site.machine.run(MANAGE, "tenant", "host", "remove", "acme", "id.acme.org")
    wait_for(lambda: shown(site, "id.acme.org") == "")
    assert answers(site, "acme.example.com")


def test_nginx_shows_what_was_renewed(site: Site) -> None:
    before = shown(site, "globex.example.com")
    assert "globex.example.com has a new certificate." in look(site, "--renew", "globex.example.com")
    wait_for(lambda: shown(site, "globex.example.com") != before)
    assert answers(site, "globex.example.com")


def test_root_takes_no_orders_from_the_services_home(site: Site) -> None:
    """Whoever has got hold of the service may write there."""
    machine, home, place = site.machine, "/var/lib/gatehouse", "/var/lib/gatehouse-certificates"
    plant = f"for version in 3.11 3.13; do d={home}/.local/lib/python$version/site-packages; mkdir -p $d;"
    machine.run(
        "sh", "-c", f"{plant} echo \"open('{place}/ran', 'w')\" >$d/usercustomize.py; done; echo 'output = {place}/taken' >{home}/.curlrc"
    )
    machine.run("chown", "-R", "gatehouse", f"{home}/.local", f"{home}/.curlrc")
    opens = f"while sleep 0.02; do chmod 0755 {home}; done"  # systemd closes it again whenever it starts something
    machine.run("systemd-run", "--quiet", "--unit=opens", "--uid=gatehouse", "sh", "-c", opens)
    lead_here(machine, "late.example.com")
    machine.run(MANAGE, "tenant", "add", "late", "Late")
    wait_for(lambda: answers(site, "late.example.com"))
    machine.run("systemctl", "stop", "opens")
    assert machine.run("find", place, "-name", "ran", "-o", "-name", "taken") == ""
    machine.run("rm", "-r", f"{home}/.local", f"{home}/.curlrc")


def test_a_second_run_changes_nothing(site: Site) -> None:
    before = site.files()
    assert "has a new certificate" not in look(site)
    site.machine.run("systemctl", "start", "gatehouse-certificates")
    assert "Nothing to change: everything is as you asked." in site.machine.run("/shared/first/deploy/install.sh", "--yes")
    assert site.files() == before


def test_hostile_names_do_nothing(site: Site) -> None:
    """As if somebody had got hold of the service and wrote the list himself."""
    names = ["../../etc/x", "a;b.example.com", "$(touch${IFS}/x).org", "-x.example.com", "a.example.com}", "*.example.com", "10.0.0.1", "x"]
    (site.shared / "hostile").write_text("login.example.com portal -\n" + "".join(f"{name} host acme\n" for name in names))
    site.machine.run(SCRIPT, "--prepare", "/shared/hostile")
    for file in ("names.conf", "servers.conf"):
        text = site.machine.run("cat", f"/var/lib/gatehouse-certificates/{file}")
        assert re.findall(r"server_name (.*);", text) == (["login.example.com"] if file == "servers.conf" else [])
    assert site.machine.try_("ls", "/x").returncode != 0
    (site.shared / "hostile").write_text("acme.example.com tenant acme\n")
    done = site.machine.try_(SCRIPT, "--prepare", "/shared/hostile")
    assert "the list of hosts has no portal; everything stays as it is" in done.stderr


def test_a_configuration_that_nginx_does_not_take_leaves_what_runs(site: Site) -> None:
    lead_here(site.machine, "hooli.example.com")
    site.machine.run("systemctl", "stop", "gatehouse-certificates.path")
    site.machine.run("systemctl", "start", "gatehouse-certificates")  # none is at work any more
    site.machine.run("sh", "-c", "echo nonsense >/etc/nginx/conf.d/broken.conf")
    before = site.machine.run("cat", "/etc/nginx/gatehouse.d/servers.conf")
    site.machine.run(MANAGE, "tenant", "add", "hooli", "Hooli")
    done = site.machine.try_(SCRIPT)
    assert done.returncode == 1
    assert "nginx does not take its configuration; what runs goes on as it was" in done.stderr
    assert site.machine.run("cat", "/etc/nginx/gatehouse.d/servers.conf") == before
    assert answers(site, "acme.example.com")
    site.machine.run("rm", "/etc/nginx/conf.d/broken.conf")
    site.machine.run("systemctl", "start", "gatehouse-certificates.path")  # the file that it waits for is there
    wait_for(lambda: answers(site, "hooli.example.com"))


def test_a_host_with_a_server_of_its_own_keeps_it(site: Site) -> None:
    own = "server { listen 80; listen [::]:80; server_name\n  wiki.example.net id.globex.org; return 200 mine; } # of a site"
    site.machine.run("sh", "-c", f"printf '%s' '{own}' >/etc/nginx/conf.d/own.conf")
    look(site)
    wait_for(lambda: site.machine.run("curl", "-s", "http://id.globex.org/") == "mine")  # nginx lets old workers end in peace
    assert "id.globex.org" not in site.machine.run("sh", "-c", "cat /etc/nginx/gatehouse.d/*")
    site.machine.run("rm", "/etc/nginx/conf.d/own.conf")
    look(site)
    wait_for(lambda: answers(site, "id.globex.org"))


def test_a_given_certificate_serves_whom_it_covers_and_the_rest_is_named(site: Site) -> None:
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=Wild"]
    files = ["-keyout", str(site.shared / "wild.key"), "-out", str(site.shared / "wild.pem")]
    subprocess.run([*make, "-addext", "subjectAltName=DNS:*.example.com", *files], check=True, capture_output=True)
    given = ("--tls-cert", "/shared/wild.pem", "--tls-key", "/shared/wild.key")
    install(site, *given)
    wait_for(lambda: "CN = Wild" in shown(site, "login.example.com"))
    wait_for(lambda: "CN = Wild" in shown(site, "globex.example.com"))
    wait_for(lambda: shown(site, "id.globex.org") == "")
    assert "id.globex.org has no certificate: the given one does not cover it" in look(site)
    install(site, *given, *AUTHORITY)
    wait_for(lambda: answers(site, "id.globex.org"))
    assert "CN = Wild" in shown(site, "globex.example.com")


def test_behind_a_proxy_a_tenants_own_domain_is_heard(site: Site) -> None:
    install(site, "--behind-proxy", "127.0.0.2")
    asked = ("--interface", "127.0.0.2", "-H", "Host: id.globex.org", "-H", "X-Forwarded-Proto: https")
    assert site.machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *asked, "http://127.0.0.1/welcome/") == "200"


def test_uninstall_leaves_the_keys(site: Site) -> None:
    site.machine.run("/opt/gatehouse/current/deploy/uninstall.sh", "--yes")
    assert site.machine.run("ls", "/etc/gatehouse/acme/live/login.example.com/privkey.pem")
    assert site.machine.try_("ls", "/etc/nginx/gatehouse.d").returncode != 0
    assert site.machine.try_("systemctl", "list-unit-files", "--no-legend", "gatehouse*").stdout == ""
