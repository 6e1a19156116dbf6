"""Random models of transformers, saved as it saves them, become runs with the same logits and the same greedy texts."""

import importlib
import string

import pytest
import transformers_families as families
from transformers_families import torch

from gptjax.inference.generate import Generator
from gptjax.interop.huggingface import parity
from gptjax.interop.huggingface.model_folder import open_model
from gptjax.tokenizer import CharacterTokenizer
from gptjax.training.checkpoints.loading import load_for_inference

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


@pytest.mark.parametrize("family", [families.qwen3, families.gpt2, families.gemma3, families.qwen3_moe])
def test_an_imported_run_writes_the_same_text_greedily(family, tmp_path, capsys):
    model = saved(family, tmp_path / "theirs")
    tokenizer = CharacterTokenizer(string.ascii_letters)
    tokenizer.save(tmp_path / "theirs")
    import_command.flags.parse(["import", f"--output={tmp_path / 'run'}", "--check=transformers"])
    import_command.main(["import", str(tmp_path / "theirs")])
    assert "compared: its logits differ from those of transformers by" in capsys.readouterr().out
    params, config, metadata = load_for_inference(tmp_path / "run")
    begin = metadata["fingerprint"]["begin_id"]
    generator = Generator(params, config, tokenizer, begin_id=begin)
    (ours,) = generator.generate(["Once"], max_new_tokens=20, temperature=0.0, num_samples=1, seeds=0)
    prompt = torch.tensor([[begin, *tokenizer.encode("Once")]])
    ends = dict(eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id)
    mask = torch.ones_like(prompt)
    theirs = model.generate(prompt, attention_mask=mask, max_new_tokens=20, do_sample=False, **ends)[
        0, prompt.shape[1] :
    ]
    assert theirs.tolist()[: len(ours.tokens)] == list(ours.tokens)
