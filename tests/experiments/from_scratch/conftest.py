"""The scripts of experiments/from_scratch import each other by name, as when they run."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[3] / "experiments" / "from_scratch"))
