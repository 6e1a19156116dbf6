"""Training objectives: one file for each, and a row here that gives its name in a config.

objective.py                  the interface (start here)
next_token.py                 pretraining of decoders; masked.py: of encoders
seq2seq.py, completion.py     pairs of texts, by an encoder–decoder or a decoder
classification.py             labelled texts
instruction.py                conversations
preference.py                 one answer rather than another: DPO, IPO
reference.py                  the model to which preference.py and grpo.py compare the trained one
on_policy.py                  what the model writes itself is the data; grpo.py: it is rewarded
distillation.py               a larger model's probabilities; on_policy_distillation.py: on the student's own texts
"""

from __future__ import annotations

import inspect

from gptjax.config import ConfigError, suggestion
from gptjax.config.named_functions import called, is_named, named_function
from gptjax.model.families import FAMILIES, family_named
from gptjax.settings import Settings
from gptjax.training.objectives.classification import Classification
from gptjax.training.objectives.completion import Completion
from gptjax.training.objectives.distillation import Distillation
from gptjax.training.objectives.grpo import GRPO
from gptjax.training.objectives.instruction import Instruction
from gptjax.training.objectives.masked import Masked
from gptjax.training.objectives.next_token import NextToken
from gptjax.training.objectives.objective import Objective
from gptjax.training.objectives.on_policy_distillation import OnPolicyDistillation
from gptjax.training.objectives.preference import Preference
from gptjax.training.objectives.seq2seq import Seq2Seq

OBJECTIVES: dict[str, type[Objective]] = {
    "next_token": NextToken,
    "completion": Completion,
    "masked": Masked,
    "seq2seq": Seq2Seq,
    "classification": Classification,
    "distillation": Distillation,
    "instruction": Instruction,
    "preference": Preference,
    "grpo": GRPO,
    "on_policy_distillation": OnPolicyDistillation,
}

__all__ = ["OBJECTIVES", "NextToken", "Objective", "make_objective"]

FIELD = "training.objective"


def make_objective(config: Settings) -> Objective:
    """The objective that a resolved config names: a key of `OBJECTIVES`, or your own 'module:Class'.

    Raises:
      ConfigError: there is no such objective, or the class is not an Objective or lacks a method.
    """
    name = config.training.objective
    if not is_named(name):
        if name not in OBJECTIVES:
            raise ConfigError(
                f"{FIELD} = {name!r}: expected one of {', '.join(OBJECTIVES)}, or module:Class of your own"
                f"{suggestion(name, OBJECTIVES)}"
            )
        trained_by = family_named(config.model.family).objectives
        particular = {each for family in FAMILIES.values() for each in family.objectives}
        if name in particular and name not in trained_by:
            raise ConfigError(
                f"{FIELD} = {name!r}: a model of model.family = {config.model.family!r} is trained by "
                f"{' or '.join(trained_by)}"
            )
        return OBJECTIVES[name](config)
    own = named_function(FIELD, name)
    if not (inspect.isclass(own) and issubclass(own, Objective)):
        raise ConfigError(f"{FIELD} = {name!r}: must be a subclass of gptjax.training.objectives.Objective")
    if missing := sorted(own.__abstractmethods__):
        raise ConfigError(f"{FIELD} = {name!r}: must define {', '.join(missing)}")
    if not getattr(own, "scores", ()):
        raise ConfigError(f"{FIELD} = {name!r}: must define scores, the first of which decides what is best")
    return called(FIELD, name, lambda: own(config))
