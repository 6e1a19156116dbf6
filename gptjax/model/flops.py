"""FLOPs of training per token, forward and backward, without recomputation.

They are 6 N for the products with N parameters, plus the FLOPs of attention. Attention is counted by two conventions,
and a utilization is meaningful only with the name of its convention:

    full     12 · N_heads · H · keys per layer, keys = T: as if every query saw every key (PaLM,
             arXiv:2204.02311, appendix B)
    causal   the same with the keys that a query actually sees: T / 2 on average, so 6 · N_heads · H · T

Under adapters (model/lora.py), most parameters are frozen: their products take 4 N. So do those that `optimizer.rules`
freezes. Where everything below is frozen, too, no gradient flows on: frozen products take 2 N, adapters 4 N, and the
attention of layers below all that is trained a third (training/optimizers/trained.py, planning/run_plan.py).

With a sliding window of W < T keys the averages are W and W (1 - W / 2T). N leaves out the input embedding and learned
positions (they are looked up, not multiplied) and counts the head, tied or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptjax.model.lora import SUFFIX
from gptjax.model.parameters import LAYERS, count_parameters

CONVENTIONS = ("causal", "full")
CAUSAL_LAYERS = {"causal": "6N + 6·L·N_heads·H·T", "full": "6N + 12·L·N_heads·H·T"}  # of `flops_of_causal_layers`
BIDIRECTIONAL_LAYERS = dict.fromkeys(CONVENTIONS, "6N + 12·L·N_heads·H·T")  # every token sees all tokens
PAIRS = {  # encoder N_e and L_e, cross-attention over S keys; per token of the target
    "causal": "6N + 6N_e·S/T + 12·N_heads·H·(L_e·S·S/T + L·S + L·T/2)",
    "full": "6N + 6N_e·S/T + 12·N_heads·H·(L_e·S·S/T + L·S + L·T)",
}


def product_flops(declared: Any) -> float:
    """The FLOPs of the products with these parameters: 6 for each. For a frozen one 4, as it has no gradient."""
    counts = count_parameters(declared)
    return 6.0 * counts.multiplied - 2.0 * counts.frozen


def mean_keys_seen(sequence_length: int, window: int, convention: str) -> float:
    """Keys that a query attends to, averaged over the sequence; window 0 means all."""
    width = min(window or sequence_length, sequence_length)
    return float(width) if convention == "full" else width * (1.0 - width / (2.0 * sequence_length))


def flops_of_bidirectional_layers(
    declared: Mapping[str, Any], windows: Sequence[int], heads_width: int, sequence_length: int
) -> dict[str, float]:
    """Like `flops_of_causal_layers`, for attention that sees both sides of a token.

    Both conventions count 12 · N_heads · H per key. A window extends by its width to each side of a token.
    """
    keys = (min(2 * window - 1 if window else sequence_length, sequence_length) for window in windows)
    total = product_flops(declared) + 12.0 * heads_width * sum(keys)
    return dict.fromkeys(CONVENTIONS, total)


def flops_of_causal_layers(
    declared: Mapping[str, Any], windows: Sequence[int], heads_width: int, sequence_length: int
) -> dict[str, float]:
    """{'causal': …, 'full': …} for a model that multiplies every parameter with every token.

    Args:
      declared: the declarations of its parameters.
      windows: the window of each attention layer, 0: the whole context.
      heads_width: N · H, the width of all query heads.
    """
    products = product_flops(declared)
    # Scores and weighted sum take 2 · H FLOPs each per head and key. The backward pass takes twice as many.
    # Grouped-query attention saves parameters and memory, but no FLOPs: every query head has its own scores.
    per_key = 12.0 * heads_width
    return {
        convention: products + per_key * sum(mean_keys_seen(sequence_length, window, convention) for window in windows)
        for convention in CONVENTIONS
    }


def flops_of_pairs(
    declared: Mapping[str, Any],
    windows: Sequence[int],
    encoder_windows: Sequence[int],
    heads_width: int,
    target_length: int,
    source_length: int,
) -> dict[str, float]:
    """Like `flops_of_causal_layers`, for an encoder–decoder on pairs of these lengths, per token of the target.

    A token of the target comes with S / T tokens of the source, which the encoder reads and from which keys and values
    of cross-attention are made. In the encoder and in cross-attention a token sees all keys (or a window to each side).
    """
    per_target = source_length / target_length
    crosses = [declared[stack]["cross_attention"] for stack in LAYERS if stack in declared]
    read_once = ("key", "value", f"key{SUFFIX}", f"value{SUFFIX}")
    of_source = product_flops(declared["encoder"])
    of_source += sum(product_flops(cross[name]) for cross in crosses for name in read_once if name in cross)
    of_target = product_flops(declared) - of_source
    per_key = 12.0 * heads_width
    encoder_keys = sum(min(2 * window - 1 if window else source_length, source_length) for window in encoder_windows)
    both = of_target + per_target * of_source
    both += per_key * (per_target * encoder_keys + len(windows) * source_length)
    return {
        convention: both + per_key * sum(mean_keys_seen(target_length, window, convention) for window in windows)
        for convention in CONVENTIONS
    }
