"""Which intermediate results of a layer are kept for the backward pass: on the device, on the host, or not at all.

`jax.checkpoint` is PyTorch's `torch.utils.checkpoint`: what a block computes between its input and its output is not
kept for the backward pass but computed again there, except for what a policy names. (It has nothing to do with
checkpoints on disk.) POLICIES has a row for each value of `model.remat`; a new one is a row, of names that
`checkpoint_name` gives in the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from gptjax.config import ConfigError
from gptjax.model.precision import PRODUCT

LAYER_INPUT = "layer_input"  # the residual stream before each layer
ATTENTION_OUTPUT = "attention_output"  # before the output projection; the products inside of attention have no name


class Policy(NamedTuple):
    """The names of what is kept on the device, and of what waits on the host. All else is computed again.

    A layer's input is always kept: on the device, unless it is named here for the host.
    """

    device: tuple[str, ...] = ()
    host: tuple[str, ...] = ()


POLICIES = {
    "dots": Policy(device=(PRODUCT, ATTENTION_OUTPUT)),
    "attention": Policy(device=(ATTENTION_OUTPUT,)),  # a second flash attention would be the dearest to compute again
    "full": Policy(),
    "offload_dots": Policy(host=(PRODUCT, ATTENTION_OUTPUT)),
    "offload_inputs": Policy(host=(LAYER_INPUT,)),
}


def rematerialized(block: Callable, remat: str, in_scan: bool = False) -> Callable:
    """`block`, with the policy that `model.remat` names around it; none: nothing is computed again."""
    if remat == "none":
        return block
    # In a scan, forward and backward are two loops and cannot be merged; unrolled, XLA would undo the recomputation.
    return jax.checkpoint(block, policy=_jax_policy(policy_of(remat)), prevent_cse=not in_scan)


def policy_of(remat: str) -> Policy:
    """Raises ConfigError for a name without a policy."""
    if remat not in POLICIES:
        raise ConfigError(f"model.remat = {remat!r}: expected one of none, {', '.join(POLICIES)}")
    return POLICIES[remat]


def _jax_policy(policy: Policy) -> Callable | None:
    if policy.host:
        return jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=list(policy.device),
            names_which_can_be_offloaded=list(policy.host),
            offload_src="device",
            offload_dst="pinned_host",
        )
    return jax.checkpoint_policies.save_only_these_names(*policy.device) if policy.device else None


def kept_of_layers(remat: str) -> Callable[..., bool]:
    """The policy of a `jax.checkpoint` around several layers that keeps what `rematerialized` keeps of each of them.

    (Within it, their own policies do not count.) Where nothing is to be recomputed, what costs no arithmetic is: a copy
    of parameters, such as of those that one turn of a pipeline picks, need not be kept for the backward pass.
    """
    if remat == "none":
        return lambda primitive, *_, **__: primitive.name not in COPIES
    return jax.checkpoint_policies.save_only_these_names(*(policy_of(remat).device or (LAYER_INPUT,)))


COPIES = frozenset(
    {
        *("dynamic_slice", "slice", "squeeze", "reshape", "transpose", "broadcast_in_dim", "convert_element_type"),
        *("gather", "select_n", "pad"),
    }
)
