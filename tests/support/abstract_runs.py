"""Plans of a model of GPT-2's smallest size on devices that are only described."""

from gptjax.config import default
from gptjax.data.facts import DataFacts
from gptjax.parallel.mesh import AbstractDevices
from gptjax.planning import plan

SIZE = {"model.num_layers": 12, "model.width": 768, "model.num_heads": 12, "model.vocab_size": 32768}
ROWS = {"data.sequence_length": 1024, "training.batch_size": 64}


def planned(count=1, platform="gpu", **fields):
    config = default()
    config.update_from_flattened_dict(SIZE | ROWS | {name.replace("__", "."): value for name, value in fields.items()})
    return plan(config, DataFacts(32768), AbstractDevices(platform, count, "NVIDIA A10" if platform == "gpu" else ""))
