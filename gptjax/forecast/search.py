"""Finds what a budget can train: sizes, tokens and layouts, ranked, each with the reason why it is not the best.

  ranked = choose(Goal("hours", 24), candidates, place, price)

Losses are those of a published law, so they rank sizes but do not predict the loss on other text.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from ml_collections import ConfigDict

from gptjax.config import ConfigError
from gptjax.data.facts import DataFacts
from gptjax.display.formatting import bytes_text, count_text, counted
from gptjax.forecast import layouts as ways
from gptjax.forecast.devices import Place
from gptjax.forecast.layouts import Layout, layouts_of
from gptjax.forecast.memory import Memory
from gptjax.forecast.price import Price
from gptjax.forecast.room import FRACTION, fit_of
from gptjax.forecast.run import dense_size, law_loss, peak_of_device
from gptjax.forecast.tuning import EVALUATED, FORWARD, evaluated, tuned
from gptjax.model.families import family_of
from gptjax.model.parameters import count_parameters
from gptjax.planning import resolve
from gptjax.scaling.laws import DEFAULT, LAWS

LAW = LAWS[DEFAULT]
EPOCHS = 4  # up to this many passes over a text are nearly as useful as new text (arXiv:2305.16264)
NEAREST = 3  # sizes that are tried at least
AROUND = 5.0  # sizes up to this factor below and above the law's optimum are tried
LEAST_TOKENS, LEAST_STEPS = 1.0, 100  # tokens per parameter, and steps, below which training is useless
MOST_TOKENS = 1e16
ALIKE = 0.005  # nats per token; the law's constants are not known well enough to tell sizes with closer losses apart
BESIDE = 0.01  # fraction of a budget for saves, and for what else is not a step
ROUNDS = 3  # the batch depends on the tokens, these on the speed, and this on the batch


@dataclasses.dataclass(frozen=True)
class Goal:
    """What the search looks for.

    Attributes:
      kind: 'seconds': the lowest loss within a time; 'loss': the shortest time to a loss; 'text': the size that suits
        the text; 'fit': the largest size that fits, or the fewest devices.
      amount: seconds or nats per token; 0 for the others.
      flag: the user's flag, for messages: '--hours=24'.
      unique: tokens of the text at hand; infinite if the text never repeats.
    """

    kind: str
    amount: float = 0.0
    flag: str = ""
    unique: float = math.inf


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A config that can be trained, and the name by which it was loaded. parameters: those that a token uses."""

    name: str
    config: ConfigDict
    data: DataFacts
    place: Place

    @property
    def parameters(self) -> int:
        settings = resolve(self.config, self.data, platform="", batch_devices=1)
        counts = count_parameters(family_of(settings.model).declarations)
        return counts.active if settings.model.num_experts else counts.total


@dataclasses.dataclass(frozen=True)
class Choice:
    """A candidate with its results.

    Attributes:
      tokens, seconds, loss, cost: None if it cannot be trained, or cannot reach the goal.
      passes: passes over the text at hand; 0 if the text never repeats.
      config: the candidate's, with a batch, learning rates and evaluations that suit its tokens.
      layouts: all layouts that were tried, the best first.
      notes: what changed in the config, and why.
      reason: why it is not the best; '' for the best.
    """

    name: str
    config: ConfigDict
    place: Place
    parameters: int
    layouts: Sequence[Layout]
    tokens: float | None = None
    seconds: float | None = None
    loss: float | None = None
    cost: float | None = None
    passes: float = 0.0
    notes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def layout(self) -> Layout:
        return self.layouts[0]

    @property
    def size(self) -> float:
        """The N of a law: of a mixture of experts, the parameters that a token uses."""
        return dense_size(self.layout.plan) if self.layout.plan else float(self.parameters)

    @property
    def is_better_than_guessing(self) -> bool:
        """Whether the law's loss is below that of guessing any token; if not, it only ranks such small runs."""
        vocabulary = self.layout.plan.config.model.vocab_size if self.layout.plan else 0
        return self.loss is not None and vocabulary > 0 and self.loss < math.log(vocabulary)

    @property
    def can_train(self) -> bool:
        return self.layout.tokens_per_second > 0


