"""`make test`: every test on SQLite, then again on PostgreSQL what talks to a database.

Arguments go to pytest. What this machine has no package for is skipped and named at the end; with CI=true it is an error.
"""

import os
import subprocess
import sys

from tests.servers import Missing, find_postgresql

# What does not know which database is behind it: a browser, the page texts, what is asked over HTTP.
OF_NO_DATABASE = ("browser", "test_structure.py", "test_languages.py", "test_asvs.py", "test_isolation_command.py")


def run(database: str, *arguments: str) -> int:
    print(f"== tests on {database}", flush=True)
    environment = {**os.environ, "TEST_DATABASE": database}
    # Each file stays in one process: the browser's and the races' servers are started once.
    command = [sys.executable, "-m", "pytest", "--numprocesses=2", "--dist=loadfile", "--quiet", *arguments, *sys.argv[1:]]
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    failed = run("sqlite")
    try:
        find_postgresql()
    except Missing as missing:
        print(f"== tests on postgres: skipped. {missing}")
        return 1 if os.environ.get("CI") == "true" else failed
    return failed or run("postgres", *(f"--ignore=tests/{name}" for name in OF_NO_DATABASE))


if __name__ == "__main__":
    sys.exit(main())
