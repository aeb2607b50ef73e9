"""OpenVINO in a process: what it leaves behind when models come and go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TWO_MODELS = """
import gc, signal
import numpy as np
from winspect import WinCLIP

picture = np.zeros((240, 240, 3), np.uint8)
picture[:120] = 200
models = [WinCLIP("winspect-tiny", engine="openvino", precision="fp32") for _ in range(2)]
for model in models:
    model.predict(picture)
del model
while models:
    models.pop(0)
    gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_a_signal_after_two_models_have_gone():
    """Before: a segmentation fault, as OpenVINO's second plugin put back the signal stack of the first."""
    command = [sys.executable, "-c", TWO_MODELS]
    done = subprocess.run(command, check=False, cwd=ROOT / "src", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
