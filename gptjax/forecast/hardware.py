"""The devices for which a run can be planned: their memory, links and power, and their descriptions for XLA's compiler.

  hardware, count = parse_hardware("8xH100")

Peak rates are in training/hardware.py, by the device's kind.
"""

from __future__ import annotations

import dataclasses
import re

from gptjax.config import ConfigError, suggestion
from gptjax.training.hardware import peak_flops_per_device

GB = 1e9  # bytes per second
MOST_DEVICES = 65_536
NVLINK = {3: 300, 4: 450, 5: 900}  # generation → GB/s that a GPU sends; datasheets add up both directions
PCIE = {4: 32, 5: 64}  # generation → GB/s in one direction, 16 lanes


@dataclasses.dataclass(frozen=True)
class Target:
    """What XLA's GPU compiler must know about a GPU to compile for it on a machine without one.

    Attributes:
      capability: compute capability (major, minor).
      cores: streaming multiprocessors.
      units: float32 units of each multiprocessor.
      clock: GHz.
      cache: bytes of the second-level cache.
      shared: KiB of shared memory of a multiprocessor; a block may use 1 KiB less.
      threads: the maximum number of threads of a multiprocessor.
    """

    capability: tuple[int, int]
    cores: int
    units: int
    clock: float
    cache: int
    shared: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Hardware:
    """One kind of device.

    Attributes:
      name: the name that users write.
      kind: JAX's name of the kind, which is looked up in the table of peaks.
      platform: 'gpu', 'tpu' or 'cpu'.
      memory: bytes that the device reports.
      bandwidth: bytes per second of its memory.
      link: bytes per second that it can send to devices of its node.
      network: bytes per second that it can send to other nodes.
      per_node: devices per node.
      watts: power of one device under load; None: the maker publishes no figure.
      source: where the figures come from.
      target: the description for XLA's compiler; None: it cannot compile for this device here.
      cores: of a device of processors; 0 for others, of which every kernel uses all.
    """

    name: str
    kind: str
    platform: str
    memory: float
    bandwidth: float
    link: float
    network: float
    per_node: int
    watts: float | None
    source: str
    target: Target | None = None
    cores: int = 0

    def peak(self, dtype: str) -> float | None:
        """FLOP/s of one device; None if unknown."""
        return peak_flops_per_device(self.kind, dtype)


MIB, GIB = 2**20, 2**30
_A100 = Target((8, 0), cores=108, units=64, clock=1.41, cache=40 * MIB, shared=164, threads=2048)
_HOPPER = Target((9, 0), cores=132, units=128, clock=1.98, cache=50 * MIB, shared=228, threads=2048)
_B200 = Target((10, 0), cores=148, units=128, clock=1.965, cache=126 * MIB, shared=228, threads=2048)
_L40S = Target((8, 9), cores=142, units=128, clock=2.52, cache=96 * MIB, shared=100, threads=1536)
_A10 = Target((8, 6), cores=72, units=128, clock=1.695, cache=6 * MIB, shared=100, threads=1536)
_RTX4090 = Target((8, 9), cores=128, units=128, clock=2.52, cache=72 * MIB, shared=100, threads=1536)
_RTX5090 = Target((12, 0), cores=170, units=128, clock=2.407, cache=96 * MIB, shared=100, threads=1536)

_NODE = "NVIDIA's datasheet, memory as the device reports it; nodes as DGX, one network card per GPU"
_CARD = "NVIDIA's datasheet, memory as nvidia-smi reports it; PCIe alone, 100 Gbit/s of network per node is assumed"
_POD = "Google's TPU system architecture pages; 25 Gbit/s of network per chip between slices is assumed"

# name, kind, platform, memory, bandwidth, link, network, devices per node, watts, source
_ROWS: tuple[tuple, ...] = (
    ("A100-40", "NVIDIA A100-SXM4-40GB", "gpu", 42_331_013_120, 1555, NVLINK[3], 25, 8, 400, _NODE, _A100),
    ("A100-80", "NVIDIA A100-SXM4-80GB", "gpu", 84_987_740_160, 2039, NVLINK[3], 25, 8, 400, _NODE, _A100),
    ("H100", "NVIDIA H100 80GB HBM3", "gpu", 84_942_979_072, 3352, NVLINK[4], 50, 8, 700, _NODE, _HOPPER),
    ("H200", "NVIDIA H200", "gpu", 151_397_597_184, 4800, NVLINK[4], 50, 8, 700, _NODE, _HOPPER),
    ("B200", "NVIDIA B200", "gpu", 191_514_411_008, 7672, NVLINK[5], 50, 8, 1000, _NODE, _B200),
    ("L40S", "NVIDIA L40S", "gpu", 46_068 * MIB, 864, PCIE[4], 12.5 / 8, 8, 350, _CARD, _L40S),
    ("A10", "NVIDIA A10", "gpu", 23_028 * MIB, 600, PCIE[4], 12.5 / 4, 4, 150, _CARD, _A10),
    ("RTX4090", "NVIDIA GeForce RTX 4090", "gpu", 24_564 * MIB, 1008, PCIE[4], 12.5 / 4, 4, 450, _CARD, _RTX4090),
    ("RTX5090", "NVIDIA GeForce RTX 5090", "gpu", 32_607 * MIB, 1792, PCIE[5], 12.5 / 4, 4, 575, _CARD, _RTX5090),
    ("v5e", "TPU v5 lite", "tpu", 16 * GIB, 819, 100, 3.125, 256, None, _POD, None),
    ("v5p", "TPU v5", "tpu", 95 * GIB, 2765, 300, 3.125, 8960, None, _POD, None),
    ("v6e", "TPU v6 lite", "tpu", 32 * GIB, 1640, 200, 3.125, 256, None, _POD, None),
)


