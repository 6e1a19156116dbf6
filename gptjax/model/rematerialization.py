"""Which intermediate results of a layer are saved for the backward pass: on the device, on the host, or not at all.

With `none`, everything is saved, except inside of norms and activations (`from_arguments`).

`jax.checkpoint` is PyTorch's `torch.utils.checkpoint`: what a block computes between its input and its output is not
saved for the backward pass but recomputed there, except for what a policy names. (It is unrelated to checkpoints on
disk.) POLICIES has a row for each value of `model.remat`. A new policy is a row of names that the model gives by
`checkpoint_name`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from gptjax.config import ConfigError
from gptjax.model.precision import PRODUCT
from gptjax.settings import ModelSettings

LAYER_INPUT = "layer_input"  # the residual stream before each layer
ATTENTION_OUTPUT = "attention_output"  # before the output projection; the products inside attention have no name
# JAX's primitive for cuDNN's attention. Its backward pass also reads sums that have no name. Its results are therefore
# saved together where ATTENTION_OUTPUT is saved on the device, and its output does not get this name.
CUDNN_ATTENTION = "dot_product_attention_fwd_wrapper"


class Policy(NamedTuple):
    """The names of the results saved on the device and on the host. Everything else is recomputed.

    A layer's input is always saved: on the device, unless it is named here for the host.
    """

    device: tuple[str, ...] = ()
    host: tuple[str, ...] = ()


POLICIES = {
    "dots": Policy(device=(PRODUCT, ATTENTION_OUTPUT)),
    "attention": Policy(device=(ATTENTION_OUTPUT,)),  # flash attention would be the most expensive part to recompute
    "full": Policy(),
    "offload_dots": Policy(host=(PRODUCT, ATTENTION_OUTPUT)),
    "offload_inputs": Policy(host=(LAYER_INPUT,)),
}


def rematerialized(block: Callable, remat: str, in_scan: bool = False) -> Callable:
    """Wraps `block` in the policy that `model.remat` names; with none, nothing is recomputed."""
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
    return _saving(policy.device) if policy.device else None


def _saving(names: tuple[str, ...]) -> Callable[..., bool]:
    by_name = jax.checkpoint_policies.save_only_these_names(*names)
    if ATTENTION_OUTPUT not in names:
        return by_name
    return lambda primitive, *given, **options: (
        primitive.name == CUDNN_ATTENTION or by_name(primitive, *given, **options)
    )


def from_arguments(function: Callable[..., jax.Array], config: ModelSettings) -> Callable[..., jax.Array]:
    """A function of arrays of which only the arguments are saved for the backward pass, which computes it again.

    This is for norms and activations: their intermediate results are many, some are float32, and reading them takes
    longer than computing them. Where `model.remat` has a policy, the policy decides alone.

    A loop over layers has one loop forward and one backward, which no compiler merges. Outside of loops, XLA would
    merge the two computations and save the results of the first. A barrier prevents this, except on a CPU, where
    computing again takes longer.
    """
    if config.remat != "none":
        return function

    @jax.custom_vjp
    def computed(*arguments: jax.Array) -> jax.Array:
        return function(*arguments)

    def forward(*arguments: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        return function(*arguments), arguments

    def backward(arguments: tuple[jax.Array, ...], cotangent: jax.Array) -> tuple[jax.Array, ...]:
        if config.layers != "scan":  # the cotangent, too, so that nothing is computed before it is needed
            *arguments, cotangent = jax.lax.platform_dependent(
                *arguments, cotangent, cpu=lambda *each: each, default=lambda *each: jax.lax.optimization_barrier(each)
            )
        return jax.vjp(function, *arguments)[1](cotangent)

    computed.defvjp(forward, backward)
    return computed


def kept_of_layers(remat: str) -> Callable[..., bool]:
    """The policy for a `jax.checkpoint` around several layers that saves what `rematerialized` saves for each of them.

    (Inside it, the layers' own policies have no effect.) With `none`, only results that need no arithmetic are
    recomputed, such as the copy of the parameters that one tick of a pipeline uses.
    """
    if remat == "none":
        return lambda primitive, *_, **__: primitive.name not in COPIES
    return _saving(policy_of(remat).device or (LAYER_INPUT,))


COPIES = frozenset(
    {
        *("dynamic_slice", "slice", "squeeze", "reshape", "transpose", "broadcast_in_dim", "convert_element_type"),
        *("gather", "select_n", "pad"),
    }
)