def choose(goal: Goal, candidates: Iterable[Candidate], price: Price | None) -> list[Choice]:
    """The candidates that are worth trying for this goal, the best first.

    Raises:
      ConfigError: the budget buys nothing, or nothing fits.
    """
    kept = list(candidates)
    if goal.kind == "fit":
        choices = _around_the_limit(goal, kept, price)
    else:
        choices = [_choice(goal, candidate, price) for candidate in _worth_trying(goal, kept)]
    return _ranked(goal, choices, price)


def without_best(goal: Goal, choices: Sequence[Choice], compiled: Memory, price: Price | None) -> list[Choice]:
    """The choices again, since the compiled step of the best needs more memory than there is.

    Raises:
      ConfigError: nothing else fits.
    """
    best, *others = choices
    layouts = ways.without_best(best.layouts, compiled, best.place)
    again = Choice(best.name, best.config, best.place, best.parameters, layouts, notes=best.notes)
    return _ranked(goal, [_trained(goal, again, price), *others], price)


def _ranked(goal: Goal, choices: list[Choice], price: Price | None) -> list[Choice]:
    """The best first, and the others with the reasons why they lost."""
    able = [choice for choice in choices if choice.can_train and choice.tokens is not None]
    if not able:
        raise ConfigError(_nothing(goal, choices))
    ranked = sorted(able, key=_ORDER[goal.kind])
    best = dataclasses.replace(ranked[0], reason="")
    if goal.kind == "seconds" and (best.tokens or 0) < _least_tokens(best):
        _refuse_least(goal, able, price)
    rest = [choice for choice in choices if choice not in able]
    others = [dataclasses.replace(choice, reason=_REASONS[goal.kind](choice, best)) for choice in ranked[1:]]
    return [best, *others, *(dataclasses.replace(choice, reason=_unable(choice, goal)) for choice in rest)]


# --- what is tried ---------------------------------------------------------------------------------------------------


def _worth_trying(goal: Goal, candidates: list[Candidate]) -> list[Candidate]:
    """The candidates near the size that the law recommends, and at least the NEAREST ones."""
    if len(candidates) <= NEAREST:
        return candidates
    wanted = _wanted_size(goal, candidates[0].place)
    sizes = {candidate.name: candidate.parameters for candidate in candidates}
    largest = wanted * AROUND * (1 if math.isinf(goal.unique) else 4)  # more parameters make up for too little text
    near = [each for each in candidates if wanted / AROUND <= sizes[each.name] <= largest]
    nearest = sorted(candidates, key=lambda each: abs(math.log(sizes[each.name] / wanted)))[:NEAREST]
    return near if len(near) > len(nearest) else nearest


def _around_the_limit(goal: Goal, candidates: list[Candidate], price: Price | None) -> list[Choice]:
    """A binary search for the largest candidate that fits, or that with the fewest devices: all that it tried."""
    easiest = sorted(candidates, key=lambda each: (-each.place.count, each.parameters))
    found: dict[int, Choice] = {}
    low, high = -1, len(easiest)
    while high - low > 1:
        middle = (low + high) // 2
        found[middle] = _choice(goal, easiest[middle], price)
        low, high = (middle, high) if found[middle].can_train else (low, middle)
    return list(found.values())


def _wanted_size(goal: Goal, place: Place) -> float:
    if goal.kind == "loss":
        return LAW.optimal(LAW.flops_for(goal.amount))[0]
    if goal.kind == "text":
        return LAW.optimal_parameters(EPOCHS * goal.unique)
    platform = place.hardware.platform
    peak = peak_of_device(place, "float32" if platform == "cpu" else "bfloat16") or 1e14
    return LAW.optimal(0.4 * peak * place.count * goal.amount)[0]


