"""Summaries of abstracts: --config=configs/summarization.py:encoder-decoder | decoder | tiny | tiny-decoder

Data: SciTLDR's abstracts of papers with summaries of one sentence, SciTLDR-A (2,610 abstracts, 618 of them with several
summaries; Apache 2.0). Sentences of an abstract are joined, and each summary makes a pair:

  python -m gptjax.prepare --pairs=SciTLDR-A/train.jsonl,SciTLDR-A/dev.jsonl --output=data/scitldr --vocab_size=4000 \\
    --validation_documents=100 --test_documents=300
  python -m gptjax.train --config=configs/summarization.py --workdir=runs/summarization

The 2,941 pairs to train on have 0.67 M tokens of abstracts and 0.09 M of summaries, of a vocabulary of 4,000: far too
few to write well, but enough to compare models.

Questions about a passage are such pairs, too: the source is the passage, a new line and the question (files in SQuAD's
form; answers are short, so rows of 64 target tokens are enough, or of 576 for the decoder):

  python -m gptjax.prepare --pairs=new_wiki_v1.0.json,xquad.en.json --output=data/squad --vocab_size=4000 \\
    --test_fraction=0.05 --references=first
  python -m gptjax.train --config=configs/summarization.py --config.data.path=data/squad \\
    --config.data.sequence_length=64 --workdir=runs/answers

encoder-decoder: 3 layers of the encoder (12 D² parameters each, D = 128) and 3 of the decoder (16 D²), 1.9 M parameters
with the embedding. A row holds about two abstracts; the 9 pairs of more than 512 tokens are left out. 2 epochs of
SciTLDR are 334 steps of 8 rows and 1.2e13 FLOPs. Measured: 0.8 epochs in 2 processor minutes (experiments/pairs).
decoder: 7 layers of 12 D², the same number of parameters; a row has abstract, end, summary, end.
tiny, tiny-decoder: small versions, for a folder of a few hundred pairs.
"""

from gptjax.config import ConfigError, default, suggestion

SETTINGS = ("encoder-decoder", "decoder", "tiny", "tiny-decoder")


def get_config(arg: str = "encoder-decoder"):
    if arg not in SETTINGS:
        known = ", ".join(SETTINGS)
        raise ConfigError(f"configs/summarization.py:{arg}: expected one of {known}{suggestion(arg, SETTINGS)}")
    config = default()
    config.data.path = "data/scitldr"

    config.model.width = 128
    config.model.num_heads = 2
    config.model.feedforward = "relu2"
    config.model.qk_norm = True
    config.model.initialization = "zero"
    config.model.dropout = 0.1

    config.optimizer.name = "muon"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.muon_learning_rate = 0.01
    config.schedule.name = "wsd"
    config.schedule.decay = "50%"
    config.schedule.final_fraction = 0.0

    config.training.duration = "2 epochs"
    config.training.batch_size = 8
    config.checkpoint.every = "10%"
    config.evaluation.every = "10%"
    config.evaluation.tokens = 0  # the whole split

    if arg.endswith("decoder") and arg != "encoder-decoder":
        config.training.objective = "completion"
        config.model.num_layers = 7
        config.data.sequence_length = 640
    else:
        config.training.objective = "seq2seq"
        config.model.family = "encoder_decoder"
        config.model.num_layers = 3
        config.data.source_length = 512
        config.data.sequence_length = 128

    if arg.startswith("tiny"):
        config.model.num_layers = 2
        config.model.width = 64
        config.model.num_heads = 2
        config.data.source_length = 0
        config.data.sequence_length = 128
        config.training.duration = "100 steps"
    return config
