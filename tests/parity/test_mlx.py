"""mlx-lm loads our exports: the same logits where it is named beside an export, and others where it is not."""

import numpy as np
import pytest
from huggingface_models import MODELS, written
from loader_models import CASES
from random_models import MAX_POSITIONS, TOKENIZER, logits_of, make_model

mlx = pytest.importorskip("mlx.core")
load_model = pytest.importorskip("mlx_lm.utils").load_model


@pytest.mark.parametrize("name", CASES)
def test_mlx_computes_an_export_exactly_if_it_is_named(name, tmp_path, monkeypatch):
    family, settings, is_named, _ = CASES[name]
    monkeypatch.setitem(MODELS, family, settings)
    written(tmp_path, family)
    params, config = make_model(**settings)
    tokens = np.random.default_rng(0).integers(0, TOKENIZER.vocab_size, MAX_POSITIONS)
    expected = logits_of(params, config, tokens)
    try:
        model, _ = load_model(tmp_path)
        actual = np.array(model(mlx.array(tokens[None])))[0]
    except (ValueError, IndexError):  # parameters that it does not have, or layers
        assert not is_named
        return
    difference = np.abs(actual - expected).max() / np.abs(expected).max()
    assert difference < 1e-5 if is_named else difference > 1e-5
