"""How much a cache of keys and values saves: the same greedy text with and without one, and the time of both.

  python experiments/from_scratch/kv_cache.py                      # GPT-2 124M with random parameters, as in the book
  python experiments/from_scratch/kv_cache.py --layers=2 --width=128 --new=16

Without a cache, `pretraining.continued` reads the whole text again for each token. With one, `Generator` reads each
token once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
from gpt import init
from pretraining import continued

from gptjax.config.user_code import load_config
from gptjax.inference.generate import Generator
from gptjax.inference.timing import Timing
from gptjax.model.resolve import resolve_model
from gptjax.settings import Settings, freeze
from gptjax.tokenizer import ByteTokenizer


def model_settings(vocab: int, context: int, layers: int, width: int) -> Settings:
    config = load_config("configs/gpt2.py:124m")
    config.model.update(vocab_size=vocab, max_positions=context, num_layers=layers, width=width)
    config.model.num_heads = width // 64
    model = resolve_model(config.model, platform="cpu", vocab_size=vocab, sequence_length=context)
    config.model.update(dict(model.items()))
    return freeze(config)


def seconds(call: Callable) -> tuple[float, object]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--vocab", type=int, default=50257)
    parser.add_argument("--new", type=int, default=200, help="tokens to write")
    options = parser.parse_args()
    tokenizer, prompt = ByteTokenizer(), "Hello, I am"
    tokens = tokenizer.encode(prompt)
    context = len(tokens) + options.new
    sizes = dict(vocab=options.vocab, positions=context, width=options.width, layers=options.layers)
    params = init(jax.random.key(123), heads=options.width // 64, **sizes)
    config = model_settings(options.vocab, context, options.layers, options.width)
    generator = Generator(params, config, tokenizer)
    writes = {
        "everything read again": lambda: continued(params, tokens, options.new, tokenizer.vocab_size)[len(tokens) :],
        "keys and values cached": lambda: (
            generator.generate([prompt], max_new_tokens=options.new, temperature=0.0, begin=False, timing=Timing())[
                0
            ].tokens
        ),
    }
    texts = []
    for name, write in writes.items():
        write()  # compiles
        time_taken, text = seconds(write)
        texts.append(text)
        print(f"{name:<24} {options.new / time_taken:8.1f} tokens per second")
    print("the same text" if texts[0] == texts[1] else f"different texts: {texts}")


if __name__ == "__main__":
    main()
