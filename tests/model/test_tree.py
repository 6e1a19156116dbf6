"""Paths of leaves."""

import jax.numpy as jnp

from gptjax.model.tree import leaves_by_path, map_with_path

TREE = {"layers": {"attention": {"query": jnp.ones((2, 3))}}, "embedding": jnp.zeros(4), "list": [1, {"x": 2}]}


def test_paths_join_keys_and_indices():
    assert list(leaves_by_path(TREE)) == ["embedding", "layers/attention/query", "list/0", "list/1/x"]
    assert leaves_by_path(TREE)["list/1/x"] == 2


def test_map_with_path_gives_the_path_and_every_tree():
    mapped = map_with_path(lambda path, leaf, other: (path, other), TREE, TREE)
    assert mapped["list"][1]["x"] == ("list/1/x", 2)
    assert mapped["layers"]["attention"]["query"][0] == "layers/attention/query"
