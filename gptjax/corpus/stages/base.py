"""A stage of the pipeline: its name and version, its function, its options and inputs, and what becomes of its results.

The pipeline is a list of such objects (pipeline.py). Your own stage is a class like those of the project, in a
module that can be imported; put an object of it into the field `stages` of a config:

    class Shorten(CorpusStage):
        name, version, function = "shorten", 1, staticmethod(shorten)  # shorten(task, folder) -> report
        after = "select"

        def finish(self, corpus, results):
            for shard, result in zip(corpus.shards, results):
                shard.documents = result["files"]["documents.parquet"]

For a function of one document at a time, `gptjax.corpus.config.stage(…)` is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptjax.config import ConfigError
from gptjax.corpus.engine import Task
from gptjax.user_code import named_function

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus


class CorpusStage:
    """A stage.

    Attributes:
      name: of its folder in work/, and what messages and the manifest say. Together with `version`, the options and the
        inputs it decides whether a task is done already: where the code stands does not matter.
      version: raise it when the code changes what comes out.
      function: (task, folder) → report, at the top of a module: writes files into the folder, the same bytes whenever
        and wherever it runs, and returns JSON (engine/stage.py).
      after: only for a stage of the user's: the name of the stage that it follows, one of `config.PLACES`.
    """

    name: str
    version: int = 1
    function: Callable[[Task, Path], dict]
    after: str = "select"

    def check(self, corpus: Corpus) -> None:
        """Raises ConfigError for what can be known to be wrong before any document is read."""

    def is_wanted(self, corpus: Corpus) -> bool:
        """Whether the config asks for it."""
        return True

    def options(self, corpus: Corpus) -> dict[str, Any]:
        """What the outcome depends on beside the inputs (JSON): `task.options` of its function."""
        return {}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        """(inputs, bytes) of its tasks: inputs are JSON, `task.inputs` of its function.

        Files of earlier stages stand there as their entries, and under 'libraries' the versions of those that decide
        what comes out (libraries.py).
        """
        return corpus.inputs()

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        """Tells the corpus what came out: for each task {'files': {name: entry}, 'report': …}, in the tasks' order."""

    def run(self, corpus: Corpus) -> None:
        """Does the tasks that are not done yet."""
        self.finish(corpus, corpus.run(self, *self.tasks(corpus)))


def importable_name(field: str, function: Callable) -> str:
    """'module:function' of a stage's function.

    Raises:
      ConfigError: workers could not import it, as it stands in the config file itself or within another function.
    """
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        found = named_function(field, name)
    except ConfigError:
        found = None
    if found is not function:
        raise ConfigError(
            f"{field}: its function must stand at the top of a module that other processes can import, "
            "not in the config file itself"
        )
    return name
