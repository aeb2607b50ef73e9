"""An audit that reached no data is said to be skipped, not passed."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

AUDIT = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "audit.py"))

SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.0)"}
GOOD = {"name": "pillow", "version": "12.0", "vulns": []}
BAD = {"name": "torch", "version": "2.9", "vulns": [{"id": "CVE-2026-24747", "fix_versions": ["2.10.0"]}]}


@pytest.mark.parametrize(
    ("dependencies", "code", "words"),
    [
        ([], 0, "AUDIT SKIPPED"),
        ([SKIPPED], 0, "AUDIT SKIPPED"),
        ([SKIPPED, GOOD], 0, "1 of 2 packages audited, 0 flaws"),
        ([GOOD, BAD], 1, "torch 2.9: CVE-2026-24747, repaired in 2.10.0"),
    ],
)
def test_verdicts(dependencies, code, words):
    found, lines = AUDIT["verdict"](dependencies)
    assert found == code
    assert words in "\n".join(lines)


def test_an_auditor_that_cannot_ask_is_said(tmp_path, capsys):
    broken = tmp_path / "pip-audit"
    broken.write_text("#!/bin/sh\necho no route to host >&2\nexit 1\n")
    broken.chmod(0o755)
    assert AUDIT["main"](str(broken), str(tmp_path)) == 0
    assert capsys.readouterr().out == "AUDIT SKIPPED: pip-audit could not ask (no route to host)\n"
