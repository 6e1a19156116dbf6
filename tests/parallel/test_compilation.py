"""Options of the compiler that a CPU gets, and others do not."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh

from gptjax.parallel.compilation import forward_options, training_options
from gptjax.parallel.mesh import make_mesh
from gptjax.settings import MeshSettings


@pytest.mark.parametrize("options", [training_options, forward_options])
def test_a_cpu_gets_options_unless_the_user_sets_them(options, monkeypatch):
    mesh = make_mesh(MeshSettings(data=1), jax.devices()[:1])
    (option,) = options(mesh, "float32")
    assert options(mesh, "bfloat16") is None  # if merged, such a product would be computed in float32
    assert options(AbstractMesh((1,), ("data",)), "float32") is None  # of a platform that is not known
    monkeypatch.setenv("XLA_FLAGS", f"--{option}=LIBRARY_FUSION_TYPE_DOT")
    assert options(mesh, "float32") is None


def test_every_supported_version_of_jax_has_the_options():
    """Training merges what follows a product with it; in a program that only reads, products are alone."""
    mesh = make_mesh(MeshSettings(data=1), jax.devices()[:1])
    merged = {}
    for options in (training_options, forward_options):
        program = jax.jit(lambda a, b: jnp.exp(a @ b)).lower(*(jnp.ones((256, 256)),) * 2)
        merged[options] = "ynn_fusion" in program.compile(options(mesh, "float32")).as_text()
    assert merged == {training_options: True, forward_options: False}
