"""Writers that are killed at any moment: the log is whole, and no answer that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from feedback.logs import feedback_of, picture

from winspect.feedback.feedback import Feedback
from winspect.feedback.verifying import verify

WRITER = """
import json, sys
from pathlib import Path
from winspect.feedback.feedback import Feedback
from winspect.feedback.settings import FeedbackSettings
feedback = Feedback(Path(sys.argv[1]), FeedbackSettings(file_mb=0.002))
for id in json.loads(sys.argv[2]):
    feedback.judge(id, "good", by="anna")
    print(id, flush=True)
"""
KILLS = 8


def test_no_acknowledged_answer_is_lost_over_kills(tmp_path):
    pictures = [picture(0.9) for _ in range(200)]
    feedback_of(tmp_path, *pictures)
    left, said = [entry["id"] for entry in pictures], []
    for kill in range(KILLS):
        path = os.pathsep.join([str(Path(each).resolve()) for each in sys.path if each])
        command = [sys.executable, "-c", WRITER, str(tmp_path), json.dumps(left)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
        ) as own:
            said.append(own.stdout.readline().strip())
            time.sleep(0.003 * kill)
            own.send_signal(signal.SIGKILL)
            said += own.stdout.read().split()
        left = [entry["id"] for entry in pictures if entry["id"] not in said]
    assert not [each for each in verify(tmp_path).problems if each.kind != "cut"]
    feedback = Feedback(tmp_path)
    with feedback.writing() as (records, _):  # repairs the last kill's half line
        assert len(said) >= KILLS and all(records.standing(id) is not None for id in said)
    assert not verify(tmp_path).problems
