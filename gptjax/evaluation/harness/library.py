"""Imports the library lm_eval so that it uses no network, prints no progress bars and starts no processes."""

from __future__ import annotations

import logging
import os
from types import ModuleType
from typing import Any

from gptjax.errors import ConfigError

OPTION = "--harness"
OFFLINE = "HF_HUB_OFFLINE"  # "0", set by the user, allows the network
# Both are read when the libraries are imported. The command prints its own progress bars. lm_eval's bootstrap would
# fork processes, which may hang because of JAX's threads.
SETTINGS = {"TQDM_DISABLE": "1", "DISABLE_MULTIPROC": "1"}


def lm_eval() -> ModuleType:
    """Raises ConfigError if the library is not installed."""
    offline = os.environ.setdefault(OFFLINE, "1")
    for name in ("HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        os.environ.setdefault(name, offline)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import datasets
        import lm_eval
        import lm_eval.api.metrics
        import lm_eval.api.model
        import lm_eval.evaluator
        import lm_eval.tasks
        import lm_eval.utils
    except ImportError as error:
        raise ConfigError(f"{OPTION}: needs the library lm_eval ({error}): pip install 'gptjax[eval]'") from None
    datasets.disable_progress_bars()
    lm_eval.api.metrics.print = lambda *words: None  # messages of the bootstrap
    logging.getLogger("lm_eval.api.task").addFilter(_is_news)
    lm_eval.utils.env = _sandboxed(lm_eval.utils.env)
    return lm_eval


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a warning of lm_eval is about more than a metric's default aggregation and direction."""
    return "using default" not in record.getMessage()


def _sandboxed(templates: Any) -> Any:
    """lm_eval's Jinja environment, sandboxed so that the templates of task files can only read their values."""
    from jinja2.sandbox import SandboxedEnvironment

    if isinstance(templates, SandboxedEnvironment):
        return templates
    safe = SandboxedEnvironment(
        loader=templates.loader,
        undefined=templates.undefined,
        keep_trailing_newline=templates.keep_trailing_newline,
    )
    safe.filters |= templates.filters
    return safe
