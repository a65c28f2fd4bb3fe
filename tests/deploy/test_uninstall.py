"""The end of a portal, after everything else."""

import pytest

from tests.deploy.site import Site

pytestmark = [pytest.mark.deploy, pytest.mark.essential]


def test_uninstall_leaves_the_data_and_install_brings_the_people_back(portal: Site) -> None:
    said = portal.machine.run("/opt/gatehouse/current/deploy/uninstall.sh", "--yes")
    assert "/var/lib/gatehouse" in said or "the database gatehouse" in said
    assert portal.machine.try_("ls", "/opt/gatehouse").returncode != 0
    assert portal.machine.try_("systemctl", "cat", "gatehouse@blue").returncode != 0
    assert "operator link" not in portal.install()
    portal.machine.visit("still-in", portal.authority)
