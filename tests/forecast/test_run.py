"""What a run will be, from its plan, by formula."""

import dataclasses
import io

import numpy as np
import pytest
from abstract_runs import planned
from matplotlib.figure import Figure
from prepared_folders import write_prepared

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.display.formatting import count_text
from gptjax.display.terminal import Console
from gptjax.forecast import layouts, outcomes
from gptjax.forecast.devices import Place, described_place
from gptjax.forecast.formula import formula_needs
from gptjax.forecast.memory import bytes_on_device
from gptjax.forecast.picture import draw_loss
from gptjax.forecast.price import Price
from gptjax.forecast.room import FRACTION, PROCESS, fit_of
from gptjax.forecast.run import COPY_RATE, forecast_run
from gptjax.forecast.table import forecast_table
from gptjax.planning import plan
from gptjax.scaling.laws import LAWS
from gptjax.scaling.repetition import ON_C4
from gptjax.settings import thaw

H100 = described_place("H100", 8)
FIELDS = {
    **{"model.num_layers": 12, "model.width": 768, "model.num_heads": 12, "model.vocab_size": 32768},
    **{"data.sequence_length": 1024, "training.batch_size": 64, "training.duration": "10B tokens"},
}


def forecast_of(data=None, place=H100, **fields):
    config = default()
    config.update_from_flattened_dict(FIELDS | {name.replace("__", "."): value for name, value in fields.items()})
    made = plan(config, data or DataFacts(32768), place.devices)
    return made, forecast_run(made, place, formula_needs(made), Price(2.0, "USD"))


def shown(forecast):
    console = Console(file=io.StringIO(), width=200)
    console.print(forecast_table(forecast))
    return console.file.getvalue()


def test_the_loss_is_the_laws_with_all_laws_around_it():
    made, forecast = forecast_of()
    size, tokens, loss = float(made.parameters.total), float(made.total_tokens), forecast.loss
    assert loss.loss == pytest.approx(LAWS["besiroglu"].loss(size, tokens)) and not loss.extrapolated
    assert loss.lowest == min(law.loss(size, tokens) for law in LAWS.values()) <= loss.loss <= loss.highest
    assert forecast.tokens.optimal == pytest.approx(LAWS["besiroglu"].optimal_tokens(size))
    assert forecast_of(training__duration="1B tokens")[1].loss.extrapolated


def test_repeated_text_is_worth_less():
    new, old = forecast_of()[1], forecast_of(DataFacts(32768, windows_per_epoch=10**6))[1]
    assert old.tokens.epochs == pytest.approx(10e9 / 1.024e9, rel=1e-4) and old.loss.repeated
    assert new.tokens.epochs is None and old.loss.loss > new.loss.loss


def test_the_range_of_the_loss_includes_that_repetition_can_do_harm():
    made, forecast = forecast_of(DataFacts(32768, windows_per_epoch=10**5))  # about 100 epochs
    size, tokens, unique = float(made.parameters.total), float(made.total_tokens), float(forecast.tokens.at_hand)
    harm = ON_C4.loss(LAWS["besiroglu"], size, tokens, unique)
    assert forecast.loss.highest == pytest.approx(harm) and harm > forecast.loss.loss


def test_a_mixture_of_experts_counts_by_what_a_token_uses():
    made, forecast = forecast_of(model__num_experts=8)
    assert forecast.loss.loss == pytest.approx(
        LAWS["besiroglu"].loss(float(made.parameters.active), float(made.total_tokens))
    )
    each = made.total_tokens / made.parameters.active
    assert f"{each:.1f} per active parameter" in shown(forecast)


def test_the_picture_has_a_run_on_the_curve_of_its_law():
    forecast = forecast_of(model__num_experts=8)[1]
    panel = Figure().subplots()
    draw_loss(panel, forecast)
    lines = {line.get_label(): line for line in panel.get_lines()}
    ((tokens, loss),) = lines["this run"].get_xydata()
    curve = lines["Besiroglu et al."].get_xydata()
    assert np.interp(tokens, curve[:, 0], curve[:, 1]) == pytest.approx(loss, abs=1e-3)


def test_a_checkpoint_of_adapters_has_what_steps_change_and_the_base_is_written_once():
    made, whole = forecast_of()
    adapted = forecast_of(model__lora_rank=8)[1]
    assert adapted.checkpoint.shared == 4 * made.parameters.total and whole.checkpoint.shared == 0
    assert adapted.checkpoint.bytes < whole.checkpoint.bytes / 10
    trained = whole.size.parameters - adapted.size.parameters + adapted.size.trained
    assert trained == 0 and whole.size.trained == whole.size.parameters
    assert f"{count_text(adapted.size.trained)} of them trained" in shown(adapted)
    assert adapted.loss.loss is None and "model.lora_rank = 8" in adapted.loss.why_not


