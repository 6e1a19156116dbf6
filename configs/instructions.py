"""Instructions and chats: --config=configs/instructions.py:BASE, where BASE is the folder of a pretrained run

A run that has been trained on text continues on conversations. They are prepared with its tokenizer, which gets the
control tokens of the chat template (ChatML: <|im_start|> and <|im_end|>); the embedding grows by their rows:

  python -m gptjax.prepare --conversations=instruction-data.json --tokenizer=runs/base --output=data/instructions
  python -m gptjax.train --config=configs/instructions.py:runs/base --config.data.path=data/instructions \\
    --workdir=runs/instructions
  python -m gptjax.chat --workdir=runs/instructions

Rows of data are {"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}]}, or have the
columns prompt and completion, or instruction, input and output. The loss is on what the assistant wrote
(data.loss_on), and a row holds several conversations, which do not see each other.

The model and its context are those of BASE. The learning rate is a tenth of what pretraining would take, and falls
linearly; with many epochs, small sets are learned by heart. The 1,100 instructions of "Build a Large Language Model
(From Scratch)" are 55,000 tokens of a vocabulary of 4,096, a third of them answers: 3 epochs of a model of 4 M
parameters are 6 x 4e6 x 1.7e5 = 4e12 FLOPs, about a minute on two CPU cores. Measured: experiments/instructions.

Without BASE, a small model begins with random parameters, to try the commands.
"""

from gptjax.config import default
from gptjax.config.base_run import start_from_run


def get_config(arg: str = ""):
    config = default()
    config.data.path = "data/instructions"
    config.training.objective = "instruction"
    if arg:
        start_from_run(config, arg)
    else:
        config.model.num_layers = 2
        config.model.width = 128
        config.model.num_heads = 2

    config.optimizer.learning_rate = 3e-4
    config.optimizer.weight_decay = 0.0
    config.schedule.name = "linear"
    config.schedule.final_fraction = 0.0
    config.training.duration = "3 epochs"
    config.training.batch_size = 8
    config.checkpoint.every = "1 epochs"
    config.evaluation.every = "1 epochs"
    config.evaluation.tokens = 0  # the whole split
    return config