def _choice(goal: Goal, candidate: Candidate, price: Price | None) -> Choice:
    """The candidate with its results, and with a batch that suits the tokens that it trains on."""
    found = _with_config(goal, candidate, candidate.config, (), price)
    for _ in range(ROUNDS if goal.kind != "fit" else 0):
        if found.tokens is None:
            break
        changes = tuned(candidate.config, found.tokens, candidate.place.count)
        config = ways.with_fields(candidate.config, changes.fields)
        if config.to_dict() == found.config.to_dict():
            break
        found = _with_config(goal, candidate, config, changes.notes, price)
    return found


def _with_config(
    goal: Goal, candidate: Candidate, config: ConfigDict, notes: tuple[str, ...], price: Price | None
) -> Choice:
    layouts = layouts_of(config, candidate.data, candidate.place)
    made = layouts[0].plan
    parameters = made.parameters.total if made else candidate.parameters
    return _trained(goal, Choice(candidate.name, config, candidate.place, parameters, layouts, notes=notes), price)


def _trained(goal: Goal, found: Choice, price: Price | None) -> Choice:
    """The choice with what its best layout reaches."""
    made, rate = found.layout.plan, found.layout.tokens_per_second
    if not rate or made is None:
        return found
    tokens = _tokens(goal, found, rate, float(made.total_tokens))
    if tokens is None:
        return found
    if goal.kind == "loss":  # the shortest useful run goes below an easy one
        tokens = max(tokens, LEAST_TOKENS * found.parameters, LEAST_STEPS * made.tokens_per_step)
    return with_tokens(goal, found, tokens, price)


def with_tokens(goal: Goal, found: Choice, tokens: float, price: Price | None) -> Choice:
    """The choice with what it reaches on so many tokens, in whole steps."""
    assert found.layout.plan is not None
    step = found.layout.plan.tokens_per_step
    whole = math.floor if goal.kind == "seconds" else math.ceil
    tokens = max(whole(tokens / step), 1) * step
    seconds = tokens / found.layout.tokens_per_second
    cost = price.of(found.place.count, seconds) if price else None
    loss = law_loss(LAW, found.size, tokens, goal.unique)
    return dataclasses.replace(found, tokens=tokens, seconds=seconds, loss=loss, cost=cost, passes=tokens / goal.unique)


def _tokens(goal: Goal, found: Choice, rate: float, planned: float) -> float | None:
    """The tokens on which a size trains for this goal; None: it cannot reach the goal."""
    parameters = found.size
    if goal.kind == "seconds":
        tokens = goal.amount * (1 - BESIDE) * rate
        return tokens * (1 - min(FORWARD * evaluated(found.config, tokens) / tokens, EVALUATED))
    if goal.kind == "text":
        return EPOCHS * goal.unique
    if goal.kind == "fit":
        return planned
    low, high = 1e3, MOST_TOKENS
    if law_loss(LAW, parameters, high, goal.unique) > goal.amount:
        return None
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if law_loss(LAW, parameters, middle, goal.unique) <= goal.amount else (middle, high)
    return high


# --- why the others lost ---------------------------------------------------------------------------------------------


def _by_seconds(choice: Choice, best: Choice) -> str:
    more = (choice.loss or 0) - (best.loss or 0)
    each = (choice.tokens or 0) / choice.parameters
    larger = choice.parameters > best.parameters
    if more < ALIKE:
        return f"loss {more:+.3f}: about as good, {'but larger' if larger else 'and smaller, so cheaper to use'}"
    if larger:
        return f"loss {more:+.3f}: too large for the budget, {count_text(each)} tokens per parameter"
    return f"loss {more:+.3f}: small, and {count_text(each)} tokens per parameter do not make up for it"


