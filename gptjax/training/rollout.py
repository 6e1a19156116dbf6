"""Texts that the trained model writes in training, and their rewards: the batches of objectives that learn from them.

One program writes a group of G texts after each prompt of a batch, with the parameters of the training state as they
are on the devices: no other copy of them exists between two steps. The host decodes the texts and computes their
rewards.

A batch depends only on the parameters, the prompts, the seed and the step: text g of row b draws with a key that is
folded from the seed, the step and its number. A run therefore continues exactly, on any mesh. In an evaluation, a text
has the number of its prompt in the held-out split instead of that in its batch, so that scores do not depend on the
size of the batches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from gptjax.data.keys import ANSWER, LOGPROBS, NUMBER, PROMPT, PROMPT_LENGTH, REWARDS, TARGETS, TOKENS, WEIGHTS
from gptjax.inference.decode import decoding_params, generate
from gptjax.inference.sampling import Sampling
from gptjax.inference.shapes import rooms
from gptjax.model.families import reading_family_of
from gptjax.parallel.placement import MeshPlacement
from gptjax.parallel.sharding import batch_sharding
from gptjax.settings import Settings
from gptjax.tokenizer import Tokenizer
from gptjax.training.rewards import Reward

Batch = Mapping[str, jax.Array]
Rollout = Callable[[Any, Batch, int], Batch]  # (params, batch of the data, step) → batch of the objective
EVALUATION = 2**31 - 1  # the step of every evaluation: it draws the same numbers each time


def batches_of(rollout: Rollout, batches: Iterator[Batch], every: int) -> Callable[[Any, int], Batch]:
    """The function (params, step) → batch of the objective, to be called once for each step, in their order.

    The texts of `every` steps are written together, at steps that are multiples of `every`, with the parameters of that
    step. A run may only be saved at such steps, and must end at one (planning/run_plan.py).
    """
    waiting: list[Batch] = []

    def next_batch(params: Any, step: int) -> Batch:
        if not waiting:
            waiting.extend(rollout(params, next(batches), each) for each in range(step, step - step % every + every))
        return waiting.pop(0)

    return next_batch


def make_rollout(config: Settings, mesh: Mesh, tokenizer: Tokenizer, reward: Reward) -> Rollout:
    """The function that writes and rewards the texts of a batch of prompts [A, B, …] (data/prompts.py)."""
    shardings = {
        name: batch_sharding(mesh, 1, axes)
        for name, axes in {TOKENS: 2, TARGETS: 2, WEIGHTS: 2, LOGPROBS: 2, "written": 2, "count": 1}.items()
    }
    write = jax.jit(_make_writer(config, tokenizer), out_shardings=shardings)

    def rollout(params: Any, batch: Batch, step: int) -> Batch:
        read = {name: batch[name] for name in (PROMPT, PROMPT_LENGTH, NUMBER) if name in batch}
        made = write(params, read, np.int32(step))
        written, count = made.pop("written"), made.pop("count")
        return made | {REWARDS: _rewarded(batch, written, count, tokenizer, reward)}

    return rollout


def _make_writer(config: Settings, tokenizer: Tokenizer) -> Callable[[Any, Batch, jax.Array], dict[str, jax.Array]]:
    """The program (params, prompts [A, B, …], step) → the written texts, behind their prompts and by themselves.

    Prompts without a NUMBER, those of training, have their place in the batch instead.
    """
    family = dataclasses.replace(reading_family_of(config.model), placement=MeshPlacement(config.mesh))
    length, group = config.data.sequence_length, config.training.group_size
    num_new = length - config.data.source_length

    def write(params: Any, batch: Batch, step: jax.Array) -> dict[str, jax.Array]:
        weights = decoding_params(family, params, config.model.dtype)
        key = jax.random.fold_in(jax.random.key(config.seed), step)

        def of_rows(rows: Batch) -> dict[str, jax.Array]:
            prompt_RS, length_R = (jnp.repeat(rows[name], group, axis=0) for name in (PROMPT, PROMPT_LENGTH))
            seeds_R = jax.vmap(lambda i: jax.random.bits(jax.random.fold_in(key, i), dtype=jnp.uint32))(
                jnp.ravel(rows[NUMBER][:, None] * group + jnp.arange(group))
            )
            written = generate(
                family,
                weights,
                prompt_RS,
                jnp.maximum(length_R, 1),
                jnp.where(length_R > 0, num_new, 0),
                _own_distribution(seeds_R, tokenizer),
                jnp.int32(-1 if tokenizer.eos_id is None else tokenizer.eos_id),
                rooms=tuple(rooms(num_new)),
                num_new=num_new,
                piece=prompt_RS.shape[1],
            )
            tokens_RN, logprobs_RN, count_R = written
            texts = _behind_prompts(prompt_RS, length_R, tokens_RN, logprobs_RN, count_R, length)
            texts |= {"written": tokens_RN, "count": count_R}
            return {name: x.reshape(-1, group, *x.shape[1:]) for name, x in texts.items()}

        in_batch_AB = jnp.arange(batch[PROMPT_LENGTH].size).reshape(batch[PROMPT_LENGTH].shape)
        return jax.lax.map(of_rows, {NUMBER: in_batch_AB} | dict(batch))

    return write


def _own_distribution(seeds_R: jax.Array, tokenizer: Tokenizer) -> Sampling:
    """Draws from the model's own distribution: its log-probabilities are then those of the draws."""
    ones, zeros = jnp.ones(seeds_R.shape), jnp.zeros(seeds_R.shape)
    return Sampling(seeds_R, ones, zeros.astype(jnp.int32), ones, zeros, ones, jnp.int32(tokenizer.vocab_size))


