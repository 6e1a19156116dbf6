"""Preferences between two answers (DPO): --config=configs/preferences.py:RUN, where RUN is the folder of the base run.

The base run has learned to answer prompts, by the objective `completion` on pairs of prompts and answers. With the
1,100 instructions of "Build a Large Language Model (From Scratch)", which have a chosen and a rejected answer each:

  python -m gptjax.prepare --pairs=instruction-data-with-preference.json --source_field='{instruction}\\n{input}' \\
    --target_field=output --tokenizer=data/text --output=data/answers
  python -m gptjax.train --config=configs/instructions.py:runs/text --config.training.objective=completion \\
    --config.data.path=data/answers --workdir=runs/answers
  python -m gptjax.prepare --preferences=instruction-data-with-preference.json \\
    --prompt_field='{instruction}\\n{input}' --tokenizer=data/text --output=data/preferences
  python -m gptjax.train --config=configs/preferences.py:runs/answers --workdir=runs/preferences

A run of conversations continues with preferences between messages, written by its template (rows: prompt, chosen and
rejected, each messages or a text), and `gptjax chat` talks with the result:

  python -m gptjax.prepare --preferences=instruction-data-with-preference.json --template=chatml \\
    --prompt_field='{instruction}\\n{input}' --tokenizer=runs/instructions --output=data/preferences
  python -m gptjax.train --config=configs/preferences.py:runs/instructions --workdir=runs/preferences

The model is that of the base run, which is also the reference. Plots of the run: loss.png and preferences.png, the
margins and rewards.
"""

from gptjax.config import ConfigError, default
from gptjax.config.base_run import start_from_run


def get_config(run: str = ""):
    if not run:
        raise ConfigError("configs/preferences.py: expected configs/preferences.py:RUN, the folder of the base run")
    config = default()
    start_from_run(config, run)
    config.data.path = "data/preferences"
    config.data.sequence_length = min(256, config.data.sequence_length)

    config.training.objective = "preference"
    config.training.duration = "2 epochs"
    config.training.batch_size = 16
    config.optimizer.learning_rate = 5e-5
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "linear"
    config.schedule.warmup = "10%"
    config.schedule.final_fraction = 0.0

    config.evaluation.every = "25 steps"
    config.evaluation.tokens = 0
    config.logging.every = "1 step"
    return config