def _by_loss(choice: Choice, best: Choice) -> str:
    longer = (choice.seconds or 0) / (best.seconds or 1)
    each = (choice.tokens or 0) / choice.parameters
    larger = choice.parameters > best.parameters
    if longer - 1 < ways.ALIKE:
        return f"about as fast, {'but larger' if larger else 'and smaller, so cheaper to use'}"
    size = "large" if larger else "small"
    return f"too {size}: {longer:.2f} times the time, for {count_text(each)} tokens per parameter"


def _by_text(choice: Choice, best: Choice) -> str:
    longer, more = (choice.seconds or 0) / (best.seconds or 1), (choice.loss or 0) - (best.loss or 0)
    if choice.parameters > best.parameters:
        return f"too large for the text: {longer:.2f} times the time, loss {more:+.3f}"
    return f"too small for the text: loss {more:+.3f}"


def _by_fit(choice: Choice, best: Choice) -> str:
    if choice.place.count != best.place.count:
        return f"also fits, but {counted(best.place.count, 'device')} suffice"
    return f"also fits, but has {choice.parameters / best.parameters:.0%} of the parameters"


def _unable(choice: Choice, goal: Goal) -> str:
    if choice.can_train:
        return f"cannot reach this: the loss stays above {law_loss(LAW, choice.size, MOST_TOKENS, goal.unique):.3f}"
    fits = [
        (layout.needs.memory.total, fit_of(layout.needs.memory, layout.plan, choice.place))
        for layout in choice.layouts
        if layout.needs and layout.plan
    ]
    if not fits:
        return choice.layouts[0].reason
    least, fit = min(fits, key=lambda each: each[0])
    sentence = f"does not fit: at least {bytes_text(least)} of {bytes_text(fit.available)} per device"
    return f"{sentence}; JAX can be given more by {FRACTION}" if fit.fits else sentence


_ORDER: Mapping[str, Callable[[Choice], tuple]] = {
    "seconds": lambda choice: (choice.loss,),
    "loss": lambda choice: (choice.seconds,),
    "text": lambda choice: (abs(math.log((choice.tokens or 1) / LAW.optimal_tokens(choice.size))),),
    "fit": lambda choice: (choice.place.count, -choice.parameters),
}
_REASONS: Mapping[str, Callable[[Choice, Choice], str]] = {
    "seconds": _by_seconds,
    "loss": _by_loss,
    "text": _by_text,
    "fit": _by_fit,
}


def _nothing(goal: Goal, choices: list[Choice]) -> str:
    smallest = min(choices, key=lambda choice: choice.parameters)
    where = f"{smallest.place.count} × {smallest.place.hardware.name}"
    return f"{goal.flag}: no size reaches this on {where}; {smallest.name}: {_unable(smallest, goal)}"


def _least_tokens(choice: Choice) -> float:
    assert choice.layout.plan is not None
    return max(LEAST_TOKENS * choice.parameters, LEAST_STEPS * choice.layout.plan.tokens_per_step)


def _refuse_least(goal: Goal, able: list[Choice], price: Price | None) -> None:
    """Raises ConfigError, which names the shortest useful run, and what it costs."""
    seconds, least = min(
        ((_least_tokens(choice) / choice.layout.tokens_per_second, choice) for choice in able), key=lambda each: each[0]
    )
    where, tokens = f"{least.place.count} × {least.place.hardware.name}", count_text(_least_tokens(least))
    costs = f" ({price.text(least.place.count, seconds)})" if price else ""
    time = counted(math.ceil(seconds), "second")
    raise ConfigError(
        f"{goal.flag}: buys nothing useful; the least that does is {time} on {where}{costs}, "
        f"for {least.name} on {tokens} tokens (a useful run has at least {LEAST_STEPS} steps, here of "
        f"{counted(least.config.training.batch_size, 'row')}, and {LEAST_TOKENS:g} token for each of its "
        f"{least.parameters:,} parameters)"
    )
