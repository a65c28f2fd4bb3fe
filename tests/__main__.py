"""`make test`: every test on SQLite, then again on PostgreSQL what asks a database more than its pages do.

Arguments go to pytest. What this machine has no package for is skipped and named at the end; with CI=true it is an error.
"""

import os
import subprocess
import sys

from tests.servers import Missing, find_postgresql

# What does not know which database is behind it: a browser, the page texts, what is asked over HTTP.
OF_NO_DATABASE = (
    "browser", "test_structure.py", "test_languages.py", "test_asvs.py", "test_isolation_command.py", "test_front.py", "test_lines_out.py",
    "test_supply.py", "test_regexes.py", "test_security_page.py", "test_operators_page.py", "test_deploy.py", "test_variables.py",
    "test_server.py",
)  # fmt: skip
# Pages and forms whose questions to the database other files ask, too. On both with FULL=1.
OF_PAGES = (
    "test_roles.py", "test_settings.py", "test_passwords.py", "test_trusted_browsers.py", "test_two_factor.py", "test_profile.py",
    "test_hosts.py", "test_cookies.py", "test_half_way.py", "test_required_factor.py", "test_factor_policy.py", "test_lockouts.py",
    "test_activity.py", "test_accounts.py",
)  # fmt: skip


def run(database: str, *arguments: str) -> int:
    print(f"== tests on {database}", flush=True)
    environment = {**os.environ, "TEST_DATABASE": database}
    # Each file stays in one process: the browser's and the races' servers are started once. In the order of tests/conftest.py.
    spread = ["--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", "--quiet", *spread, *arguments, *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    failed = run("sqlite")
    try:
        find_postgresql()
    except Missing as missing:
        print(f"== tests on postgres: skipped. {missing}")
        return 1 if os.environ.get("CI") == "true" else failed
    without = OF_NO_DATABASE if os.environ.get("FULL") else (*OF_NO_DATABASE, *OF_PAGES)
    return failed or run("postgres", *(f"--ignore=tests/{name}" for name in without))


if __name__ == "__main__":
    sys.exit(main())
