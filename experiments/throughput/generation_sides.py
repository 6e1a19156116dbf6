"""One side of the comparison, in a separate process: python generation_sides.py SIDE BATCH

Compiles, warms up, prints a line of JSON with its facts, and then, for each line that it reads, generates one token and
NEW tokens after a prompt of PROMPT for each row, greedily, and prints the seconds of both. SIDE is gptjax,
gptjax-bfloat16 or gptjax-int8 (the weights' type), gptjax-inputs-first (float32, stored for many rows even if there are
few), gptjax-tensor=2 (two devices of one process share the model; fewer and wider heads, as many parameters),
gptjax-tensor=1 (one device with the same heads), transformers, transformers-bfloat16 (the whole model),
transformers-compiled (static cache, torch.compile), or read: an array of the float32 weights' size, read once per token
with all cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from sides import processor_seconds

PROMPT, NEW = 128, 128
VOCAB_SIZE, WIDTH, LAYERS, HEADS, KV_HEADS, FEEDFORWARD = 49_152, 576, 30, 9, 3, 1_536  # SmolLM2-135M
PARAMETERS = 134_515_008
EVEN_HEADS, EVEN_KV_HEADS = 6, 2  # for two devices: wider heads in matrices of the same shapes


class Tokenizer:
    """A tokenizer of token ids: the text does not matter here, and no token ends it."""

    vocab_size, bos_id, eos_id = VOCAB_SIZE, None, None

    def decode_bytes(self, tokens) -> bytes:
        return b"x" * len(tokens)

    def decode(self, tokens) -> str:
        return "x" * len(tokens)


@dataclass(frozen=True)
class Config:
    model: object


def prompts(batch: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, VOCAB_SIZE, (batch, PROMPT))


def make_generator(variant: str, batch: int) -> tuple[Any, int]:
    """The generator of a side, and its number of parameters."""
    import jax

    from gptjax.config import default
    from gptjax.inference.devices import decoding_mesh
    from gptjax.inference.generate import Generator
    from gptjax.model.families import family_of
    from gptjax.model.resolve import resolve_model
    from gptjax.parallel.sharding import params_sharding

    is_split, is_for_many = variant.startswith("tensor"), variant == "inputs-first"
    mesh, weights = decoding_mesh(variant if is_split else ""), None if is_split or is_for_many else variant or None
    heads, kv_heads = (EVEN_HEADS, EVEN_KV_HEADS) if is_split else (HEADS, KV_HEADS)
    section = default().model
    section.update(vocab_size=VOCAB_SIZE, num_layers=LAYERS, width=WIDTH, num_heads=heads, num_kv_heads=kv_heads)
    section.update(head_width=WIDTH // heads, feedforward_width=FEEDFORWARD, tied_embeddings=True)
    section.update(rope_theta=100_000.0, max_positions=8_192, dtype="float32")
    section = resolve_model(section, platform="cpu", vocab_size=VOCAB_SIZE, sequence_length=8_192)
    family = family_of(section)
    params = family.init_params(jax.random.key(0))
    if mesh is not None:
        params = jax.device_put(params, params_sharding(mesh, family.declarations))
    batch_size = 32 if is_for_many else batch
    generator = Generator(params, Config(section), Tokenizer(), weights=weights, mesh=mesh, batch_size=batch_size)
    return generator, sum(x.size for x in jax.tree.leaves(params))


def gptjax_side(variant: str, batch: int) -> tuple[Callable[[int], Any], dict]:
    import jax

    generator, count = make_generator(variant, batch)
    rows = prompts(batch).tolist()

    def run(new: int) -> None:
        completions = generator.generate(rows, max_new_tokens=new, temperature=0.0)
        assert all(len(completion.tokens) == new for completion in completions)

    return run, dict(parameters=count, versions={"jax": jax.__version__})


def transformers_side(variant: str, batch: int) -> tuple[Callable[[int], Any], dict]:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=FEEDFORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        max_position_embeddings=8_192,
        rope_theta=100_000.0,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    if variant == "bfloat16":
        model = model.to(torch.bfloat16)
    tokens = torch.from_numpy(prompts(batch))
    options: dict[str, Any] = dict(do_sample=False, use_cache=True)
    if (
        variant == "compiled"
    ):  # on a GPU a static cache makes `generate` compile by itself; on a CPU users compile it like this
        model.forward = torch.compile(model.forward, dynamic=None)
        options["cache_implementation"] = "static"

    def run(new: int) -> None:
        length = dict(max_new_tokens=new, min_new_tokens=new)
        with torch.inference_mode():
            out = model.generate(tokens, attention_mask=torch.ones_like(tokens), **options, **length)
        assert out.shape == (batch, PROMPT + new)

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return run, dict(parameters=sum(p.numel() for p in model.parameters()), versions=versions)


def read_side() -> tuple[Callable[[int], Any], dict]:
    """Reads PARAMETERS float32 numbers once per token, a part on each core, by NumPy's dot product, which is a loop of
    loads.

    Generation reads the weights as often; a single pass would end before the cores have woken up.
    """
    parts = np.array_split(np.ones(PARAMETERS, np.float32), len(os.sched_getaffinity(0)))
    pool = ThreadPoolExecutor(len(parts))

    def read(part: np.ndarray, new: int) -> None:
        for _ in range(new):
            np.dot(part, part)

    return lambda new: list(pool.map(read, parts, [new] * len(parts))), dict(parameters=PARAMETERS, versions={})


def main(side: str, batch: int) -> None:
    began = time.perf_counter()
    if side == "read":
        run, facts = read_side()
    else:
        project, _, variant = side.partition("-")
        run, facts = (gptjax_side if project == "gptjax" else transformers_side)(variant, batch)
    run(NEW)
    facts["seconds_to_first"] = time.perf_counter() - began
    run(1)
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        run(1)
        seconds = {"prompt_seconds": time.perf_counter() - began}
        began, used = time.perf_counter(), processor_seconds()
        run(NEW)
        seconds |= {"seconds": time.perf_counter() - began, "processor_seconds": processor_seconds() - used}
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
