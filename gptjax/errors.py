"""The two errors that a user can fix. A command reports them in one sentence, without a traceback."""


class ConfigError(ValueError):
    """A setting is invalid; the message names the field, the value and what is allowed."""


class RunError(RuntimeError):
    """A run with valid settings cannot continue. The message says what happened and what to do."""


def setting_text(name: str, value: object) -> str:
    """Begins a message about a setting: '--workdir=runs/mine' for a flag, 'data.path = data/mine' for a field."""
    return f"{name}={value}" if name.startswith("--") and "=" not in name else f"{name} = {value}"
