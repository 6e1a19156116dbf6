"""The two ways in which a command ends for a reason that the user can mend: one sentence, no traceback."""


class ConfigError(ValueError):
    """A setting that cannot work; the message names the field, the value and what is allowed."""


class RunError(RuntimeError):
    """A run that cannot go on though its settings were fine; the message says what happened and what helps."""