def _hardware(
    name: str,
    kind: str,
    platform: str,
    memory: float,
    bandwidth: float,
    link: float,
    network: float,
    per_node: int,
    watts: float | None,
    source: str,
    target: Target | None,
) -> Hardware:
    """bandwidth, link, network: in GB per second."""
    rates = (GB * bandwidth, GB * link, GB * network)
    return Hardware(name, kind, platform, memory, *rates, per_node, watts, source, target)


DEVICES: tuple[Hardware, ...] = tuple(_hardware(*row) for row in _ROWS)
BY_NAME = {device.name: device for device in DEVICES}
HERE = ("cpu", "this")  # the devices of this machine
_WORDS = re.compile(r"(?:(\d+)\s*[x×*]\s*)?(\S.*?)\s*", re.IGNORECASE)
_TURNED = re.compile(r"\s*(.*\S)\s*[x×*]\s*(\d+)\s*")  # the number after the name
_COUNTED = re.compile(r"\s*(\d+)\s*(?:[x×*]\s*)?(\S.*?)\s*", re.IGNORECASE)  # before it, also without the x


def parse_hardware(text: str) -> tuple[str, int | None]:
    """'8xH100' → ('H100', 8), or None without a number. Names may have any case, with or without '-', ' ' and 'TPU' or
    'RTX'.

    Raises:
      ConfigError: the name is unknown, or the number of devices is invalid.
    """
    found = _WORDS.fullmatch(text)
    wanted = _plain(found[2]) if found else ""
    names = [name for name in (*BY_NAME, *HERE) if _plain(name) == wanted]
    if not found or not names:
        raise ConfigError(
            f"--hardware={text!r}: expected a device, with a number before it for several (8xH100): "
            f"{', '.join((*BY_NAME, *HERE))}{_suggested(text)}"
        )
    if found[1] is None:
        return names[0], None
    if not 1 <= int(found[1]) <= MOST_DEVICES:
        raise ConfigError(f"--hardware={text!r}: must have 1 to {MOST_DEVICES:,} devices")
    return names[0], int(found[1])


def _suggested(text: str) -> str:
    """'; did you mean …?' for the devices whose names begin like this, or a similar name; with the number of devices,
    which may also stand after the name, or before it without 'x'."""
    turned, counted = _TURNED.fullmatch(text), _COUNTED.fullmatch(text)
    read = [(turned[1], f"{turned[2]}x")] if turned else []
    read += [(counted[2], f"{counted[1]}x")] if counted else []
    for name, number in (*read, (text, "")):
        if begun := _beginning(name):
            return f"; did you mean {' or '.join(number + known for known in begun)}?"
    return suggestion(counted[2] if counted else text, (*BY_NAME, *HERE))


def _beginning(name: str) -> list[str]:
    return [known for known in BY_NAME if _plain(name) and _plain(known).startswith(_plain(name))]


def _plain(name: str) -> str:
    """'RTX 4090' → '4090', 'TPU v5e' → 'v5e', 'A100-80GB' → 'a10080'."""
    return re.sub(r"^(nvidia|geforce|rtx|tpu)+|gb$", "", re.sub(r"[\s_-]", "", name.lower()))


def target_config(hardware: Hardware) -> str:
    """The device as XLA's GpuTargetConfigProto, in text form.

    Raises:
      ValueError: the hardware has no target.
    """
    target = hardware.target
    if target is None:
        raise ValueError(f"{hardware.name} has no target of XLA's GPU compiler")
    (major, minor), blocks = target.capability, 65_535
    return f"""
platform_name: "CUDA"
device_description_str: "{hardware.kind}"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 minor: 0 patch: 0 }}
gpu_device_info {{
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  core_count: {target.cores}
  fpus_per_core: {target.units}
  clock_rate_ghz: {target.clock}
  device_memory_size: {int(hardware.memory)}
  memory_bandwidth: {int(hardware.bandwidth)}
  l2_cache_size: {target.cache}
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: {target.threads}
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: {(target.shared - 1) * 1024}
  shared_memory_per_core: {target.shared * 1024}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: {blocks}
  block_dim_limit_z: {blocks}
}}
"""
