"""What is exported here is opened by transformers: the same logits, and greedily the same tokens."""

import pytest
from huggingface_models import MODELS, save_run, written
from random_models import TOKENIZER

from gptjax import export
from gptjax.inference.generate import Generator
from gptjax.interop.huggingface import parity
from gptjax.training.checkpoints.loading import load_for_inference

torch = pytest.importorskip("torch", reason="needs pip install 'gptjax[parity]'")
transformers = pytest.importorskip("transformers", reason="needs pip install 'gptjax[parity]'")


@pytest.mark.parametrize("name", MODELS)
def test_transformers_computes_the_same_logits(name, tmp_path):
    params, model = written(tmp_path, name)
    batch = parity.batch_for(model)
    ours = parity.own_logits(model, params, batch)
    assert parity.largest_difference(parity.transformers_logits(tmp_path, batch), ours) < 64 * 2**-24


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma3", "olmoe"])
def test_transformers_writes_the_same_text_greedily(name, tmp_path):
    save_run(tmp_path / "run", **MODELS[name])
    export.flags.parse(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}", "--shard_size=1MB"])
    export.main([])
    params, config, _ = load_for_inference(tmp_path / "run")
    generator = Generator(params, config, TOKENIZER, begin_id=TOKENIZER.eos_id)
    (ours,) = generator.generate(["Once upon"], max_new_tokens=20, temperature=0.0, num_samples=1, seeds=0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    prompt = tokenizer("Once upon", return_tensors="pt")
    assert prompt["input_ids"][0].tolist() == [TOKENIZER.eos_id, *TOKENIZER.encode("Once upon")]
    theirs = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert theirs.tolist()[: len(ours.tokens)] == list(ours.tokens) and len(ours.tokens) > 5


def test_transformers_writes_the_same_target_for_a_source(tmp_path):
    save_run(tmp_path / "run", **MODELS["t5gemma"])
    export.flags.parse(["export", f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"])
    export.main([])
    params, config, _ = load_for_inference(tmp_path / "run")
    generator = Generator(params, config, TOKENIZER, begin_id=TOKENIZER.eos_id, objective="seq2seq")
    (ours,) = generator.generate(["a source"], max_new_tokens=12, temperature=0.0, num_samples=1, seeds=0)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out").eval()
    source = torch.tensor([[*TOKENIZER.encode("a source"), TOKENIZER.eos_id]])
    theirs = model.generate(source, attention_mask=torch.ones_like(source), max_new_tokens=12, do_sample=False)
    assert theirs[0, 1 : 1 + len(ours.tokens)].tolist() == list(ours.tokens) and len(ours.tokens) > 5


def test_a_bfloat16_export_has_the_logits_of_the_rounded_run(tmp_path):
    save_run(tmp_path / "run", **MODELS["gemma2"])
    flags = [f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}", "--dtype=bfloat16"]
    export.flags.parse(["export", *flags, "--check=transformers"])
    export.main([])
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
