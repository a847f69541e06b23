"""The captured step: what is recorded once and played again trains as the step itself does; what cannot be captured."""

import contextlib
import warnings
from types import SimpleNamespace

import pytest
import torch

from contrastive import processor
from contrastive.augment import OPERATIONS
from contrastive.settings import METHODS
from contrastive.training import begin_epoch, graph, loop, train
from contrastive.training.optimisers import rates_on_device

from .recorded import Recording
from .trainings import begun, timeless

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
SMALL = dict(base_channels=4, n_images=160, batch_size=16, epochs=8, warmup_epochs=1)
STEPS = 50


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(processor, "on_gpu", lambda x: True)


def losses_of(training, steps=STEPS, played_from=None):
    """The losses of the first steps. From one of them on, the step before it is played again rather than taken."""
    state, losses, recording = begin_epoch(training, 0), [], None
    work = loop.compute_step
    rates_on_device(training.optimiser, torch.device("cpu"))

    def recorded(training, state):
        nonlocal recording
        if len(losses) == played_from:
            recording = Recording()
            with recording:
                work(training, state)
        elif recording is None:
            work(training, state)
        else:
            recording.play()

    for _ in range(steps):
        before = 0.0 if state.step == 0 else state.sums[0].item()
        training.graph.run = lambda work, training, state: recorded(training, state)
        loop.take_step(training, state)
        losses.append(state.sums[0].item() - before)
        if state.step == training.steps_of_epoch:
            begin_epoch(training, state.epoch + 1, state)
    return losses


def weights(training):
    return torch.cat([x.flatten().float() for x in training.method.state_dict().values()])


# Within the steps the momentum and the temperature of a teacher rise, and frozen prototypes come to be trained
OWN = {
    "barlow_twins": dict(hidden_dim=64, projection_dim=64), "vicreg": dict(hidden_dim=64, projection_dim=64),
    "swav": dict(local_views=2), "dino": dict(local_views=2),
}  # fmt: skip
CASES = [(method, OWN.get(method, {})) for method in METHODS] + [
    ("simclr", dict(augment="+".join(OPERATIONS), second_augment="grey")),
    ("byol", dict(optimiser="sgd", schedule="constant", precision="bfloat16")),
    ("mocov2", dict(optimiser="adamw", augment="simclr", queue_size=48)),
]
RESNET = dict(encoder="resnet18", n_images=160, batch_size=4, view_size=8, epochs=8)


@pytest.mark.parametrize(("method", "more"), [*CASES, ("simclr", RESNET)])
def test_a_step_that_was_recorded_once_trains_as_steps_that_are_taken(method, more):
    steps, parameters = (12, more) if more is RESNET else (STEPS, SMALL | more)
    taken, played = begun(method=method, **parameters), begun(method=method, **parameters)
    expected = losses_of(taken, steps)
    assert losses_of(played, steps, played_from=graph.WARM_UP) == expected
    assert torch.equal(weights(taken), weights(played))
    assert len({round(loss, 6) for loss in expected}) > steps / 2  # they do change


def test_a_number_that_changes_and_is_none_of_the_tensors_is_noticed(monkeypatch):
    def by_number(start, progress):
        return 1 - float(progress.step + 1) ** -1  # which reads from the device

    monkeypatch.setattr("contrastive.methods.byol.rising_momentum", by_number)
    with pytest.raises(RuntimeError, match="reads from the device"):
        losses_of(begun(method="byol", **SMALL), played_from=graph.WARM_UP)
    numbers = iter(range(100))
    monkeypatch.setattr("contrastive.methods.byol.rising_momentum", lambda *_: 1 / (1 + next(numbers)))
    taken = losses_of(begun(method="byol", **SMALL))
    numbers = iter(range(100))
    assert losses_of(begun(method="byol", **SMALL), played_from=graph.WARM_UP) != taken


def test_a_choice_by_a_mask_reads_from_the_device():
    x = torch.arange(4)
    with Recording(), pytest.raises(RuntimeError, match="reads from the device"):
        x[x > 1]
    with Recording(), pytest.raises(RuntimeError, match="reads from the device"):
        x[x > 1] = torch.tensor([7, 8])
    with Recording():
        torch.where(x > 1, 0, x)


# --- When a step is captured, and when it is not --------------------------------------------------------------------


class Device:
    """What `StepGraph` uses of `torch.cuda`, on the processor: it logs, and a graph is a recording."""

    def __init__(self, fails=None):
        self.log, self.fails, self.mode, self.default_generators = [], fails, 0, [Renewed()]
        self.Stream = lambda device: SimpleNamespace(wait_stream=lambda other: None)
        self.current_stream = self.Stream
        self.stream = lambda stream: contextlib.nullcontext()
        self.current_device = lambda: 0
        self.get_sync_debug_mode = lambda: self.mode
        self.CUDAGraph = lambda: Graph(self.log)
        self.graph_pool_handle = lambda: (0, 7)
        self.empty_cache = lambda: self.log.append("emptied")

    def set_sync_debug_mode(self, mode):
        self.mode = mode

    @contextlib.contextmanager
    def graph(self, graph, pool, stream):
        self.log.append("capture")
        with graph.recording:
            yield
        if self.fails:
            raise self.fails


