"""Random models of transformers, saved as it saves them, become runs with the same logits and the same greedy texts."""

import importlib

import pytest
import transformers_families as families
from transformers_families import torch

from gptjax.interop.huggingface import parity
from gptjax.interop.huggingface.model_folder import open_model

import_command = importlib.import_module("gptjax.import")
SAVED = [each for each in families.FAMILIES if each is not families.phi3_128k]


def saved(family, folder, **options):
    """A random model, whose norms and biases have an effect, saved by transformers."""
    kind, config, _ = family()
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "router" not in name or "gpt_oss" != config.model_type:  # a choice among one expert needs no weights
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.zero_()
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("family", SAVED)
def test_a_model_that_transformers_saved_has_the_same_logits_here(family, tmp_path):
    saved(family, tmp_path)
    opened = open_model(tmp_path)
    batch = parity.batch_for(opened.model)
    ours = parity.own_logits(opened.model, opened.params(), batch)
    assert parity.largest_difference(ours, parity.transformers_logits(tmp_path, batch)) < 64 * 2**-24
    assert all("buffers" in left or "repeats" in left or "tensors" in left for left in opened.left), opened.left
