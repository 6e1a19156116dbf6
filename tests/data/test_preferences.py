"""A row of preferences has the prompt with the chosen answer, and the same prompt with the rejected one."""

import numpy as np
import pytest

from gptjax.config import ConfigError
from gptjax.data import open_dataset
from gptjax.data.preferences import PreferenceRows
from gptjax.data.tokens import TokenSource
from gptjax.tokenizer import ByteTokenizer

SIDES = [([10, 11], [12], [13, 14]), ([20], [21, 22, 23, 24, 25, 26], [27]), ([30], [31], [32])]
EOS, BOS = ByteTokenizer().eos_id, ByteTokenizer().bos_id


@pytest.mark.parametrize("bos", [False, True])
def test_a_row_has_both_answers_after_the_prompt(prepared, data_config, bos):
    own = [BOS] if bos else []
    sides = [(prompt, answer) for prompt, *answers in SIDES for answer in answers]
    documents = [[*own, *side, EOS] for pair in sides for side in pair]
    path = prepared("data", train=documents, validation=documents, form="preferences", shard_tokens=7, bos=bos)
    length = 7 + bos
    rows = PreferenceRows(TokenSource(path, "train"), length)
    assert (len(rows), rows.left_out) == (2, 1)  # the second preference has an answer of seven tokens

    batch = rows.gather(np.array([1, 0]))
    for prefix, answers in (("", ([31], [12])), ("rejected_", ([32], [13, 14]))):
        for row, (prompt, answer) in enumerate(zip(([30], [10, 11]), answers)):
            given, text = [*prompt, EOS, *own], [*answer, EOS]
            padding = [0] * (length - len(given) - len(text))
            begin = own or [EOS]
            assert batch[f"{prefix}tokens"][row].tolist() == [*begin, *given, *text[:-1], *padding]
            assert batch[f"{prefix}targets"][row].tolist() == [*given, *text, *padding]
            assert batch[f"{prefix}weights"][row].tolist() == [0] * len(given) + [1] * len(text) + padding
    ((position, place, count),) = rows.spans(1)
    shown = TokenSource(path, "train").take_runs(np.array([place]), np.array([count]))
    assert position == 0 and shown.tolist() == [30, EOS, *own, 31, EOS]

    data = open_dataset(
        data_config(path, sequence_length=length), "validation", seed=0, batch_size=4, windows="preferences"
    )
    assert data.left_out == 1 and data.batch(0, np.arange(4))["weights"].sum(axis=1).astype(bool).sum() == 2
    with pytest.raises(ConfigError, match=r"data.sequence_length = 3: none of the 3 preferences of .* fits into a row"):
        PreferenceRows(TokenSource(path, "train"), 3)
