"""The errors that a command reports in one sentence, without a traceback."""

BY_SIGNAL = 128  # the exit status of a command that a signal ended is this plus the signal's number


class ConfigError(ValueError):
    """A setting is invalid; the message names the field, the value and what is allowed."""


class RunError(RuntimeError):
    """A run with valid settings cannot continue. The message says what happened and what to do.

    Attributes:
      status: the exit status of the command.
    """

    status = 1


class EndedBySignal(RunError):
    """A signal has ended the run before there was anything to save. Shells report such a status as well."""

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.status = BY_SIGNAL + number


def error_with(message: str, status: int) -> ConfigError | RunError:
    """The error with which a command exits with this status."""
    if status == 2:
        return ConfigError(message)
    return EndedBySignal(message, status - BY_SIGNAL) if status > BY_SIGNAL else RunError(message)


def setting_text(name: str, value: object) -> str:
    """Begins a message about a setting: '--workdir=runs/mine' for a flag, 'data.path = data/mine' for a field."""
    return f"{name}={value}" if name.startswith("--") and "=" not in name else f"{name} = {value}"
