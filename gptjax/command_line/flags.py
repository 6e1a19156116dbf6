"""The flags of a command, in a separate set of absl flags, so that one process can import several commands."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from gptjax.config import ConfigError, default
from gptjax.config.base_run import NoBase, config_to_resume
from gptjax.config.user_code import load_config
from gptjax.files.paths import existing_run
from gptjax.parallel.meeting import Meeting, Timeouts, find_meeting


class Flags:
    """absl's DEFINE_ functions for the flags of one command, which `cli.run` parses when the command starts.

    By default, absl keeps the flags of all modules in one set and refuses a name that two modules define.

    Attributes:
      values: absl's values of these flags.
      config_fields: makes a config with every field that --config.FIELD=VALUE may name; None if the command has no
        --config.
    """

    def __init__(self) -> None:
        self.values = flags.FlagValues()
        self.DEFINE_string = functools.partial(flags.DEFINE_string, flag_values=self.values)
        self.DEFINE_integer = functools.partial(flags.DEFINE_integer, flag_values=self.values)
        self.DEFINE_float = functools.partial(flags.DEFINE_float, flag_values=self.values)
        self.DEFINE_bool = functools.partial(flags.DEFINE_bool, flag_values=self.values)
        self.DEFINE_enum = functools.partial(flags.DEFINE_enum, flag_values=self.values)
        self.DEFINE_list = functools.partial(flags.DEFINE_list, flag_values=self.values)
        self.DEFINE_multi_string = functools.partial(flags.DEFINE_multi_string, flag_values=self.values)
        self._own: list[str] | None = None
        self._groups: dict[str, set[str]] = {}
        self.config_fields: Callable[[], ConfigDict] | None = None

    def define_config(
        self, example: str = "configs/gpt2.py:124m", fields: Callable[[], ConfigDict] = default
    ) -> flags.FlagHolder:
        """Defines --config=FILE.py[:argument], and --config.section.field=value to override any field of it.

        Args:
          fields: makes a config with every field that may be overridden.
        """
        text = f"A config file, such as {example}; --config.section.field=value changes one of its fields."
        holder = config_flags.DEFINE_config_file("config", None, text, flag_values=self.values)
        self.values["config"].parser = _ConfigFileParser(fields)
        self.config_fields = fields
        return holder

    def define_run(self, best: str = "of those saved, the lowest validation loss") -> tuple[flags.FlagHolder, ...]:
        """Defines the flags of a command that loads a run: --workdir, --checkpoint, --ema and --own_functions.

        Args:
          best: what --checkpoint=best is, in words.
        """
        return (
            self.DEFINE_string("workdir", None, "The run's folder."),
            self.DEFINE_string("checkpoint", "latest", f"latest | best ({best}) | a step number."),
            self.DEFINE_bool(
                "ema", None, "Use the moving average of the parameters. Default: yes, if the run kept one."
            ),
            self.DEFINE_bool(
                "own_functions",
                False,
                "Import what the run's config names as module:function. Its module runs on this machine, so trust the "
                "run.",
            ),
        )

    def define_drawing(self, text: str, temperature: float) -> tuple[flags.FlagHolder, ...]:
        """Defines --max_new_tokens, --temperature, --top_k, --top_p, --min_p and --repetition_penalty.

        Args:
          text: what is drawn, with its article.
          temperature: the default.
        """
        return (
            self.DEFINE_integer("max_new_tokens", 256, f"Maximum number of tokens in {text}.", 1),
            self.DEFINE_float(
                "temperature",
                temperature,
                "Higher values give more varied text; 0: always take the most probable token.",
            ),
            self.DEFINE_integer("top_k", 0, "Draw from the k most probable tokens; 0: off."),
            self.DEFINE_float(
                "top_p", 0.95, "Draw from the most probable tokens that together have this probability; 1: off."
            ),
            self.DEFINE_float(
                "min_p", 0.0, "Drop tokens less probable than this fraction of the most probable one; 0: off."
            ),
            self.DEFINE_float(
                "repetition_penalty", 1.0, "Values above 1 make tokens that were already used less likely; 1: off."
            ),
        )

    def define_mesh(self) -> flags.FlagHolder:
        """Defines --mesh of a command whose model may be split over devices (`inference.devices.decoding_mesh`)."""
        return self.DEFINE_string(
            "mesh",
            "",
            "tensor=2: divide heads, feed-forward columns and vocabulary over two devices, or over two parts of a CPU; "
            "'': each device has the whole model.",
        )

    def define_processes(self) -> Callable[[], tuple[Meeting | None, Timeouts]]:
        """Defines the flags of a command that several processes run together.

        Returns:
          A function from the parsed flags to where the processes meet (see `find_meeting`) and how long they wait.
        """
        coordinator = self.DEFINE_string(
            "coordinator", None, "Several processes: the address of process 0, as HOST:PORT."
        )
        num_processes = self.DEFINE_integer("num_processes", None, "Several processes: their number.", lower_bound=1)
        process_id = self.DEFINE_integer(
            "process_id", None, "Several processes: the number of this one, from 0.", lower_bound=0
        )
        initialization = self.DEFINE_float(
            "initialization_timeout",
            Timeouts.initialization,
            "Several processes: seconds to wait until all have started.",
            0.0,
        )
        heartbeat = self.DEFINE_float(
            "heartbeat_timeout",
            Timeouts.heartbeat,
            "Several processes: seconds without a heartbeat after which a process counts as lost.",
            1.0,
        )
        startup = self.DEFINE_float(
            "startup_timeout",
            Timeouts.startup,
            "Several processes: seconds without progress in opening data, restoring and compiling after which the run "
            "counts as hung and ends; from the first batch on, --batch_timeout applies. 0: no limit.",
            0.0,
        )
        batch = self.DEFINE_float(
            "batch_timeout",
            Timeouts.batch,
            "Several processes: seconds without a new batch after which the run counts as hung and ends; compiling, "
            "evaluating and saving count as well. 0: no limit.",
            0.0,
        )

        def parsed() -> tuple[Meeting | None, Timeouts]:
            timeouts = Timeouts(initialization.value, heartbeat.value, batch.value, startup.value)
            return find_meeting(coordinator.value, num_processes.value, process_id.value), timeouts

        return parsed

    @property
    def own(self) -> list[flags.Flag]:
        """The flags that the command itself defines, in order of definition."""
        return [self.values[name] for name in (self.values if self._own is None else self._own)]

    def begin_group(self, title: str) -> None:
        """Lists the flags that are defined from here on under this title in --help."""
        self._groups[title] = set(self.values)

    def group_of(self, name: str) -> str:
        """The title of a flag's group; '' for flags that were defined before any group."""
        return next((title for title in reversed(self._groups) if name not in self._groups[title]), "")

    def parse(self, argv: list[str]) -> list[str]:
        """Parses the command line and returns the arguments that are not flags.

        Values that an earlier call in this process set are forgotten. absl's own flags (--verbosity …) and those of
        libraries are parsed too.
        """
        if self._own is None:
            self._own = list(self.values)
        for name in [name for name in self.values if name not in self._own]:  # absl's, and earlier --config.FIELD
            delattr(self.values, name)
        self.values.unparse_flags()
        if isinstance(parser := self.values["config"].parser if self.config_fields else None, _ConfigFileParser):
            parser.workdir = _given(argv, "workdir") if "workdir" in self._own else ""
        self.values.append_flag_values(flags.FLAGS)
        rest = self.values(argv)
        flags.FLAGS.mark_as_parsed()
        return rest


