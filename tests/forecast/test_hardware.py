"""The table of devices: the names that users write, and the descriptions for XLA's compiler."""

import pytest

from gptjax.config import ConfigError
from gptjax.forecast.hardware import DEVICES, parse_hardware, target_config
from gptjax.training.hardware import peak_flops_per_device


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        *(
            ("8xH100", ("H100", 8)),
            ("h200", ("H200", None)),
            ("2 x RTX 4090", ("RTX4090", 2)),
            ("4090", ("RTX4090", None)),
        ),
        *(
            ("A100-80GB", ("A100-80", None)),
            ("512xTPU v5p", ("v5p", 512)),
            ("cpu", ("cpu", None)),
            ("this", ("this", None)),
        ),
    ],
)
def test_names_are_read_as_users_write_them(text, wanted):
    assert parse_hardware(text) == wanted


@pytest.mark.parametrize("text", ["H300", "8x", "", "0xH100", "99999xH100", "A100"])
def test_an_unknown_device_is_refused_with_the_known_ones(text):
    with pytest.raises(ConfigError, match="--hardware="):
        parse_hardware(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(("8xA100", "8xA100-40 or 8xA100-80?"), ("A100", "A100-40 or A100-80?"), ("h100x8", "8xH100?")),
        *(("8v5e", "8xv5e?"), ("8 H100", "8xH100?"), ("H300", "H200?"), ("rtx 409", "RTX4090?")),
        ("2x409", "2xRTX4090?"),
    ],
)
def test_the_device_that_was_meant_is_named(text, meant):
    with pytest.raises(ConfigError) as refused:
        parse_hardware(text)
    assert str(refused.value).endswith(f"v6e, cpu, this; did you mean {meant}")


@pytest.mark.parametrize("hardware", DEVICES, ids=lambda device: device.name)
def test_every_device_has_a_peak_and_plausible_figures(hardware):
    peak = peak_flops_per_device(hardware.kind, "bfloat16")
    assert peak is not None and hardware.peak("bfloat16") == peak
    assert 1e14 < peak < 3e15 and 1e10 < hardware.memory < 3e11 and 5e11 < hardware.bandwidth < 1e13
    assert hardware.network < hardware.link < hardware.bandwidth and hardware.source
    if hardware.platform == "gpu":
        text = target_config(hardware)
        assert f'"{hardware.kind}"' in text and f"core_count: {hardware.target.cores}" in text
    else:
        with pytest.raises(ValueError, match="no target"):
            target_config(hardware)
