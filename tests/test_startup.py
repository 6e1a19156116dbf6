"""The cost of starting a command: which modules it imports."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_training_starts_without_modules_that_only_its_end_needs():
    late = ("matplotlib", "tensorboardX", "scipy.optimize", "scipy.stats")
    code = f"import sys, gptjax.train; print([name for name in {late} if name in sys.modules])"
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert found.stdout.strip() == "[]", found.stderr