def test_price_and_energy_are_of_all_devices_for_the_whole_run():
    forecast = forecast_of()[1]
    hours = forecast.time.total.likely / 3600
    assert forecast.cost.likely == pytest.approx(8 * 2.0 * hours)
    assert forecast.energy_kwh.likely == pytest.approx(8 * 0.7 * hours)
    copied = forecast.checkpoint.saves * forecast.checkpoint.bytes / 8 / COPY_RATE["gpu"]  # by eight GPUs at once
    assert forecast.time.checkpoints.likely == pytest.approx(copied) and copied > 0
    assert forecast.time.total.likely == pytest.approx(
        forecast.time.training.likely + forecast.time.evaluation.likely + copied
    )
    assert forecast_of(place=described_place("v5p", 8))[1].energy_kwh is None  # no figure is published


@pytest.mark.parametrize("windows", ["contiguous", "packed"])
def test_an_evaluation_reads_no_more_than_the_validation_set(tmp_path, windows):
    document = [*range(7), 256]
    folder = write_prepared(tmp_path / "data", train=[document] * 9, validation=[document] * 4)
    fields = {"model__vocab_size": 0, "data__sequence_length": 8, "data__windows": windows, "evaluation__every": "50%"}

    def seconds(tokens, path):
        fields_of_one = fields | {"data__path": str(path), "evaluation__tokens": tokens}
        return forecast_of(DataFacts(265), **fields_of_one)[1].time.evaluation.likely

    all_tokens, whole = 4 * 8, seconds(1024, folder)
    assert whole == pytest.approx(seconds(1024, tmp_path / "not here") * all_tokens / 1024)
    assert seconds(16, folder) == pytest.approx(whole * 16 / all_tokens)
    assert seconds(0, folder) == whole > 0  # 0: all of it


def test_a_step_fits_into_what_jax_can_be_given(monkeypatch):
    made, forecast = forecast_of()
    memory = forecast.memory
    device = H100.hardware.memory
    monkeypatch.delenv(FRACTION, raising=False)
    large = dataclasses.replace(memory, workspace=memory.workspace + int(0.9 * device) - memory.total)
    assert fit_of(large, made, H100).fits and large.total > fit_of(large, made, H100).available == int(0.75 * device)
    monkeypatch.setenv(FRACTION, "0.92")
    assert large.total < fit_of(large, made, H100).available
    assert not fit_of(dataclasses.replace(large, workspace=int(device)), made, H100).fits


def test_on_processors_the_process_and_a_copy_for_saves_need_memory_beside_the_step():
    made = planned(platform="cpu")
    needs, beside = formula_needs(made), PROCESS + bytes_on_device(made.abstract_state)
    for room, fits in ((needs.memory.total, True), (needs.memory.total - 1, False)):
        host = dataclasses.replace(H100.hardware, platform="cpu", memory=float(room + beside))
        found = fit_of(needs.memory, made, Place(host, 1, made.devices))
        assert (found.fits, found.available, found.device) == (fits, room, room + beside)


def test_times_and_price_are_calibrated_by_earlier_runs_and_the_table_says_so(monkeypatch, tmp_path):
    before = forecast_of()[1]
    file = tmp_path / "runs.jsonl"
    monkeypatch.setenv(outcomes.VARIABLE, str(file))
    for ratio in (1.5, 1.4, 7.0):
        figures = outcomes.Figures(1.0, 1, 1.0), outcomes.Figures(ratio, 1, 1.0)
        of_kind = (H100.hardware.kind, "bfloat16", 8, 1, 1, 10, "compiled", 1.0, 0.0)
        outcomes.record(outcomes.Outcome("2026", *of_kind, *figures))
    file.write_text(file.read_text() + "{\n")
    after = forecast_of()[1]
    assert after.calibration == outcomes.Calibration(1.5, 3, 1) and before.calibration.runs == 0
    for name in ("products", "other", "sending", "step"):
        old, new = getattr(before.step, name), getattr(after.step, name)
        assert new == pytest.approx([1.5 * seconds for seconds in old])
    assert after.speed.tokens_per_second.likely == pytest.approx(before.speed.tokens_per_second.likely / 1.5)
    assert after.time.training.likely == pytest.approx(1.5 * before.time.training.likely)
    text = shown(after)
    assert "1.50 times the calculated time, the median of 3 earlier runs" in text and "1 damaged line" in text


def test_a_searchs_layouts_are_calibrated_like_its_forecast(monkeypatch, tmp_path):
    made, _ = forecast_of()
    monkeypatch.setattr(layouts, "calibrate", lambda kind, dtype: outcomes.Calibration(2.0, 1))
    slow = layouts.layouts_of(thaw(made.config), made.data, H100)[0]
    monkeypatch.undo()
    plain = layouts.layouts_of(thaw(made.config), made.data, H100)[0]
    assert slow.fields == plain.fields and slow.tokens_per_second == pytest.approx(plain.tokens_per_second / 2)
