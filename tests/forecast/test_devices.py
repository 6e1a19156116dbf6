"""Where a run is planned: with and without a compiler for the devices."""

import jax
import pytest

from gptjax.config import ConfigError
from gptjax.forecast import devices
from gptjax.forecast.devices import find_place
from gptjax.parallel.mesh import AbstractDevices


def test_without_the_plug_in_the_place_says_how_to_install_it(monkeypatch):
    def missing(*_):
        raise RuntimeError("no PJRT plug-in")

    monkeypatch.setattr(devices, "gpus_of", missing)
    place = find_place("H100", 8)
    assert place.devices == AbstractDevices("gpu", 8, "NVIDIA H100 80GB HBM3") and place.count == 8
    assert f"jax-cuda12-plugin=={jax.__version__}" in place.why_not and "pip install" in place.why_not


def test_devices_of_this_machine_are_all_of_them():
    count = len(jax.devices())
    place = find_place("this", None)
    assert place.count == count and not place.why_not and place.hardware.memory > 2**30
    with pytest.raises(ConfigError, match="this machine has"):
        find_place("this", count + 1)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *((hardware.kind, hardware.name) for hardware in devices.DEVICES),
        ("NVIDIA H100 PCIe", "H100"),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA GeForce RTX 3090", None),
        ("NVIDIA GeForce RTX 4080 SUPER", None),
        ("NVIDIA A10G", None),
        ("TPU v5 mini", None),
        ("AMD Instinct MI300X", None),
    ],
)
def test_a_card_of_this_machine_has_the_row_of_its_number_or_none(kind, name, monkeypatch):
    class Device:
        platform, device_kind = "gpu", kind

    monkeypatch.setattr(devices.jax, "devices", lambda: [Device()] * 2)
    if name is None:
        with pytest.raises(ConfigError, match=rf"--hardware=this: '{kind}' is in no table"):
            find_place("this", None)
    else:
        place = find_place("this", None)
        assert (place.hardware.name, place.hardware.kind, place.count) == (name, kind, 2)
