"""What a model is for, in words, by its objective and its family; and what the Hugging Face hub calls it."""

from __future__ import annotations

import dataclasses

from gptjax.settings import Settings


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a model does.

    Attributes:
      does: completes "a model that …".
      learned: how it was trained, in a sentence without its subject.
      pipeline_tag: the hub's name of the task.
      writes: whether it writes text, so that samples of it can be shown.
      use: what it may be used for.
      loss: what to know of the loss that training reports, if that is not the loss on held-out data.
    """

    does: str
    learned: str
    pipeline_tag: str
    writes: bool
    use: str
    loss: str = ""


_CONTINUE = "research on small language models, and continuing texts like those it was trained on"
KINDS = {
    "next_token": Kind(
        "continues text",
        "predicted the next token of its texts",
        "text-generation",
        True,
        f"It is meant for {_CONTINUE}.",
    ),
    "completion": Kind(
        "writes a target after a source",
        "predicted the tokens of targets after their sources",
        "text-generation",
        True,
        "It is meant for sources like those of its training pairs.",
    ),
    "seq2seq": Kind(
        "turns a source text into a target text",
        "predicted the tokens of targets from their sources",
        "text-generation",
        True,
        "It is meant for sources like those of its training pairs.",
    ),
    "masked": Kind(
        "fills in hidden tokens of a text",
        "predicted tokens of its texts that were hidden from it",
        "fill-mask",
        False,
        "It is meant as the start of a classifier, or for research on representations of text.",
    ),
    "classification": Kind(
        "labels texts",
        "predicted the label of each text",
        "text-classification",
        False,
        "It is meant for texts like those it was trained on, and knows no other labels than these.",
    ),
    "instruction": Kind(
        "answers in a conversation",
        "predicted what the assistant wrote in conversations",
        "text-generation",
        True,
        "It is meant for instructions like those it was trained on.",
    ),
    "preference": Kind(
        "continues text, and prefers some answers to others",
        "learned to give chosen answers a higher probability than rejected ones, compared with a reference model",
        "text-generation",
        True,
        "It is meant for prompts like those of its preferences.",
    ),
    "grpo": Kind(
        "answers prompts that have a checkable answer",
        "wrote answers during training, and made those likelier that a function rewarded",
        "text-generation",
        True,
        "It is meant for prompts like those it was rewarded on.",
        "The loss is what the gradient was taken of: its value does not say how good the model is; the reward does.",
    ),
    "distillation": Kind(
        "continues text",
        "learned the probabilities that another model, its teacher, gives to the tokens of its texts",
        "text-generation",
        True,
        f"It is meant for {_CONTINUE}.",
    ),
    "on_policy_distillation": Kind(
        "answers prompts",
        "wrote texts during training, and learned the probabilities that its teacher gives to their tokens",
        "text-generation",
        True,
        "It is meant for prompts like those it was trained on.",
        "The loss compares the model with its teacher on texts that the model wrote.",
    ),
}
OWN = Kind(
    "was trained for an objective of the user's own",
    "was trained for an objective of the user's own",
    "other",
    False,
    "What it is meant for depends on that objective.",
)
FAMILIES = {
    "decoder": "decoder-only Transformer",
    "encoder": "Transformer encoder",
    "encoder_decoder": "encoder–decoder Transformer",
    "classifier": "classifier on a Transformer",
}


def kind_of(config: Settings) -> Kind:
    return KINDS.get(config.training.objective, OWN)


def family_words(config: Settings) -> str:
    words = FAMILIES.get(config.model.family, "model of the user's own family")
    return f"{words} with {config.model.num_experts} experts per layer" if config.model.num_experts else words