def _behind_prompts(
    prompt_RS: jax.Array,
    prompt_length_R: jax.Array,
    written_RN: jax.Array,
    logprobs_RN: jax.Array,
    length_R: jax.Array,
    length: int,
) -> dict[str, jax.Array]:
    """tokens, targets int32 [R, T], weights and logprobs float32 [R, T] of the texts, each after its prompt. Only the
    written tokens are targets with a weight."""

    def row(
        prompt_S: jax.Array, start: jax.Array, written_N: jax.Array, logprobs_N: jax.Array, count: jax.Array
    ) -> Any:
        place_T = jnp.arange(length)
        in_text_T = jnp.clip(place_T - start, 0, len(written_N) - 1)
        whole_T = jnp.where(place_T < start, prompt_S[jnp.minimum(place_T, len(prompt_S) - 1)], written_N[in_text_T])
        whole_T = jnp.where(place_T < start + count, whole_T, 0)
        is_written_T = (place_T >= start) & (place_T < start + count)
        logprobs_T = jnp.where(is_written_T, logprobs_N[in_text_T], 0.0)
        targets_T, weights_T, logprobs_T = (jnp.roll(x, -1) for x in (whole_T, jnp.float32(is_written_T), logprobs_T))
        return {TOKENS: whole_T, TARGETS: targets_T, WEIGHTS: weights_T, LOGPROBS: logprobs_T}

    return jax.vmap(row)(prompt_RS, prompt_length_R, written_RN, logprobs_RN, length_R)


def _rewarded(batch: Batch, written: jax.Array, count: jax.Array, tokenizer: Tokenizer, reward: Reward) -> jax.Array:
    """float32 [A, B, G]: the reward of each text; 0 for one that did not end in the room that it had.

    Each process decodes the texts that its devices hold.
    """
    prompts, lengths, answers, texts, counts = (
        _local(x) for x in (batch[PROMPT], batch[PROMPT_LENGTH], batch[ANSWER], written, count)
    )
    known: dict[int, np.ndarray] = {}

    def of_part(index: Any) -> np.ndarray:
        at = index[1].start or 0
        if at not in known:
            parts = prompts[at], lengths[at], answers[at], texts[at], counts[at]
            known[at] = _rewards(*parts, tokenizer, reward)
        return known[at]

    return jax.make_array_from_callback(count.shape, count.sharding, of_part)


def _local(array: jax.Array) -> dict[int, np.ndarray]:
    """The parts of an array [A, B, …] that this process holds, by their first row."""
    return {shard.index[1].start or 0: np.asarray(shard.data) for shard in array.addressable_shards}


def _rewards(
    prompt_ABS: np.ndarray,
    length_AB: np.ndarray,
    answer_ABN: np.ndarray,
    written_ABGN: np.ndarray,
    count_ABG: np.ndarray,
    tokenizer: Tokenizer,
    reward: Reward,
) -> np.ndarray:
    found = np.zeros(count_ABG.shape, np.float32)
    for place in np.ndindex(*count_ABG.shape):
        row, count = place[:2], count_ABG[place]
        if not count or written_ABGN[place][count - 1] != tokenizer.eos_id:
            continue
        prompt = tokenizer.decode(prompt_ABS[row][1 : max(length_AB[row] - 1, 1)].tolist())
        answer = tokenizer.decode([token for token in answer_ABN[row].tolist() if token != tokenizer.eos_id])
        found[place] = reward(prompt, tokenizer.decode(written_ABGN[place][: count - 1].tolist()), answer)
    return found
