"""Draws the cross-attention of a trained model while it translates a sentence.

  python experiments/translation/attention_map.py --workdir=runs/translation --sentence='Il fait beau aujourd’hui.'

Writes attention.png beside this file, the mean over the heads of each layer of the decoder, and prints the greedy
translation.
"""

import argparse
from pathlib import Path

from gptjax import tokenizer as tokenizers
from gptjax.inference.attention_map import cross_attention, plot_attention
from gptjax.inference.generate import Generator
from gptjax.training.checkpoints.loading import load_for_inference

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--sentence", required=True)
    parser.add_argument("--output", type=Path, default=HERE / "attention.png")
    options = parser.parse_args()
    params, config, metadata = load_for_inference(options.workdir)
    tokenizer = tokenizers.load(options.workdir)
    of_sources = tokenizers.load_of_sources(options.workdir) or tokenizer
    generator = Generator(
        params, config, tokenizer, source_tokenizer=of_sources, begin_id=metadata["fingerprint"].get("begin_id")
    )
    (written,) = generator.generate([options.sentence], temperature=0.0, max_new_tokens=config.model.max_positions)
    source = of_sources.encode(options.sentence)
    *source, begin = generator.family.framed(source, generator.begin_id, of_sources.eos_id)
    weights_LNTS = cross_attention(params, config.model, source, [begin, *written.tokens[:-1]])
    plot_attention(options.output, weights_LNTS.mean(1), names(of_sources, source), names(tokenizer, written.tokens))
    print(written.text)


def names(tokenizer: tokenizers.Tokenizer, tokens: list[int]) -> list[str]:
    return ["end" if token == tokenizer.eos_id else tokenizer.decode([token]) for token in tokens]


if __name__ == "__main__":
    main()
