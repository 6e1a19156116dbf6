"""What a config costs: its parameters, those that a token uses, its FLOPs, and the cache of a text.

  python experiments/from_scratch/sizes.py --config=configs/gpt2.py:124m --context=1024
  python experiments/from_scratch/sizes.py --config=configs/llama.py:8b --config.model.num_kv_heads=32

Nothing is allocated: parameters are counted from their declarations, and the cache from its shapes.
"""

from __future__ import annotations

import functools

import jax

from gptjax.command_line import cli
from gptjax.command_line.flags import Flags
from gptjax.config import ConfigError
from gptjax.model.cache import allocate
from gptjax.model.families import family_of, validate_model
from gptjax.model.parameters import count_parameters
from gptjax.model.resolve import resolve_model
from gptjax.model.stack import layer_windows
from gptjax.settings import ModelSettings

flags = Flags()
CONFIG = flags.define_config()
CONTEXT = flags.DEFINE_integer("context", 1024, "Tokens of the text whose cache and FLOPs are counted.", 1)


def cache_bytes(model: ModelSettings, context: int) -> tuple[int, int]:
    """Bytes of the keys and values of one text: as `allocate` makes them, and those that attention still looks at.

    They differ where layers have a window: the cache keeps every token, also those behind the window.
    """
    cache = jax.eval_shape(functools.partial(allocate, model, batch=1, slots=context))
    layers = [key.size * key.dtype.itemsize * 2 for key in cache.keys]
    seen = (min(window or context, context) / context for window in layer_windows(model))
    return sum(layers), round(sum(size * share for size, share in zip(layers, seen)))


def sizes(model: ModelSettings, context: int) -> dict[str, int]:
    family = family_of(model)
    counts = count_parameters(family.declarations)
    cache, seen = cache_bytes(model, context)
    return {
        "parameters": counts.total,
        "parameters besides embeddings": counts.non_embedding,
        "parameters that a token uses": counts.active,
        "bytes of the parameters in float32": 4 * counts.total,
        "FLOPs per token, forward": round(family.flops_per_token(context)["causal"] / 3),
        "FLOPs per token, training": round(family.flops_per_token(context)["causal"]),
        "bytes of the cache of one text": cache,
        "of which attention looks at": seen,
    }


def main(argv: list[str]) -> None:
    del argv
    if CONFIG.value is None:
        raise ConfigError("--config is missing: name a config, such as configs/gpt2.py:124m")
    if CONFIG.value.model.family != "decoder":
        raise ConfigError(f"model.family = {CONFIG.value.model.family!r}: only a decoder has such a cache")
    validate_model(CONFIG.value)
    # cuDNN and bfloat16 as on a GPU, where such models run; neither is needed to count.
    model = resolve_model(CONFIG.value.model, platform="gpu", vocab_size=50257, sequence_length=CONTEXT.value)
    for name, value in sizes(model, CONTEXT.value).items():
        print(f"{value:>20,}  {name}")


if __name__ == "__main__":
    cli.run(main, flags)
