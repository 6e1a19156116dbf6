"""A stage of the pipeline: its name and version, its function, options and inputs, and the use of its results.

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
from gptjax.config.named_functions import named_function
from gptjax.corpus.engine import Task
from gptjax.corpus.plain import plain

if TYPE_CHECKING:
    from gptjax.corpus.state import Corpus


class CorpusStage:
    """A stage.

    Attributes:
      name: the name of its folder in work/, and its name in messages and the manifest. Name, `version`, options and
        inputs decide whether a task is already done; the place of the code does not matter.
      version: raise it when a change of the code changes the output.
      function: (task, folder) → report, at the top level of a module: writes files into the folder, the same bytes
        whenever and wherever it runs, and returns JSON (engine/stage.py).
      after: only for a user's stage: the name of the stage that it follows, one of `config.PLACES`.
    """

    name: str
    version: int = 1
    function: Callable[[Task, Path], dict]
    after: str = "select"

    def check(self, corpus: Corpus) -> None:
        """Raises ConfigError for mistakes that can be found before any document is read."""

    def is_wanted(self, corpus: Corpus) -> bool:
        """Whether the config asks for it."""
        return True

    def options(self, corpus: Corpus) -> dict[str, Any]:
        """Everything besides the inputs on which the output depends (JSON): `task.options` of its function."""
        return {}

    def tasks(self, corpus: Corpus) -> tuple[Sequence[Any], Sequence[int]]:
        """(inputs, bytes) of its tasks: inputs are JSON, `task.inputs` of its function.

        Inputs name files of earlier stages by their entries, and 'libraries' has the versions of the libraries that
        decide the output (libraries.py).
        """
        return corpus.inputs()

    def finish(self, corpus: Corpus, results: list[dict]) -> None:
        """Adds the results to the corpus: for each task {'files': {name: entry}, 'report': …}, in the tasks' order."""

    def to_json(self) -> dict[str, Any]:
        """What the manifest and the hash of the config have of a user's stage."""
        return {"name": self.name, "version": self.version, "after": self.after, **plain(vars(self))}

    def run(self, corpus: Corpus) -> None:
        """Runs the tasks that are not done yet."""
        self.finish(corpus, corpus.run(self, *self.tasks(corpus)))


def importable_name(field: str, function: Callable) -> str:
    """'module:function' of a stage's function.

    Raises:
      ConfigError: workers cannot import it, because it is defined in the config file or inside another function.
    """
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', '')}"
    try:
        found = named_function(field, name)
    except ConfigError:
        found = None
    if found is not function:
        raise ConfigError(
            f"{field}: its function must be at the top level of a module that other processes can import, "
            "not in the config file itself"
        )
    return name
