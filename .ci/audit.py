"""Known vulnerabilities of what an environment holds, by pip-audit; skipped aloud where its data cannot be reached.

    python .ci/audit.py PIP_AUDIT SITE_PACKAGES

Where pip-audit reaches no data it ends well and has audited nothing; that must not pass for a good result.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def verdict(dependencies: Sequence[dict[str, Any]]) -> tuple[int, list[str]]:
    """Exit code and lines for pip-audit's list of dependencies."""
    audited = [one for one in dependencies if "skip_reason" not in one]
    lines = [
        f"{one['name']} {one['version']}: {flaw['id']}, repaired in {', '.join(flaw['fix_versions']) or 'no release'}"
        for one in audited
        for flaw in one["vulns"]
    ]
    if not audited:
        return 0, ["AUDIT SKIPPED: the service of known vulnerabilities cannot be reached from here"]
    return int(bool(lines)), [*lines, f"{len(audited)} of {len(dependencies)} packages audited, {len(lines)} flaws"]


def main(pip_audit: str, site_packages: str) -> int:
    command = [pip_audit, "--path", site_packages, "--format", "json", "--progress-spinner", "off"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        dependencies = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        code, lines = 0, [f"AUDIT SKIPPED: pip-audit could not ask ({reason})"]
    else:
        code, lines = verdict(dependencies)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
