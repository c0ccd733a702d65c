"""Steps of stacked seeds: in lockstep as alone, in every layout, without recompiling and without waiting."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from macil.config import TrialConfig
from macil.data.store.feature_store import FeatureStore
from macil.objective import objective
from macil.training import acceleration
from macil.training.acceleration import Accelerator, compiled_losses
from macil.training.bags import Residency, TrainingBags
from macil.training.distillation import momentum_at
from macil.training.engine import Engine, Precision

CPU = torch.device("cpu")
SMALL = TrialConfig(batch_size=24, hidden_dim=16, feedforward_dim=12, max_snippets=20)
RATES = (2e-3, 4e-4)


def bags(store: FeatureStore, residency: Residency = "mapped") -> TrainingBags:
    return TrainingBags(store, None, SMALL.max_snippets, CPU, residency=residency)


def train(engine: Engine, epochs: int, first: int = 0) -> Tensor:
    """Losses of every epoch, (epochs, S, 4)."""
    losses = []
    for epoch in range(first, first + epochs):
        losses.append(engine.train_epoch(epoch, RATES).clone())
        engine.infuse(momentum_at(epoch, SMALL.momentum))
    return torch.stack(losses)


def weights(engine: Engine) -> dict[str, Tensor]:
    return {
        f"{kind}.{name}": tensor.detach()
        for kind, stack in enumerate(engine.stacks)
        for name, tensor in stack.tensors.items()
    }


@pytest.mark.parametrize("residency", ["mapped", "resident", "streamed"])
@pytest.mark.parametrize("switches", [{}, {"fidelity": "paper"}, {"distill": False, "contrast": False}])
def test_seeds_in_lockstep_are_trained_as_alone(
    switches: dict[str, Any], residency: Residency, demo_store: FeatureStore
) -> None:
    """Float64, dropout 0.1, ragged lengths, 3 epochs: only rounding may differ."""
    config, seeds = SMALL.replace(**switches), [4, 0, 9]
    together = Engine(config, seeds, bags(demo_store, residency), precision="fp64")
    found = train(together, 3)
    for slot, seed in enumerate(seeds):
        alone = Engine(config, [seed], bags(demo_store), precision="fp64")
        torch.testing.assert_close(train(alone, 3)[:, 0], found[:, slot], rtol=1e-9, atol=1e-9)
        for name, tensor in weights(alone).items():
            torch.testing.assert_close(weights(together)[name][slot], tensor[0], rtol=1e-9, atol=1e-9)


def test_in_single_precision_lockstep_and_alone_agree_after_a_step(demo_store: FeatureStore) -> None:
    data = bags(demo_store, "resident")
    samples = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))[None, :24]
    together = Engine(SMALL, [4, 0], data)
    together.begin_epoch(9, RATES)
    together.step(data.batch(samples.expand(2, -1)))
    for slot, seed in enumerate([4, 0]):
        alone = Engine(SMALL, [seed], data)
        alone.begin_epoch(9, RATES)
        alone.step(data.batch(samples))
        assert weights(alone).keys() == weights(together).keys()
        for name, tensor in weights(alone).items():
            # Adam's first step is the gradient's sign: where that is rounding error, so is the step.
            close = (weights(together)[name][slot] - tensor[0]).abs() < 1e-5
            assert close.double().mean() > 0.99 or "key.bias" in name, name


def test_seeds_differ_in_weights_shuffle_and_dropout(demo_store: FeatureStore) -> None:
    engine = Engine(SMALL, [1, 2], bags(demo_store, "resident"))
    first, second = engine.audio_visual.tensors["fc_v.weight"]
    assert not torch.equal(first, second)
    losses = train(engine, 1)[0]
    assert not torch.equal(losses[0], losses[1])
    # Equal weights and equal samples, but each seed its own dropout.
    with torch.no_grad():
        for stack in engine.stacks:
            for tensor in stack.tensors.values():
                tensor[1] = tensor[0]
    samples = torch.arange(24)[None].expand(2, -1)
    losses = engine.losses(engine.bags.batch(samples)).detach()
    assert not torch.allclose(losses[0], losses[1], rtol=1e-6)


def test_a_step_follows_the_gradient_of_the_objective(demo_store: FeatureStore) -> None:
    """Both contrastive terms act, under weights that differ: the ramp's 0.5 and a maximum of 0.3."""
    config = SMALL.replace(dropout=0.0, dropout_everywhere=True, lambda_v2b=0.7, lambda_v2n=0.3)
    engine = Engine(config, [3], bags(demo_store, "resident"), precision="fp64")
    batch = engine.bags.batch(torch.arange(24)[None])
    visual, audio = (x.view(24, engine.bags.snippets, -1).double() for x in (batch.visual, batch.audio))
    lengths, labels = batch.layout.lengths[0], batch.labels[0]
    network = copy.deepcopy(engine.audio_visual.networks[0])
    with torch.no_grad():  # half of the videos are predicted violent
        logits = network(visual, audio, lengths).video_logits.sort().values
        middle = logits[11:13].mean() / 2  # one head, two streams
        for each in (network, engine.audio_visual.networks[0]):
            each.get_parameter("head_v.bias").sub_(middle)

    engine.begin_epoch(5, RATES)
    losses = engine.step(batch)[0]
    total, parts = objective(network(visual, audio, lengths), labels, config, 5)
    total.backward()
    torch.testing.assert_close(losses[:3], torch.stack(list(parts.values())).detach())
    assert (losses[1:3] > 0).all()
    for name, tensor in engine.audio_visual.tensors.items():
        assert tensor.grad is not None
        torch.testing.assert_close(tensor.grad[0], network.get_parameter(name).grad, rtol=1e-9, atol=1e-10)


