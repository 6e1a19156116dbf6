"""Searches on sizes of a small family, for devices of the table, by formula."""

import io
import math

import pytest

from gptjax.config import ConfigError, default
from gptjax.config.user_code import load_config
from gptjax.data.facts import DataFacts
from gptjax.display.terminal import Console
from gptjax.forecast.candidates import counts, text_tokens
from gptjax.forecast.choices import choices_table, chosen_config, most_useful_passes, write_config
from gptjax.forecast.devices import described_place
from gptjax.forecast.layouts import layouts_of
from gptjax.forecast.price import Price
from gptjax.forecast.search import LAW, LEAST_TOKENS, NEAREST, Candidate, Goal, choose
from gptjax.planning import plan
from gptjax.scaling.repetition import ON_C4

DATA = DataFacts(512)


def config_of(layers, width):
    config = default()
    config.update_from_flattened_dict(
        {
            **{"model.num_layers": layers, "model.width": width, "model.num_heads": width // 64},
            **{"data.sequence_length": 1024, "training.batch_size": 64, "training.duration": "1B tokens"},
        }
    )
    return config


@pytest.fixture(scope="module")
def family():
    return {width: config_of(width // 64, width) for width in (256, 512, 1024, 2048)}


def candidates(family, name, count=1):
    place = described_place(name, count)
    return [Candidate(f"width {width}", config, DATA, place) for width, config in family.items()]


def test_the_lowest_loss_in_a_time_is_of_the_size_between_the_extremes(family):
    seconds = 3600.0
    choices = choose(Goal("seconds", seconds, "--hours=1"), candidates(family, "H100"), Price(2.0, "USD"))
    best = choices[0]
    assert best.loss == min(choice.loss for choice in choices) and not best.reason
    assert all(choice.reason.startswith("loss +") for choice in choices[1:])
    for choice in choices:
        assert 0.95 * seconds < choice.seconds < 0.995 * seconds  # the rest is for evaluations and saves
        assert choice.tokens == pytest.approx(choice.layout.tokens_per_second * choice.seconds)
        assert choice.loss == pytest.approx(LAW.loss(float(choice.parameters), float(choice.tokens)))
        assert choice.cost == pytest.approx(2.0 * choice.seconds / 3600)
    longer = choose(Goal("seconds", 100 * seconds, "--hours=100"), candidates(family, "H100"), None)[0]
    assert longer.parameters > best.parameters and longer.loss < best.loss


def test_sizes_that_the_law_cannot_tell_apart_are_called_about_as_good():
    near = {layers: config_of(layers, 768) for layers in (6, 10, 12, 13)}
    best, *others = choose(Goal("seconds", 3600.0, "--hours=1"), candidates(near, "H100"), None)
    alike = [other for other in others if other.loss - best.loss < 0.005]
    assert 0 < len(alike) < len(others)
    for other in others:
        assert ("about as good" in other.reason) == (other in alike)
        if other in alike:
            assert ("but larger" in other.reason) == (other.parameters > best.parameters)


def test_the_cheapest_way_to_a_loss_reaches_it_and_says_which_size_cannot(family):
    wanted = 3.2
    choices = choose(Goal("loss", wanted, "--loss=3.2"), candidates(family, "H100", 8), None)
    able = [choice for choice in choices if choice.loss is not None]
    assert [choice.seconds for choice in able] == sorted(choice.seconds for choice in able)
    for choice in able:  # the largest gets there before a run of its size is of any use
        assert choice.loss == pytest.approx(wanted, abs=0.002) or choice.tokens == pytest.approx(
            LEAST_TOKENS * choice.parameters, rel=0.01
        )
        assert choice.loss < wanted + 0.002
    repeated = choose(Goal("loss", wanted, "--loss=3.2", unique=1.2e8), candidates(family, "H100"), None)
    assert repeated[0].passes > 1 and repeated[0].tokens == pytest.approx(1.2e8 * repeated[0].passes)
    assert [choice.reason for choice in repeated if choice.loss is None and "stays above" in choice.reason]


def test_sizes_that_reach_a_loss_in_about_the_same_time_are_called_about_as_fast():
    near = {layers: config_of(layers, 768) for layers in (8, 14, 16, 18)}
    best, *others = choose(Goal("loss", 3.3, "--loss=3.3"), candidates(near, "H100"), None)
    alike = [other for other in others if other.seconds < 1.01 * best.seconds]
    assert 0 < len(alike) < len(others)
    for other in others:
        larger = other.parameters > best.parameters
        if other in alike:
            assert other.reason == f"about as fast, {'but larger' if larger else 'and smaller, so cheaper to use'}"
        else:
            assert other.reason.startswith(f"too {'large' if larger else 'small'}: 1.")
    far = choose(Goal("loss", 3.0, "--loss=3"), candidates(near, "H100"), None)[-1]
    assert far.tokens / far.parameters > 1000 and "for 1.38k tokens per parameter" in far.reason


def test_text_at_hand_asks_for_the_size_that_it_feeds(family):
    choices = choose(Goal("text", 0.0, "--text", unique=5e9), candidates(family, "H100"), None)
    ratios = [abs(math.log(choice.tokens / LAW.optimal_tokens(float(choice.parameters)))) for choice in choices]
    assert ratios[0] == min(ratios) and choices[0].passes == pytest.approx(4.0, rel=1e-3)


def test_the_passes_over_a_text_say_when_repeating_stops_helping(family):
    choices = choose(Goal("text", 0.0, "--text", unique=2e8), candidates(family, "H100"), None)
    printed = io.StringIO()
    Console(file=printed, width=160).print(choices_table(choices, None))
    text = " ".join(printed.getvalue().split())
    assert "repeating helps for the 60 passes" in text and "passes over 200M tokens" in text
    assert f"{ON_C4.loss(LAW, choices[0].size, 8 * 2e8, 2e8):.3f}" in text
    losses = [ON_C4.loss(LAW, 4e9, passes * 2e8, 2e8) for passes in range(1, 60)]
    best = most_useful_passes(4e9, 2e8)
    assert losses[best - 1] == min(losses) and 1 < best < 60


def test_a_loss_that_is_not_better_than_guessing_is_not_shown():
    """The law was fitted to larger models on more tokens."""
    goal, place = Goal("seconds", 60.0, "--hours"), described_place("A10", 1)
    (tiny,) = choose(goal, [Candidate("it", config_of(1, 64), DATA, place)], None)
    printed = io.StringIO()
    Console(file=printed, width=160).print(choices_table([tiny], None))
    assert tiny.loss > math.log(DATA.vocab_size) and not tiny.is_better_than_guessing
    assert "above that of guessing" in printed.getvalue() and f"{tiny.loss:.3f}" not in printed.getvalue()


def test_at_least_three_sizes_are_compared_however_small_the_budget_is(family):
    assert len(choose(Goal("seconds", 120.0, "--hours"), candidates(family, "A10"), None)) == NEAREST


def test_the_largest_size_that_fits_and_the_fewest_devices(family):
    large = family | {4096: config_of(32, 4096)}
    choices = choose(Goal("fit", 0.0, "--fit"), candidates(large, "RTX4090"), None)
    assert choices[0].layout.fits and "does not fit" in choices[-1].reason
    able = [choice.parameters for choice in choices if choice.can_train]
    assert choices[0].parameters == max(able)
    many = choose(
        Goal("fit", 0.0, "--fit"), counts(large[4096], DATA, lambda count: described_place("H100", count)), None
    )
    fewer = next(choice for choice in many if choice.place.count == many[0].place.count // 2)
    assert not fewer.can_train and "does not fit" in fewer.reason


def test_each_way_to_train_says_why_it_is_not_the_best(family):
    layouts = layouts_of(family[1024], DATA, described_place("H100", 8))
    best, *others = layouts
    assert not best.reason and all(layout.reason for layout in others)
    assert best.tokens_per_second >= 0.985 * max(layout.tokens_per_second for layout in others[:-1])
    assert any("computes more" in layout.reason for layout in others if layout.fields["model.remat"] == "full")
    assert "fp8" in str(others[-1].fields) and "changes the loss" in others[-1].reason
    meshes = {tuple(size for field, size in layout.fields.items() if "mesh" in field) for layout in layouts}
    assert len(meshes) == 6


def test_eight_bits_that_are_not_faster_are_not_called_faster(family):
    reasons = [layouts_of(config, DATA, described_place("H100", 1))[-1].reason for config in family.values()]
    reasons += [layouts_of(config_of(1, 64), DATA, described_place("H100", 1))[-1].reason]
    assert all(reason.endswith("changes the loss by an unknown amount") for reason in reasons)
    assert "% faster, but" in reasons[3] and reasons[-1].startswith("not faster")


def test_a_law_counts_the_parameters_that_a_token_uses():
    config, place = load_config("configs/moe.py:olmoe"), described_place("H100", 8)
    candidate = Candidate("olmoe", config, DataFacts(config.model.vocab_size), place)
    (choice,) = choose(Goal("seconds", 1e6, "--hours=278"), [candidate], None)
    assert choice.parameters == 6_919_161_856 and candidate.parameters == choice.size < 1.3e9
    assert choice.loss == pytest.approx(LAW.loss(choice.size, float(choice.tokens)))


@pytest.mark.parametrize(
    ("config", "hardware", "count", "fields", "axis"),
    [
        ("llama.py:8b", "H100", 8, {"training.batch_size": 8, "data.sequence_length": 131_072}, "context"),
        ("moe.py:glm4.5_air", "H100", 64, {"model.expert_capacity": 1.25}, "expert"),
        ("llama.py:8b", "L40S", 64, {"training.batch_size": 256}, "pipeline"),
    ],
)
def test_long_sequences_experts_and_layers_are_divided_where_that_is_fastest(config, hardware, count, fields, axis):
    """Each is the fastest or about as fast, and without it the first model would not train with fsdp alone."""
    made = load_config(f"configs/{config}")
    made.update_from_flattened_dict(fields)
    layouts = layouts_of(made, DataFacts(made.model.vocab_size), described_place(hardware, count))
    divided = next(layout for layout in layouts if layout.fields[f"mesh.{axis}"] > 1)
    assert divided.tokens_per_second > 0.97 * layouts[0].tokens_per_second > 0
    assert any("model.matmul" in layout.fields for layout in layouts) == (axis != "expert")  # 8 bits, not for experts
    if axis == "context":
        plain = [layout for layout in layouts if layout.fields["mesh.fsdp"] == count]
        assert plain and not any(layout.fits for layout in plain)


@pytest.mark.parametrize(
    ("goal", "words"),
    [(Goal("seconds", 1e-3, "--hours=3e-7"), "the least that does"), (Goal("fit", 0.0, "--fit"), "does not fit")],
)
def test_a_budget_that_buys_nothing_is_refused(goal, words):
    sizes = {8192: config_of(96, 8192)} if goal.kind == "fit" else {64: config_of(1, 64)}
    with pytest.raises(ConfigError, match=f"{goal.flag}.*{words}"):
        choose(goal, candidates(sizes, "A10"), None)


def test_the_written_config_is_the_one_that_was_chosen(family, tmp_path):
    best = choose(Goal("seconds", 3600.0, "--hours=1"), candidates(family, "H100", 8), None)[0]
    config = chosen_config(best)
    write_config(config, 'why "so"', tmp_path / "best.py")
    read = load_config(str(tmp_path / "best.py"))
    assert read.to_dict() == config.to_dict()
    made = plan(read, DATA, best.place.devices)
    assert made.total_tokens == best.tokens and made.parameters.total == best.parameters


def test_text_is_a_size_or_files(tmp_path):
    assert text_tokens("2GB") == text_tokens("2gb") == pytest.approx(1000 * text_tokens("2 MB"))
    (tmp_path / "a.txt").write_bytes(b"a" * 4400)
    assert text_tokens(str(tmp_path)) == text_tokens(str(tmp_path / "a.txt")) == pytest.approx(1000)
    for text in ("nothing here", "0GB"):
        with pytest.raises(ConfigError, match="--text"):
            text_tokens(text)
