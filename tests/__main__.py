"""`make test`: every test on SQLite, then again on PostgreSQL what talks to a database.

Arguments go to pytest. What this machine has no package for is skipped and named at the end; with CI=true it is an error.
"""

import os
import subprocess
import sys

from tests.servers import Missing, find_postgresql


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
    # A browser and the page texts do not know which database is behind them.
    return failed or run("postgres", "--ignore=tests/browser", "--ignore=tests/test_structure.py")


if __name__ == "__main__":
    sys.exit(main())
