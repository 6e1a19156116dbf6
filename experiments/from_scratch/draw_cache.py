"""Draws the size of the cache of one text by its length, for the models of pages 14 and 15.

python experiments/from_scratch/draw_cache.py      # writes cache.png beside this file
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from draw import write_picture
from sizes import cache_bytes

from gptjax.config.user_code import load_config
from gptjax.model.resolve import resolve_model

WINDOW = dict(window=1024, window_pattern="SSSSSL")
DRAWN = {
    "32 heads of keys and values": dict(num_kv_heads=32),
    "8 heads": dict(num_kv_heads=8),
    "32 heads, window": dict(num_kv_heads=32) | WINDOW,
    "8 heads, window": dict(num_kv_heads=8) | WINDOW,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="configs/llama.py:8b")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("cache.png"))
    options = parser.parse_args()
    contexts = [2**power for power in range(10, 18)]
    figure, panel = plt.subplots(figsize=(6, 3.2))
    for name, fields in DRAWN.items():
        model = load_config(options.config).model
        model.update(fields)
        resolved = resolve_model(model, platform="gpu", vocab_size=0, sequence_length=contexts[-1])
        panel.plot(contexts, [cache_bytes(resolved, context)[1] / 1e9 for context in contexts], marker=".", label=name)
    panel.set_xscale("log", base=2)
    panel.set_yscale("log")
    panel.set_xticks(contexts, [f"{context // 1024}k" for context in contexts])
    panel.set_xlabel("tokens of the text")
    panel.set_ylabel("GB that attention looks at")
    write_picture(figure, options.output)


if __name__ == "__main__":
    main()
