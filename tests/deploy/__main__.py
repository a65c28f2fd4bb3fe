"""A booted machine for `make check`: what is essential, on PostgreSQL.

Where no machine can be booted it says so, with the reason. With CI=true only a refusal from outside the project is one: a package
that is missing is an error.
"""

import os
import subprocess
import sys

from tests.deploy.machine import Refused, lacking, try_to_boot


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
    command = [sys.executable, "-m", "pytest", "-m", "essential", "--quiet", "tests/deploy", "-k", "local", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
