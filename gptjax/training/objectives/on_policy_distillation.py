"""Correct what the student writes by what a teacher would have written: distillation on the student's own texts
(arXiv:2306.13649)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptjax.data.keys import WEIGHTS
from gptjax.training.divergence import reverse_divergence
from gptjax.training.logits import logits_function, summed_over_chunks
from gptjax.training.objectives.objective import Batch
from gptjax.training.objectives.on_policy import OnPolicy


class OnPolicyDistillation(OnPolicy):
    """The loss of a token is KL(student ‖ teacher) of the distributions at its place, over the whole vocabulary, after
    the tokens that the student has written so far.

    The gradient does not pass through the choice of these tokens. Rewards are only reported: the teacher's
    probabilities say more about each token than a reward says about the whole text.
    """

    @property
    def companions(self) -> Mapping[str, str]:
        return {"teacher": "training.teacher"}

    def weight(self, batch: Batch) -> jax.Array:
        """The number of written tokens; at least 1."""
        return jnp.maximum(batch[WEIGHTS].sum(), 1.0)

    def loss_of_texts(
        self, model: Any, params: Any, x_RTD: jax.Array, batch: Batch, companions: Mapping[str, Any]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        teacher, training = companions["teacher"], self.config.training
        teacher_RTD, _ = self.hidden(teacher.model, teacher.params, batch)
        student_logits = logits_function(model, params, x_RTD)
        teacher_logits = logits_function(teacher.model, teacher.params, teacher_RTD)

        def divergence(tokens: tuple[jax.Array, ...]) -> jax.Array:
            student_RCD, teacher_RCD, weights_RC = tokens
            teacher_RCV = jax.lax.stop_gradient(teacher_logits(teacher_RCD))
            each_RC = reverse_divergence(
                teacher_RCV, student_logits(student_RCD), temperature=training.distillation_temperature
            )
            return jnp.sum(weights_RC * each_RC)

        return summed_over_chunks(divergence, (x_RTD, teacher_RTD, batch[WEIGHTS]), training.loss_chunk), {}
