"""An encoder alone: pretrained by masked tokens, then trained to classify SMS messages as spam or ham.

  python -m gptjax.prepare --input=wikitext2 --vocab_size=2048 --output=data/wiki
  python -m gptjax.prepare --labelled=SMSSpamCollection --tokenizer=data/wiki --output=data/sms \\
    --validation_fraction=0.1 --test_fraction=0.2

  python -m gptjax.train --config=configs/encoder.py:pretrain --config.data.path=data/wiki --workdir=runs/encoder
  python -m gptjax.train --config=configs/encoder.py:spam --config.data.path=data/sms --workdir=runs/spam \\
    --config.training.init_from=runs/encoder
  python -m gptjax.classify --workdir=runs/spam --checkpoint=best --data=data/sms --split=test
  python -m gptjax.classify --workdir=runs/spam --checkpoint=best --text='You have won a prize! Call now'

SMSSpamCollection has 5,574 messages, a label and a text on each line (Almeida et al. 2011; available from UCI).
Without training.init_from the classifier starts from random parameters.

pretrain    1.12 M parameters, of which 0.26 M are the embedding; 1,500 steps of 32 rows of 64 tokens are 3.1 M tokens,
            of which 15 % are hidden: 12 minutes on two busy CPU cores.
spam        The same body and a head of 258 numbers; 6 epochs of 3,900 messages in batches of 32 are 730 steps: 3 to 4
            minutes on two busy CPU cores.
last_block  The same, and only the last block, the last norm and the head are trained, as in chapter 6 of "Build a
            Large Language Model (From Scratch)": 0.21 M parameters, 3 minutes there. It made more errors than training
            all of them (experiments/classification), and makes sense only from a pretrained start.
decoder     A classifier on a decoder, which reads its last token, as in that chapter; 3 to 4 minutes there. It can
            start from any run of configs/encoder.py:pretrain_decoder, of the same shape.
pretrain_decoder   The same body as a language model.
"""

from gptjax.config import ConfigError, default, suggestion

KINDS = ("pretrain", "spam", "last_block", "pretrain_decoder", "decoder")


def get_config(arg="spam"):
    if arg not in KINDS:
        raise ConfigError(f"configs/encoder.py:{arg}: expected one of {', '.join(KINDS)}{suggestion(arg, KINDS)}")
    config = default()
    config.model.num_layers = 4
    config.model.width = 128
    config.model.num_heads = 4
    config.model.dropout = 0.1

    config.data.sequence_length = 64  # one message in six is longer; only its beginning is read
    config.training.batch_size = 32
    config.evaluation.tokens = 0  # all of the validation split
    config.schedule.warmup = "10%"
    config.schedule.final_fraction = 0.0

    if arg.startswith("pretrain"):
        config.data.windows = "packed"
        config.training.duration = "1500 steps"
        config.optimizer.learning_rate = 2e-3
        config.evaluation.every = "500 steps"
        config.evaluation.tokens = 40_960
        if arg == "pretrain":
            config.model.family = "encoder"
            config.training.objective = "masked"
        return config

    config.model.family = "classifier"
    config.model.body = "decoder" if arg == "decoder" else "encoder"
    config.training.objective = "classification"
    config.training.duration = "6 epochs"
    config.optimizer.learning_rate = 5e-4
    config.evaluation.every = "1 epochs"
    config.checkpoint.every = "1 epochs"
    if arg == "last_block":  # the last of two rules that match decides
        config.optimizer.rules = (("body/.*", "freeze", True), ("body/(layers/-1|final_norm)/.*", "freeze", False))
    return config
