"""How processes wait for each other in a save. In test_manager.py two real ones save, of which one cannot write."""

import jax
import pytest

from gptjax.training.checkpoints import saved_together
from gptjax.training.checkpoints.saved_together import SaveFailedElsewhere


class Service:
    """The values at JAX's coordination service; who waits for one that is not there is told at once that it is late."""

    def __init__(self):
        self.values = {}
        self.late = "DEADLINE_EXCEEDED: it is late"

    def key_value_set(self, key, value, allow_overwrite=False):
        if key in self.values and not allow_overwrite:
            raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
        self.values[key] = value

    def key_value_increment(self, key, by):
        self.values[key] = self.values.get(key, 0) + by
        return self.values[key]

    def key_value_try_get(self, key):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("NOT_FOUND")
        return self.values[key]

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self.values:
            raise jax.errors.JaxRuntimeError(self.late)
        return self.values[key]

    def key_value_delete(self, folder):
        self.values = {key: value for key, value in self.values.items() if not key.startswith(f"{folder}/")}


@pytest.fixture
def service():
    return Service()


@pytest.fixture
def one_and_other(service, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    clients = [saved_together._Client.__new__(saved_together._Client) for _ in range(2)]
    for client in clients:
        client._client = service
        client.begin(1)
    return clients


def test_a_barrier_opens_for_the_last_and_closes_again_for_the_next_save(one_and_other, service):
    one, other = one_and_other
    with pytest.raises(TimeoutError):
        one.wait_at_barrier("written", timeout_secs=0.01)
    other.wait_at_barrier("written", timeout_secs=10)
    one.blocking_key_value_get("gptjax/save/1/written/all", 10)
    one.wait_at_barrier("alone", timeout_secs=10, process_ids=[0])
    one.begin(2), other.begin(2)
    assert not service.values, "values of earlier saves would fill the service"
    with pytest.raises(TimeoutError):
        one.wait_at_barrier("written", timeout_secs=0.01)


def test_the_first_note_ends_whoever_waits(one_and_other):
    one, other = one_and_other
    other.leave_note("OSError: No space left on device"), other.leave_note("what this causes")
    for wait in (lambda: one.wait_at_barrier("written", timeout_secs=10), lambda: one.blocking_key_value_get("a", 10)):
        with pytest.raises(SaveFailedElsewhere, match=r"process 0 on .* could not write its part: OSError: No space"):
            wait()


def test_a_save_that_cannot_start_ends_whoever_waits(one_and_other, monkeypatch):
    one, other = one_and_other
    monkeypatch.setattr(saved_together, "_client", lambda: one)

    def start():
        other.begin(int(one._folder.rpartition("/")[2]))  # the other process is in the same save
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space"):
        saved_together.start_together(start, str)
    with pytest.raises(SaveFailedElsewhere, match="No space"):
        other.wait_at_barrier("written", timeout_secs=10)


def test_a_service_that_is_gone_is_no_reason_to_wait(one_and_other, service):
    service.late = "UNAVAILABLE: connection refused"
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNAVAILABLE"):
        one_and_other[0].wait_at_barrier("written", timeout_secs=10)
