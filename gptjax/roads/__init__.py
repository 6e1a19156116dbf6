"""What a file of configs/road needs: a road and its stages.

definition.py       stages as data
walking.py          runs them in order, and skips what is done
markers.py          which are done, and with which command and inputs; completion.py: whether a result is whole
figures.py          the result of a stage in a few words
"""

from gptjax.roads.definition import Road, Stage

__all__ = ["Road", "Stage"]