class Graph:
    def __init__(self, log):
        self.recording, self.log = Recording(), log

    def register_generator_state(self, generator):
        self.log.append("draws")

    def replay(self):
        self.log.append("replay")
        self.recording.play()


class Renewed:
    """A generator that logs what is done to it."""

    def __init__(self):
        self.log, self.get_state = [], lambda: "kept"

    def graphsafe_set_state(self, state):
        self.log.append("renewed")

    def set_state(self, state):
        self.log.append(state)


@pytest.fixture
def device(monkeypatch):
    """A function that has `StepGraph` meet such a device. Returns it and a training on it."""

    def made(fails=None, captured=True):
        device = Device(fails)
        monkeypatch.setattr(graph, "cuda", device)
        ended = lambda index, pool: device.log.append(("ended", index, pool))  # noqa: E731
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", ended, raising=False)
        monkeypatch.setattr(graph, "Generator", lambda device: SimpleNamespace(graphsafe_get_state=lambda: None))
        on = SimpleNamespace(type="cuda", index=None)
        settings = SimpleNamespace(runtime=SimpleNamespace(cuda_graph=captured))
        return device, SimpleNamespace(data=SimpleNamespace(device=on), settings=settings)

    graph._say_once.cache_clear()
    return made


def counter():
    return SimpleNamespace(draws=Renewed(), count=torch.zeros(()), calls=0)


def count(training, state):
    state.count += 1
    state.calls += 1


def test_a_step_is_captured_after_the_first_ones_and_then_replayed(device):
    cuda, training = device()
    steps, state = graph.StepGraph(), counter()
    for n in range(1, 11):
        steps.run(count, training, state)
        assert state.count == n + (n >= 4)  # a recording, unlike a capture, computes
    assert cuda.log == ["draws", "capture", *["replay"] * 7]
    assert state.calls == graph.WARM_UP + 1
    assert steps.captured
    other = counter()
    steps.run(count, training, other)  # another state has other tensors
    assert (other.count, other.calls, steps.captured) == (1, 1, False)


def test_without_cuda_graph_each_step_is_taken(device):
    cuda, training = device(captured=False)
    steps, state = graph.StepGraph(), counter()
    for _ in range(10):
        steps.run(count, training, state)
    assert (state.calls, cuda.log) == (10, [])


def test_a_step_that_waits_for_the_device_is_not_captured_which_is_said_once(device, capsys, recwarn):
    cuda, training = device()

    def waiting(training, state):
        count(training, state)
        if cuda.mode == "warn":
            warnings.warn("of something else", stacklevel=1)
            warnings.warn("called a synchronizing CUDA operation (Triggered internally)", stacklevel=1)

    for _ in range(2):
        steps, state = graph.StepGraph(), counter()
        for _ in range(10):
            steps.run(waiting, training, state)
        assert (state.calls, state.count, cuda.mode) == (10, 10, 0)
    assert cuda.log == []
    assert capsys.readouterr().err.count("cannot be captured, since it waits for the device") == 1
    assert [str(warning.message) for warning in recwarn] == ["of something else"] * 2  # not swallowed


def test_a_step_that_fails_to_be_captured_is_taken_with_its_generators_renewed(device, capsys):
    cuda, training = device(RuntimeError("operation not permitted when stream is capturing.\nMore."))
    steps, state = graph.StepGraph(), counter()
    for _ in range(10):
        steps.run(count, training, state)
    assert (state.calls, steps.captured) == (11, False)
    assert cuda.log == ["draws", "capture", ("ended", 0, (0, 7)), "emptied"]
    assert state.draws.log == cuda.default_generators[0].log == ["renewed", "kept"]
    said = "cannot be captured, since operation not permitted when stream is capturing."
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("hidden", [False, True])
def test_where_memory_has_no_room_for_a_capture_steps_are_taken(device, capsys, hidden):
    error = torch.OutOfMemoryError("CUDA out of memory")
    if hidden:
        error, cause = RuntimeError("capture could not be ended"), error
        error.__context__ = cause
    _, training = device(error)
    steps, state = graph.StepGraph(), counter()
    for _ in range(10):
        steps.run(count, training, state)
    assert (state.calls, steps.captured) == (11, False)
    assert "cannot be captured, since its memory has no room for it." in capsys.readouterr().err


# --- On a GPU -------------------------------------------------------------------------------------------------------


@gpu
@pytest.mark.parametrize(("method", "more"), [*CASES, ("simclr", RESNET)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_gpu_replays_what_it_would_compute_with_the_same_draws(method, more, precision):
    more = (more if more is RESNET else SMALL | more) | dict(method=method, device="cuda", precision=precision)
    replayed, taken, again = begun(**more), begun(cuda_graph=False, **more), begun(**more)
    histories = [timeless(train(training)) for training in (replayed, taken, again)]
    assert replayed.graph.captured
    assert not taken.graph.captured
    assert histories[0] == histories[2]  # the same bits, with the same seed
    assert torch.equal(weights(replayed), weights(again))
    for a, b in zip(histories[0], histories[1], strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    torch.testing.assert_close(weights(replayed), weights(taken), rtol=1e-2, atol=1e-3)
