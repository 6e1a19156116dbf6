"""The defaults of this experiment; measure.py sets the rest by flags."""

from gptjax.config import default


def get_config():
    return default()
