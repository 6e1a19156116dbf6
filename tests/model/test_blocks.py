import jax.numpy as jnp
import numpy as np

from gptjax.model.blocks import join_blocks, split_blocks


def test_blocks_are_consecutive_positions_and_join_to_the_sequence():
    x_BTD = jnp.arange(2 * 6 * 3).reshape(2, 6, 3)
    blocks = split_blocks(x_BTD, 3)
    assert blocks.shape == (3, 2, 2, 3)
    np.testing.assert_array_equal(blocks[1], x_BTD[:, 2:4])
    np.testing.assert_array_equal(join_blocks(blocks), x_BTD)
