#!/usr/bin/env python3
"""Writes what requirements.txt installs as a CycloneDX 1.6 document (JSON) to standard output. Needs nothing but Python.

Usage: deploy/sbom.py > gatehouse.cdx.json
"""

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def components() -> list[dict[str, object]]:
    """Each package of the lock file, with the hashes of the files that pip may take for it."""
    found: list[dict[str, object]] = []
    lock = (ROOT / "requirements.txt").read_text()
    for name, version, rest in re.findall(r"^([\w.-]+)==([^\s\\]+)((?:.*\n\s+--hash=\S+)+)", lock, re.MULTILINE):
        purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
        hashes = [{"alg": "SHA-256", "content": content} for content in re.findall(r"sha256:([0-9a-f]{64})", rest)]
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes})
    return found


def document() -> dict[str, object]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    product = {"type": "application", "name": project["name"], "version": project["version"]}
    product["licenses"] = [{"license": {"id": project["license"]}}]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": product}, "components": components()}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(__doc__)
    json.dump(document(), sys.stdout, indent=2)
    sys.stdout.write("\n")
