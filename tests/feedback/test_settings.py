"""Settings of feedback: what a product's section holds, and what is refused."""

from __future__ import annotations

import pytest

from winspect.errors import SettingsError
from winspect.feedback import FeedbackSettings


def test_settings_come_back_from_their_document():
    settings = FeedbackSettings(audit_rate=0.1, keep_mb=1, file_mb=2.5, remember=10)
    assert FeedbackSettings.read(settings.document()) == settings
    assert FeedbackSettings.read({}) == FeedbackSettings()


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"audit": 0.1}, "'audit'; known are audit_rate"),
        ({"audit_rate": 1.5}, "audit_rate: got 1.5"),
        ({"audit_rate": True}, "audit_rate: got True"),
        ({"audit_rate": float("nan")}, "audit_rate: got nan"),
        ({"keep_mb": 0}, "keep_mb: got 0"),
        ({"file_mb": "64"}, "file_mb: got '64'"),
        ({"remember": 0.5}, "remember: got 0.5"),
        ([], "got \\[\\], need a table"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(document, named):
    with pytest.raises(SettingsError, match=named):
        FeedbackSettings.read(document)
