"""Predict what a larger model predicts: trains a student on a teacher's probabilities (Hinton et al.,
arXiv:1503.02531)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.data.keys import TARGETS, WEIGHTS
from gptjax.evaluation.scores import Score
from gptjax.tokenizer import Tokenizer
from gptjax.training.cross_entropy import loss_of_logits
from gptjax.training.divergence import forward_divergence
from gptjax.training.logits import logits_function, summed_over_chunks
from gptjax.training.objectives.next_token import NextToken
from gptjax.training.objectives.objective import Batch

DIVERGENCE = Score(
    "validation/divergence", "divergence from the teacher (nats per token)", "{:.4f} nats from the teacher"
)


class Distillation(NextToken):
    """A token's loss, with the weight a = `training.distillation_weight` and the temperature τ:

        (1 - a) · cross-entropy of the text + a · τ² · KL(teacher ‖ student)

    The factor τ² keeps the size of the gradient independent of τ. The batches and scores are those of `NextToken`, and
    the divergence from the teacher is one more score. Teacher and student have the same tokenizer and may differ in
    size.
    """

    scores = (*NextToken.scores, DIVERGENCE)

    @property
    def companions(self) -> Mapping[str, str]:
        return {"teacher": "training.teacher"}

    def loss(
        self, model: Any, params: Any, batch: Batch, dropout_keys_B: jax.Array | None = None, **companions: Any
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The summed loss; 'loss' reports the text's cross-entropy, 'teacher_loss' that of the teacher, and
        'divergence' their divergence at the temperature."""
        teacher, training = companions["teacher"], self.config.training
        student_BTD, statistics = self.hidden(model, params, batch, dropout_keys_B)
        teacher_BTD, _ = self.hidden(teacher.model, teacher.params, batch)
        student_logits = logits_function(model, params, student_BTD)
        teacher_logits = logits_function(teacher.model, teacher.params, teacher_BTD)

        def sums(tokens: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            """(smoothed loss, nll, teacher's nll, divergence), each summed over some tokens."""
            student_BCD, teacher_BCD, targets_BC, weights_BC = tokens
            student_BCV = student_logits(student_BCD)
            teacher_BCV = jax.lax.stop_gradient(teacher_logits(teacher_BCD))
            own = loss_of_logits(student_BCV, weights_BC, targets_BC, training.z_loss, 0.0, training.label_smoothing)
            _, teacher_nll = loss_of_logits(teacher_BCV, weights_BC, targets_BC, 0.0, 0.0, 0.0)
            divergence_BC = forward_divergence(
                teacher_BCV,
                student_BCV,
                temperature=training.distillation_temperature,
                top_k=training.distillation_top_k,
            )
            return *own, teacher_nll, jnp.sum(weights_BC * divergence_BC)

        arrays = (student_BTD, teacher_BTD, batch[TARGETS], batch[WEIGHTS])
        own, nll, teacher_nll, divergence = summed_over_chunks(sums, arrays, training.loss_chunk)
        share = training.distillation_weight
        total = (1 - share) * own + share * training.distillation_temperature**2 * divergence
        auxiliary, figures = self.auxiliary(statistics, batch)
        figures = {"loss": nll, "teacher_loss": teacher_nll, "divergence": divergence} | figures
        return total if auxiliary is None else total + auxiliary, jax.lax.stop_gradient(figures)

    def evaluation(self, model: Any, tokenizer: Tokenizer) -> Callable[..., dict[str, jax.Array]]:
        of_text = super().evaluation(model, tokenizer)

        def sums(params: Any, batch: Batch, **companions: Any) -> dict[str, jax.Array]:
            _, figures = self.loss(model, params, batch, **companions)  # the compiler merges the two computations
            return of_text(params, batch, **companions) | {"divergence": figures["divergence"]}

        return sums

    def scores_of(self, sums: Mapping[str, float]) -> dict[str, float]:
        return super().scores_of(sums) | {DIVERGENCE.name: sums["divergence"] / sums["tokens"]}
