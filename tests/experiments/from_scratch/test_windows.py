"""experiments/from_scratch/windows.py cuts the windows that training reads."""

import numpy as np
from prepared_folders import write_prepared
from windows import windows

from gptjax.data.tokens import TokenSource
from gptjax.data.windows import ContiguousWindows


def test_windows_that_touch_are_those_of_training(tmp_path):
    documents = [[11, 12, 13, 2], [14, 15, 16, 17, 18, 19, 2], [20, 21, 2]]
    source = TokenSource(write_prepared(tmp_path / "data", train=documents), "train")
    stream = [source.eos_id, *np.concatenate(documents)]  # the first document, too, follows an end-of-text token
    inputs, targets = windows(stream, length=4, stride=4)
    theirs = ContiguousWindows(source, 4).gather(np.arange(len(inputs)))
    assert len(inputs) == 3
    np.testing.assert_array_equal(inputs, theirs["tokens"])
    np.testing.assert_array_equal(targets, theirs["targets"])


def test_a_smaller_stride_gives_windows_that_overlap():
    inputs, targets = windows(range(6), length=3, stride=1)
    assert inputs.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert targets.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
