"""What a file of configs/road needs: a road and its stages."""

from gptjax.roads.definition import Road, Stage

__all__ = ["Road", "Stage"]
