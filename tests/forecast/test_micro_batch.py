"""training.batch_per_device = auto takes the largest micro-batch that fits; compiled steps correct the formula."""

import pytest
from abstract_runs import planned

from gptjax.config import ConfigError, hash_of
from gptjax.forecast import micro_batch
from gptjax.forecast.fits import likely_bytes, micro_batches, replaced
from gptjax.forecast.memory import bytes_on_device
from gptjax.forecast.micro_batch import Candidate, _earlier, decide


def chosen(made, room, true_bytes, seconds=lambda made: made.config.training.gradient_accumulation_steps):
    """(candidate, plans that were compiled)"""
    compiled = []

    def bytes_of(plan):
        compiled.append(candidate(plan))
        return true_bytes(plan)

    found, size = decide(made, room, seconds, bytes_of)
    assert size == true_bytes(found) or size > room
    return candidate(found), compiled


def candidate(plan):
    return Candidate(plan.config.training.gradient_accumulation_steps, plan.config.model.remat)


def sized(factor):
    """The true size of a step, if all but state and gradients is so many times the formula's figure."""

    def size(plan):
        fixed = bytes_on_device((plan.abstract_state, plan.abstract_state.params))
        return fixed + factor * (likely_bytes(plan) - fixed)

    return size


AUTO = {"training__batch_per_device": "auto"}


def test_a_whole_batch_at_once_is_taken_if_it_fits_and_compiled_once():
    made = planned(**AUTO)
    assert made.config.training.gradient_accumulation_steps == 1
    assert chosen(made, 1e15, sized(1)) == (Candidate(1, "none"), [Candidate(1, "none")])


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5])
def test_the_largest_that_fits_is_found_however_wrong_the_formula_is(factor):
    made = planned(count=2, **AUTO)
    room = 1.01 * sized(factor)(replaced(made, 8, "none"))
    found, compiled = chosen(made, room, sized(factor), lambda plan: 1 + (plan.config.model.remat != "none") * 99)
    assert found == Candidate(8, "none") and len(compiled) <= 4


def test_remat_is_taken_where_it_is_faster_than_accumulation_or_nothing_else_fits():
    made, slow = planned(data__sequence_length=8192, **AUTO), {"none": 1.0, "dots": 1.1, "attention": 1.2, "full": 1.3}

    def seconds(plan):  # each micro-batch costs a little
        return slow[plan.config.model.remat] + 0.05 * plan.config.training.gradient_accumulation_steps

    room = 1.01 * likely_bytes(replaced(made, 4, "dots"))
    assert likely_bytes(replaced(made, 4, "none")) > room
    assert chosen(made, room, sized(1), seconds)[0] == Candidate(4, "dots")
    least = 1.01 * likely_bytes(replaced(made, 64, "full"))
    assert chosen(made, least, sized(1), seconds)[0].remat == "full"


def test_the_users_own_remat_is_kept_or_raised_never_lowered():
    made = planned(model__remat="full", **AUTO)
    assert chosen(made, 1e15, sized(1))[0] == Candidate(1, "full")
    offloaded = planned(model__remat="offload_dots", **AUTO)
    assert chosen(offloaded, 1e15, sized(1))[0].remat == "offload_dots"


def test_if_nothing_fits_the_least_is_taken_so_that_it_can_be_refused():
    made = planned(**AUTO)
    found, size = decide(made, 1.0, lambda plan: 1.0, sized(1))
    assert candidate(found) == Candidate(64, "full") and size > 1


def test_on_processors_a_run_that_needs_more_than_is_left_is_refused(tmp_path, monkeypatch):
    """The system would kill it."""
    made = planned(platform="cpu", training__batch_size=4, **AUTO)
    monkeypatch.setattr(micro_batch, "bytes_per_device", lambda: 2**40)
    monkeypatch.setattr(micro_batch, "_room", lambda made: 2**20)
    monkeypatch.setattr(micro_batch, "_seconds_of", lambda made: lambda plan: 1.0)
    monkeypatch.setattr(micro_batch, "_compiled_bytes", lambda made: 2**30)
    monkeypatch.setattr(micro_batch, "refuse_compiled", lambda made, limit: None)  # which compiles
    with pytest.raises(ConfigError, match=r"even 1 sequence at once .* needs about 1.0 GiB, and 1 MiB are left"):
        micro_batch.fitted(made, tmp_path)


def test_the_batch_and_the_identity_of_the_run_stay():
    whole, parts = planned(), planned(training__batch_per_device="4")
    assert parts.config.training.gradient_accumulation_steps == 16 and parts.rows_at_once == 4
    assert hash_of(whole.config) == hash_of(parts.config) and whole.tokens_per_step == parts.tokens_per_step
    assert planned(4, training__batch_per_device="4").config.training.gradient_accumulation_steps == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"training__batch_per_device": "5"}, "batch_per_device = 5: 5 rows at once on 1 device must divide .* = 64"),
        (
            {"training__batch_per_device": "8", "model__num_experts": 4, "training__load_balance_over": "batch"},
            "load_balance_over = 'batch': must be 'sequence'",
        ),
    ],
)
def test_rows_that_do_not_divide_the_batch_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        planned(**fields)


def test_a_balance_over_the_batch_needs_the_batch_at_once():
    made = planned(model__num_experts=4, training__load_balance_over="batch", **AUTO)
    assert micro_batches(made) == [1]


def test_a_resumed_run_keeps_its_choice_on_as_many_devices(tmp_path, monkeypatch):
    training = {"gradient_accumulation_steps": 8, "batch_size": 64, "batch_per_device": "4"}
    saved = {"config": {"training": training, "model": {"remat": "dots"}}}
    assert _earlier(planned(2, **AUTO), tmp_path) is None  # nothing is saved
    monkeypatch.setattr(micro_batch, "saved_metadata", lambda workdir: saved)
    assert _earlier(planned(2, **AUTO), tmp_path) == Candidate(8, "dots")
    assert _earlier(planned(4, **AUTO), tmp_path) is None
    assert _earlier(planned(2, training__batch_size=128, **AUTO), tmp_path) is None
    training["batch_per_device"] = ""  # chosen by hand
    assert _earlier(planned(2, **AUTO), tmp_path) is None
