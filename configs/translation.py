"""Translation, French to English: --config=configs/translation.py:encoder-decoder | decoder | tiny | tiny-decoder

Data: Tatoeba's pairs of sentences, English first, from manythings.org/anki (fra-eng.zip: 142,787 pairs, CC BY).
The split is by the French sentence, so that no sentence is in two splits:

  python -m gptjax.prepare --pairs=fra-eng.zip --swap --output=data/fra_eng --vocab_size=8000 \\
    --validation_documents=1000 --test_documents=3000
  python -m gptjax.train --config=configs/translation.py --workdir=runs/translation
  python -m gptjax.sample --workdir=runs/translation --prompt='Il fait beau aujourd’hui.'

The 138,642 pairs to train on have 1.31 M tokens of French and 1.15 M of English, of one vocabulary of 8,000.

encoder-decoder: 3 layers of the encoder (12 D² parameters each, D = 256) and 3 of the decoder (16 D²), which share the
embedding: 7.6 M parameters. A step has 16 rows of 144 + 128 positions, about 230 pairs: 608 steps are an epoch, and
2,000 steps are three. With 6 x 2.4 MFLOPs per position of a source and 6 x 5.2 per position of a target that is 1.9e14
FLOPs: 20 minutes on two CPU cores that reach 160 GFLOP/s. Measured: 1.1 processor seconds per step, BLEU 38 after 400
steps and 55 after 1,500 (experiments/translation).
decoder: 7 layers of 12 D², the same number of parameters; a row of 272 positions of 6 x 7.6 MFLOPs has French, end,
English, end. The same number of steps takes 3.9e14 FLOPs, twice as long.
tiny, tiny-decoder: small versions, for a folder of a few hundred pairs.
"""

from gptjax.config import ConfigError, default, suggestion

SETTINGS = ("encoder-decoder", "decoder", "tiny", "tiny-decoder")


def get_config(arg: str = "encoder-decoder"):
    if arg not in SETTINGS:
        known = ", ".join(SETTINGS)
        raise ConfigError(f"configs/translation.py:{arg}: expected one of {known}{suggestion(arg, SETTINGS)}")
    config = default()
    config.data.path = "data/fra_eng"

    config.model.width = 256
    config.model.num_heads = 4
    config.model.feedforward = "relu2"
    config.model.qk_norm = True
    config.model.initialization = "zero"

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.muon_learning_rate = 0.02
    config.schedule.name = "wsd"
    config.schedule.warmup = "2%"
    config.schedule.decay = "50%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "2000 steps"
    config.checkpoint.every = "10%"
    config.evaluation.every = "10%"
    config.evaluation.tokens = 0  # the whole split

    if arg.endswith("decoder") and arg != "encoder-decoder":
        config.training.objective = "completion"
        config.model.num_layers = 7
        config.data.sequence_length = 272
        config.training.batch_size = 16
    else:
        config.training.objective = "seq2seq"
        config.model.family = "encoder_decoder"
        config.model.num_layers = 3
        config.data.source_length = 144
        config.data.sequence_length = 128
        config.training.batch_size = 16

    if arg.startswith("tiny"):
        config.model.num_layers = 2
        config.model.width = 64
        config.model.num_heads = 2
        config.data.source_length = 0
        config.data.sequence_length = 64
        config.training.batch_size = 8
        config.training.duration = "200 steps"
    return config
