"""A classifier of your own texts, on a model that you have trained: its body starts with that run's parameters.

  python -m gptjax.prepare --labelled=reviews.csv --tokenizer=runs/base --output=data/reviews --test_fraction=0.1
  python -m gptjax.train --config=configs/classifier.py:runs/base --config.data.path=data/reviews --workdir=runs/reviews
  python -m gptjax.classify --workdir=runs/reviews --checkpoint=best --data=data/reviews --split=test
  python -m gptjax.classify --workdir=runs/reviews --checkpoint=best --text='A film that I will see again.'

reviews.csv has a column `text` and a column `label` (or name yours: --text_field, --label_field). --tokenizer=runs/base
splits the text into the tokens that the run knows. The head reads the last token of a decoder, and the mean over the
text of an encoder.

classifier.py:RUN              all parameters are trained
classifier.py:RUN,last_block   only the last block, the last norm and the head, as in chapter 6 of "Build a Large
                               Language Model (From Scratch)"; --config.optimizer.rules freezes by any other regex
classifier.py                  a small decoder that starts from random parameters

Other choices of that chapter's experiments are fields:

  --config.model.pooling=first | last | mean      the vector that the head reads
  --config.data.sequence_length=120               longer texts are cut; the run says how many
  --config.training.class_weights=balanced        if one label is rare; or 'spam=6.5,ham=1'
  --config.model.body=encoder                     no causal mask (from random parameters, or a run of an encoder)

What each of them changes on SMS messages was measured in experiments/classification.
"""

from gptjax.config import ConfigError, default
from gptjax.config.base_run import start_from_run

LAST_BLOCK = (("body/.*", "freeze", True), ("body/(layers/-1|final_norm)/.*", "freeze", False))


def get_config(arg=""):
    run, comma, part = arg.partition(",")
    if comma and part != "last_block":
        raise ConfigError(f"configs/classifier.py:{arg}: expected a run, or a run and ',last_block'")
    config = default()
    if run:
        start_from_run(config, run)
        if config.model.family != "classifier":
            config.model.body = config.model.family
        config.model.num_classes = 0  # the number of labels of data.path
    else:
        config.model.num_layers = 4
        config.model.width = 128
        config.model.num_heads = 4
        config.model.body = "decoder"
        config.data.sequence_length = 128
    config.model.family = "classifier"
    config.model.dropout = 0.1
    config.training.objective = "classification"
    config.training.batch_size = 16
    config.training.duration = "5 epochs"
    config.optimizer.learning_rate = 5e-4
    config.schedule.warmup = "10%"
    config.schedule.final_fraction = 0.0
    if part == "last_block":
        config.optimizer.rules = LAST_BLOCK
    config.evaluation.every = "1 epochs"
    config.evaluation.tokens = 0  # all of the validation split
    config.checkpoint.every = "1 epochs"
    return config
