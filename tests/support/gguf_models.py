"""Small random models as GGUF files, each with a tokenizer and a template of conversations."""

import json

from huggingface_models import GEMMA, GROUPED
from random_models import make_model
from sentencepiece_models import LLAMA, TEXT, sentencepiece_model
from their_tokenizers import MADE

from gptjax.conversation import load_template
from gptjax.interop.gguf import write_gguf
from gptjax.interop.huggingface.families import FAMILIES
from gptjax.interop.huggingface.model_folder import tensors_of
from gptjax.tokenizer import ByteTokenizer
from gptjax.tokenizer.huggingface import HuggingFaceTokenizer
from gptjax.tokenizer.training import train_sentencepiece

CHAT = load_template("chatml")
YARN = dict(rope_scaling="yarn", rope_factor=4.0, rope_original_positions=12)
EXPERTS = dict(num_experts=4, experts_per_token=2)
MODELS = {  # family, and a word for what is special about it → the settings of `model`
    "llama": GROUPED,
    "llama llama3": GROUPED
    | dict(rope_scaling="llama3", rope_factor=8.0, rope_original_positions=16, rope_theta=5e5, head_width=16),
    "llama linear": GROUPED | dict(rope_scaling="linear", rope_factor=4.0),
    "mistral": GROUPED | dict(head_width=12),
    "mixtral": GROUPED | EXPERTS | dict(router_normalized=True),
    "qwen2": GROUPED | dict(bias="qkv"),
    "qwen3": GROUPED | dict(qk_norm=True, head_width=12, tied_embeddings=False, rope_theta=5e4),
    "qwen3 yarn": GROUPED | YARN | dict(qk_norm=True),
    "qwen3 attention_factor": GROUPED | YARN | dict(qk_norm=True, rope_attention_factor=1.4),
    "qwen3_moe": GROUPED | EXPERTS | dict(qk_norm=True, router_normalized=True),
    "olmo2": GROUPED | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection"),
    "olmo2 yarn": GROUPED | YARN | dict(norm_placement="post", qk_norm=True, qk_norm_over="projection"),
    "olmoe": EXPERTS | dict(feedforward_width=48, qk_norm=True, qk_norm_over="projection"),
    "gemma3": GEMMA
    | dict(qk_norm=True, window=8, window_pattern="SSL", num_layers=3, rope_theta=1e4, rope_local_theta=100.0)
    | dict(rope_scaling="linear", rope_factor=8.0),
    "gemma3 full": GEMMA | dict(qk_norm=True),
    "gemma3 windows": GEMMA | dict(qk_norm=True, window=8, window_pattern="S"),
}


def theirs(name):
    """A tokenizer of the `tokenizers` library."""
    made, settings = MADE[name]()
    names = {key.removesuffix("_token"): token for key, token in settings.items() if key != "unk_token"}
    special = {key: token["content"] if isinstance(token, dict) else token for key, token in names.items() if token}
    return HuggingFaceTokenizer(json.loads(made.to_str()), special)


def tokenizers():
    """name → a tokenizer that can be written."""
    bpe = train_sentencepiece([TEXT[i : i + 2000] for i in range(0, len(TEXT), 2000)], "bpe", 600)
    made = {"bpe": bpe, "byte": ByteTokenizer(), "llama2": sentencepiece_model("bpe", **LLAMA)}
    made |= {name: theirs(name) for name in ("gpt2", "llama3", "qwen")}
    return {name: each.extended(CHAT.controls) for name, each in made.items()}


def write(path, name, tokenizer, dtype="float32", **more):
    """Writes a model of a family; returns its parameters, config, config.json and tensors."""
    params, config = make_model(tokenizer, **MODELS[name] | more)
    family = FAMILIES[name.split()[0]]
    content = family.write(config.model)
    tensors = tensors_of(family, config.model, params)
    notes = write_gguf(path, content, tensors, tokenizer, CHAT, begin_id=tokenizer.eos_id, dtype=dtype)
    return params, config, content, tensors, notes
