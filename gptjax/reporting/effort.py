"""What a run took: time and FLOPs as recorded, energy and cost as estimates from the devices and given prices.

Time is measured: the sums of `elapsed_seconds` and of the steps' times in metrics.jsonl. Steps that a kill threw away
are repeated by the next start and appear once, so a run that was often killed took longer than these figures say.
FLOPs are counted by the formula of the model's family for the tokens trained on. Energy is an estimate: the power that
the maker states for the device under load (forecast/hardware.py), or `Prices.watts`, times the measured time. It counts
neither processors, memory, network and cooling beside the devices, nor data preparation and other runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptjax.forecast.hardware import DEVICES, Hardware
from gptjax.forecast.price import Price
from gptjax.reporting.history import Start


@dataclasses.dataclass(frozen=True)
class Prices:
    """What the user states: the price of a device and hour, the power of a device, the carbon of a kilowatt-hour."""

    price: Price | None = None
    watts: float | None = None
    grams_per_kwh: float | None = None


@dataclasses.dataclass(frozen=True)
class Effort:
    """Attributes:
    seconds: wall time of all starts, with compiling, evaluating and saving; None: no row has it.
    training_seconds: of these, the time of training steps.
    flops: of training, forward and backward.
    peak_flops: of all devices together, per second; peak: where it comes from.
    mfu: the share of the peak that the steps reached, averaged over the time of training.
    watts: of one device; watts_from: who says so.
    """

    seconds: float | None = None
    training_seconds: float | None = None
    tokens_per_second: float | None = None
    flops: float | None = None
    mfu: float | None = None
    peak_flops: float | None = None
    peak: str = ""
    hardware: Mapping[str, Any] | None = None
    several_kinds: bool = False
    memory_bytes: float | None = None
    watts: float | None = None
    watts_from: str = ""
    prices: Prices = Prices()

    @property
    def devices(self) -> int | None:
        count = (self.hardware or {}).get("devices")
        return count if isinstance(count, int) else None

    @property
    def device_seconds(self) -> float | None:
        if self.seconds is None or self.devices is None:
            return None
        # The devices of a CPU are parts of one machine.
        count = (self.hardware or {}).get("processes", 1) if (self.hardware or {}).get("platform") == "cpu" else None
        return self.seconds * (count or self.devices)

    @property
    def kilowatt_hours(self) -> float | None:
        if self.watts is None or self.device_seconds is None or self.several_kinds:
            return None
        return self.watts * self.device_seconds / 3.6e6

    @property
    def carbon_grams(self) -> float | None:
        if self.kilowatt_hours is None or self.prices.grams_per_kwh is None:
            return None
        return self.kilowatt_hours * self.prices.grams_per_kwh

    @property
    def cost(self) -> str | None:
        """'12.50 USD'; None without a price or a time."""
        if self.prices.price is None or self.device_seconds is None:
            return None
        return self.prices.price.text(1, self.device_seconds)


def effort_of(
    rows: Sequence[Mapping[str, Any]],
    starts: Sequence[Start],
    flops_per_token: float | None,
    tokens: Any,
    prices: Prices,
) -> Effort:
    """The effort of a run, from its metrics and its starts."""
    kinds = {(start.hardware.get("kind"), start.hardware.get("devices")) for start in starts if start.hardware}
    hardware = next((start.hardware for start in reversed(starts) if start.hardware), None)
    seconds, training, share = _times(rows)
    known = flops_per_token is not None and isinstance(tokens, int | float) and math.isfinite(tokens)
    watts, watts_from = _watts(hardware, prices)
    trained = [row["tokens"] for row in rows if _number(row.get("tokens")) and _number(row.get("step_milliseconds"))]
    memory = [row["device_memory_bytes"] for row in rows if _number(row.get("device_memory_bytes"))]
    return Effort(
        seconds=seconds,
        training_seconds=training,
        tokens_per_second=trained[-1] / training if trained and training else None,
        flops=flops_per_token * tokens if known and flops_per_token is not None else None,
        mfu=share,
        peak_flops=_number((hardware or {}).get("peak_flops")),
        peak=str((hardware or {}).get("peak", "")),
        hardware=hardware,
        several_kinds=len(kinds) > 1,
        memory_bytes=max(memory, default=None),
        watts=watts,
        watts_from=watts_from,
        prices=prices,
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None, float | None]:
    """(wall time, time of training steps, mean MFU over that time); None where no row says so."""
    wall = training = used = 0.0
    before, last_step, has_share = 0.0, 0, False
    for row in rows:
        now, milliseconds = _number(row.get("elapsed_seconds")), _number(row.get("step_milliseconds"))
        if now is not None:
            wall += now - before if now >= before else now  # a smaller value: another start
            before = now
        if milliseconds is not None:
            spent = max(row["step"] - last_step, 0) * milliseconds / 1e3
            training += spent
            if (share := _number(row.get("mfu"))) is not None:
                used, has_share = used + share * spent, True
            last_step = row["step"]
    return wall or None, training or None, used / training if has_share and training else None


def _watts(hardware: Mapping[str, Any] | None, prices: Prices) -> tuple[float | None, str]:
    if prices.watts is not None:
        return prices.watts, "as given with --watts"
    kind = str((hardware or {}).get("kind", ""))
    found: Hardware | None = next((device for device in DEVICES if kind == device.kind), None)
    if found is None or found.watts is None:
        return None, ""
    return found.watts, f"the maximum of {found.kind} according to its maker"


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None