def test_every_step_of_every_epoch_has_its_own_dropout(demo_store: FeatureStore) -> None:
    engine = Engine(SMALL, [1], bags(demo_store, "resident"), precision="fp64")
    batch = engine.bags.batch(torch.arange(24)[None])
    losses = []
    for epoch in (0, 1):
        engine.begin_epoch(epoch, (0.0, 0.0))
        losses += [engine.step(batch)[0, 0].item() for _ in range(3)]
    assert len(set(losses)) == 6
    engine.begin_epoch(1, (0.0, 0.0))
    assert engine.step(batch)[0, 0].item() == losses[3]


def test_a_network_is_a_view_of_the_stack(demo_store: FeatureStore) -> None:
    engine = Engine(SMALL, [1, 2], bags(demo_store, "resident"))
    network = engine.audio_visual.networks[1]
    train(engine, 1)
    for name, tensor in engine.audio_visual.tensors.items():
        assert torch.equal(network.get_parameter(name), tensor[1])
    with torch.no_grad():
        network.get_parameter("head_v.bias").fill_(7)
    assert engine.audio_visual.tensors["head_v.bias"][1] == 7
    state = engine.state_of(1)
    assert (
        state["network"]["fc_v.weight"].untyped_storage().nbytes()
        == network.get_parameter("fc_v.weight").nbytes
    )


def test_a_seeds_state_moves_between_groups(demo_store: FeatureStore) -> None:
    data = bags(demo_store, "resident")
    unbroken = Engine(SMALL, [1, 2], data, precision="fp64")
    train(unbroken, 2)
    other = Engine(SMALL, [2, 1], data, precision="fp64")
    for slot in (0, 1):
        other.load_state_of(slot, unbroken.state_of(1 - slot))
    expected, found = train(unbroken, 1, first=2), train(other, 1, first=2)
    torch.testing.assert_close(found, expected.flip(1), rtol=1e-12, atol=1e-12)


# --- fixed shapes ---------------------------------------------------------------------------------------------


class Compiled(Accelerator):
    """Compiles on a CPU, with a backend that needs no compiler: what is traced and when is the same."""

    def losses(self, *arguments: Any) -> Tensor:
        return compiled_losses("aot_eager")(*arguments)


def compiled_epoch(
    config: TrialConfig, seeds: Sequence[int], data: TrainingBags, precision: Precision
) -> Tensor:
    engine = Engine(config, seeds, data, precision=precision)
    engine._accelerator = Compiled(CPU)
    return train(engine, 1, first=3)


