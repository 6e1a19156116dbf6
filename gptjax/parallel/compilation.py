"""Options of XLA's compiler: which library multiplies on a CPU.

XLA can merge operations with float32 products and reductions in its library YNNPACK. Products that it leaves alone go
to Eigen. bfloat16 keeps the defaults of XLA, since a merged bfloat16 product would be computed in float32, and Eigen
does not use the processor's bfloat16 units. A choice in XLA_FLAGS has priority. Other platforms have no such options.
"""

from __future__ import annotations

import os

from jax.sharding import AbstractMesh, Mesh

from gptjax.parallel.mesh import platform_of

OPTION = "xla_cpu_experimental_ynn_fusion_type"


def training_options(mesh: Mesh | AbstractMesh, dtype: str) -> dict[str, str | bool] | None:
    """The options for a training step on the mesh's platform; None: the defaults.

    By default, XLA leaves element-wise operations outside of YNNPACK's products, with many copies. Here it merges them.
    """
    return _merged(mesh, dtype, "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE")


def forward_options(mesh: Mesh | AbstractMesh, dtype: str) -> dict[str, str | bool] | None:
    """The options for a program that only reads a model; None: the defaults.

    Without gradients there is little to merge with a product, and Eigen's alone are faster (experiments/evaluation).
    """
    return _merged(mesh, dtype, "LIBRARY_FUSION_TYPE_REDUCE")


def _merged(mesh: Mesh | AbstractMesh, dtype: str, kinds: str) -> dict[str, str | bool] | None:
    if platform_of(mesh) != "cpu" or dtype != "float32" or OPTION in os.environ.get("XLA_FLAGS", ""):
        return None
    return {OPTION: kinds}
