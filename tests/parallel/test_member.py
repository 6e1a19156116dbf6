"""What the other processes are told about one that fails. `test_members` tests how members end together."""

from gptjax.config import ConfigError, RunError
from gptjax.differences import with_lines
from gptjax.parallel import member


def test_a_refusal_is_reported_whole_and_a_bug_by_its_first_line():
    refusal = with_lines("the data\nchanged", {"seed": (0, 1), "data: order": ("a", "b")})
    whole = "the data changed. What differs:\n  seed: was 0, is now 1\n  data: order: was a, is now b"
    assert member._reason(ConfigError(refusal)) == member._reason(RunError(refusal)) == whole
    assert member._reason(ValueError("of XLA\n  deep inside")) == "ValueError: of XLA"
    assert member._reason(KeyboardInterrupt()) == "interrupted"