@pytest.mark.nightly
def test_what_is_searched_never_recompiles_a_step(demo_store: FeatureStore) -> None:
    data = bags(demo_store, "resident")
    config = SMALL.replace(batch_size=len(data) // 4)  # no odd batch at the end
    torch.compiler.reset()
    eager = train(Engine(config, [1], data), 1, first=3)
    torch.testing.assert_close(compiled_epoch(config, [1], data, "fp32"), eager, rtol=1e-5, atol=1e-6)
    searched = {
        "lambda_v2b": 0.3,
        "lambda_v2n": 0.2,
        "ramp": 0.7,
        "temperature": 0.05,
        "momentum": 0.8,
        "learning_rate": 1e-5,
        "visual_learning_rate": 1e-5,
    }
    with torch.compiler.set_stance("fail_on_recompile"):
        for name, value in searched.items():
            changed = config.replace(**{name: value})
            expected = train(Engine(changed, [7], data), 1, first=3)
            found = compiled_epoch(changed, [7], data, "fp32")
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        with pytest.raises(RuntimeError, match="recompile"):
            compiled_epoch(config.replace(hidden_dim=32), [7], data, "fp32")


@pytest.mark.nightly
def test_a_worker_may_compile_more_shapes_than_dynamo_allows_by_default(
    demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.compiler.reset()
    data = bags(demo_store, "resident")
    engine = Engine(SMALL.replace(distill=False, contrast=False), [1], data)
    engine.begin_epoch(3, RATES)
    for size in range(2, 12):
        batch = data.batch(torch.arange(size)[None])
        expected = engine.losses(batch).detach()
        with monkeypatch.context() as patched:
            # Tracing alone is what the limit is about.
            patched.setattr(engine._accelerator, "losses", compiled_losses("eager"))
            found = engine.losses(batch).detach()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_step_reads_no_value_on_the_host(demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(SMALL, [1, 2], bags(demo_store, "resident"))
    engine.begin_epoch(3, RATES)
    batch = engine.bags.batch(torch.arange(24)[None].expand(2, -1))

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a value was read on the host")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "cpu", "numpy", "nonzero"):
        monkeypatch.setattr(Tensor, name, refuse)
    engine.step(batch)
    monkeypatch.undo()
    assert engine._sums.isfinite().all()
    assert (engine._sums[:, 0] > 0).all()


@pytest.mark.parametrize("residency", ["mapped", "resident"])
def test_on_a_cpu_steps_run_as_they_are_written(residency: Residency, demo_store: FeatureStore) -> None:
    engine = Engine(SMALL, [1], bags(demo_store, residency))
    train(engine, 1)
    assert engine.mode == "eager"


class Recording:
    """Stands in for the CUDA runtime, which is not here: refuses to record, or replays by running the step again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, refuses: bool) -> None:
        self.replays = 0
        self.step: Any = None
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: self)
        monkeypatch.setattr(torch.cuda, "graph", self._graph)
        monkeypatch.setattr(Accelerator, "_warm_up", lambda _, step, inputs: step(*inputs))
        self._refuses = refuses

    def _graph(self, _: Any) -> Any:
        if self._refuses:
            raise RuntimeError("capture is not permitted")
        import contextlib

        return contextlib.nullcontext()

    def replay(self) -> None:
        self.replays += 1
        self.step()


def accelerator(steps: list[float], recording: Recording) -> tuple[Accelerator, Any]:
    made = Accelerator(CPU)
    made._graph_wanted = True

    def step(x: Tensor) -> Tensor:
        steps.append(float(x.sum()))
        recording.step = lambda: steps.append(float(made._inputs[0].sum()))
        return x * 2

    return made, step


def test_a_recorded_step_gets_each_calls_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    recording = Recording(monkeypatch, refuses=False)
    made, step = accelerator(steps, recording)
    for number in range(acceleration._WARMUP + 3):
        made.run(step, (torch.tensor([float(number)]),), whole=True)
    made.run(step, (torch.tensor([50.0, 50.0]),), whole=False)
    assert made.mode == "graph"
    assert recording.replays == 3
    # The recording itself runs the function once more, here with an effect; on a GPU it has none.
    recorded = acceleration._WARMUP
    assert steps == [0, 1, 2, *[recorded] * 2, recorded + 1, recorded + 2, 100]


def test_a_driver_that_refuses_to_record_costs_nothing_but_speed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[float] = []
    made, step = accelerator(steps, Recording(monkeypatch, refuses=True))
    for number in range(acceleration._WARMUP + 3):
        made.run(step, (torch.tensor([float(number)]),), whole=True)
    assert steps == [0, 1, 2, 3, 4, 5]
    assert made.mode == "eager"
    assert caplog.text.count("capture is not permitted") == 1


def test_a_compiler_that_fails_costs_nothing_but_speed(
    demo_store: FeatureStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Any:
        raise RuntimeError("no working C compiler")

    monkeypatch.setattr(acceleration, "compiled_losses", broken)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    engine = Engine(SMALL, [1], bags(demo_store, "resident"))
    engine._accelerator._compile_wanted = True
    expected = train(Engine(SMALL, [1], bags(demo_store, "resident")), 1)
    assert torch.equal(train(engine, 1), expected)
    assert caplog.text.count("no working C compiler") == 1


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("seeds", [[1], [1, 2, 3]])
def test_on_a_gpu_recorded_steps_are_those_run_one_by_one(seeds: list[int], demo_store: FeatureStore) -> None:
    data = TrainingBags(demo_store, None, 20, torch.device("cuda"), dtype=torch.float32)
    plain = Engine(SMALL, seeds, data, accelerate=False, precision="fp64")
    fast = Engine(SMALL, seeds, data, precision="fp64")
    torch.testing.assert_close(train(fast, 3), train(plain, 3), rtol=1e-8, atol=1e-8)
    assert "graph" in fast.mode
    on_cpu = Engine(SMALL, seeds, bags(demo_store, "resident"), precision="fp64")
    torch.testing.assert_close(train(plain, 1, first=5).cpu(), train(on_cpu, 1, first=5), rtol=0.1, atol=0.1)
