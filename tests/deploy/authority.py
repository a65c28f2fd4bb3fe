"""A certificate authority on a booted machine, for every name that leads to it: pebble, Let's Encrypt's own for tests."""

import json
import subprocess
import time
from pathlib import Path

from tests.deploy.machine import Machine

DIRECTORY = "https://127.0.0.1:14000/dir"
BLOCKED = "blocked.example.net"  # it gives this name none


class Pebble:
    """Its root, which browsers are to trust, is in shared/cert.pem."""

    def __init__(self, machine: Machine, shared: Path) -> None:
        self.machine = machine
        make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        files = ["-keyout", str(shared / "pebble.key"), "-out", str(shared / "pebble.crt")]
        subprocess.run([*make, "-subj", "/CN=pebble", "-addext", "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
        settings = {
            "listenAddress": "127.0.0.1:14000",
            "managementListenAddress": "127.0.0.1:15000",
            "certificate": "/shared/pebble.crt",
            "privateKey": "/shared/pebble.key",
            "httpPort": 80,
            "tlsPort": 443,
            "domainBlocklist": [BLOCKED],
        }
        (shared / "pebble.json").write_text(json.dumps({"pebble": settings}))
        machine.run("apt-get", "-qq", "install", "--no-install-recommends", "pebble", "curl", "openssl")
        machine.run("cp", "/shared/pebble.crt", "/usr/local/share/ca-certificates/pebble.crt")
        machine.run("update-ca-certificates")
        calm = ("--setenv=PEBBLE_VA_NOSLEEP=1", "--setenv=PEBBLE_WFE_NONCEREJECT=0", "--setenv=PEBBLE_AUTHZREUSE=0")
        machine.run("systemd-run", "--quiet", "--unit=pebble", *calm, "pebble", "-config", "/shared/pebble.json")
        until = time.monotonic() + 20
        while time.monotonic() < until and not (root := self._ask("roots/0")):
            time.sleep(0.2)
        (shared / "cert.pem").write_text(root)
        machine.run("cp", "/shared/cert.pem", "/usr/local/share/ca-certificates/root.crt")
        machine.run("update-ca-certificates")

    def _ask(self, path: str) -> str:
        return self.machine.try_("curl", "-s", f"https://127.0.0.1:15000/{path}").stdout