def given_run(workdir: flags.FlagHolder) -> Path:
    """Returns the folder of --workdir. A command that reads a run calls this first, before it looks at other flags.

    Raises:
      ConfigError: the flag is missing, or its folder is not that of a run.
    """
    if workdir.value is None:
        raise ConfigError("--workdir is missing: must be the folder of a training run (see --help)")
    return existing_run(workdir.value, "--workdir")


class _ConfigFileParser(flags.ArgumentParser):
    """Loads the file of --config.

    Attributes:
      workdir: the folder of a run that may be resumed. If the file needs a run that has been deleted since, the run's
        own config is taken instead.
    """

    def __init__(self, fields: Callable[[], ConfigDict]):
        self.fields = fields
        self.workdir = ""

    def parse(self, path: str) -> ConfigDict:
        try:
            return load_config(path, self.fields).lock()
        except ConfigError as error:
            if not (isinstance(gone := error.__cause__, NoBase) and self.workdir):
                raise
            if (kept := config_to_resume(self.workdir, gone.run)) is None:
                raise
            logging.warning("%s does not exist any more: the settings are those in %s", gone.run, self.workdir)
            return kept.lock()

    def flag_type(self) -> str:
        return "config file"


def _given(argv: list[str], name: str) -> str:
    """The last value of --NAME=VALUE or --NAME VALUE; '' if there is none."""
    found = ""
    for word, following in zip(argv, [*argv[1:], ""]):
        flag, equals, value = word.lstrip("-").partition("=")
        if word.startswith("-") and flag == name:
            found = value if equals else following
    return found
