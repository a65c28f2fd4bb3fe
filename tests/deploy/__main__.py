"""A booted machine for `make check`: installed on PostgreSQL, upgraded under load, maltreated, taken away.

Where no machine can be booted it says so, with the reason. With CI=true only a refusal from outside the project is one: a package
that is missing is an error.
"""

import os
import subprocess
import sys

from tests.deploy.machine import Refused, lacking, try_to_boot

FILES = ("tests/deploy/test_install.py", "tests/deploy/test_survival.py")


def main() -> int:
    print("== tests on a booted machine", flush=True)
    if lack := lacking():
        print(f"== tests on a booted machine: NOT RUN. {lack}")
        return 1 if os.environ.get("CI") == "true" else 0
    try:
        try_to_boot()
    except Refused as refused:
        print(f"== tests on a booted machine: NOT RUN. This machine boots no other:\n{refused}\n== NOT RUN", flush=True)
        return 0
    command = [sys.executable, "-m", "pytest", "-m", "deploy", "--quiet", *FILES, "-k", "local", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
