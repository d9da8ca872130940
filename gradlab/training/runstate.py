"""The whole state of a run, as a dict that a checkpoint can hold, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlab import nn
from gradlab.arguments import warn
from gradlab.data.dataset import Subset, TensorDataset, reads
from gradlab.errors import (
    CheckpointError,
    GradlabError,
    NonFiniteLossError,
    OptionError,
    StateError,
    message,
    printable,
)
from gradlab.fields import ANYTHING, COUNT, DICT, Only, array_of, check_fields
from gradlab.nn import state as state_of_model
from gradlab.ops.fetch import fetch
from gradlab.optim import Optimizer
from gradlab.training.callbacks import (
    ModelCheckpoint,
    callback_states,
    load_callback_states,
)
from gradlab.training.checkpoint import (
    find_checkpoint,
    random_state,
    read_checkpoint,
    set_random_state,
    versions,
)
from gradlab.training.folder import list_checkpoints

if TYPE_CHECKING:
    from gradlab.training.run import Run


def get_state(run: Run) -> dict[str, Any]:
    """Everything that `set_state` needs for the run to go on from here.

    A run whose numbers are no longer finite has no such state: `NonFiniteLossError`.
    """
    require_states(run.optimizers)
    run.read_metrics()
    require_finite(run)
    return {
        "position": run.position(),
        "batches_done": {"train": run.train_batch_idx, "val": run.val_batch_idx},
        "seconds": run.stopping.seconds,
        "told_to_stop": run.stopping.told,
        "stop_reason": run.stopping.reason if run.stopping.told else None,
        "model": run.model.state_dict(),
        "accumulated": _get_gradients(run),
        "optimizers": [
            {"type": type(each).__name__, **each.state_dict()} for each in run.optimizers
        ],
        "schedulers": [
            {"type": type(each.scheduler).__name__, **each.scheduler.state_dict()}
            for each in run.schedules
        ],
        "data": run.train_batches.state_dict(),
        # A validation that was begun is done anew: with the random numbers it began with.
        "random": run.random_before_validation or random_state(),
        "metrics": run.train_metrics.state_dict(),
        "history": _get_history(run),
        "curves": _get_curves(run),
        "callbacks": callback_states(run.callbacks),
        "versions": versions(),
    }


def require_finite(run: Run) -> None:
    """Refuse to continue, or to end, with a trained parameter that is NaN or infinite."""
    trained = {name: each for name, each in run.model.named_parameters() if each.requires_grad}
    # In one transfer, where they are on a device.
    finite = fetch(each.detach().isfinite().all() for each in trained.values())
    for name, is_finite in zip(trained, finite, strict=True):
        if not is_finite:
            raise not_finite(run, f"the parameter {name}", "NaN or infinite", run.batch)


def require_states(optimizers: Sequence[Any]) -> None:
    """Refuse optimizers whose state cannot be kept in a checkpoint."""
    for each in optimizers:
        if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict")):
            name = type(each).__name__
            raise OptionError(
                message(
                    "Trainer",
                    expected="an optimizer with state_dict and load_state_dict, for its checkpoint",
                    got=f"{name}, which does not have both",
                    hint="define them, or train without checkpoints",
                )
            )


def set_state(run: Run, state: dict[str, Any]) -> None:
    """Go on from a state; raises `StateError` where model, optimizers or data are others."""
    schedulers = [each.scheduler for each in run.schedules]
    _check_kinds("optimizers", run.optimizers, state["optimizers"])
    _check_kinds("schedulers", schedulers, state["schedulers"])
    _check_groups(run.optimizers, state["optimizers"])
    place = state["position"]
    accumulated = _check_accumulated(run, state)
    try:
        run.train_batches.load_state_dict(state["data"], place["batch"])
        # The model last, as it is the user's, and all else was made for this run; but what does not
        # fit an optimizer is told as what it is, a state of another model.
        if type(run.model).load_state_dict is nn.Module.load_state_dict:
            state_of_model.check(run.model, state["model"])
        for optimizer, saved in zip(run.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)
        load_callback_states(run.callbacks, state["callbacks"])
        run.model.load_state_dict(state["model"])
    except GradlabError:
        run.train_batches.take_back()
        raise
    if accumulated:
        for name, parameter in run.model.named_parameters():
            gradient = accumulated["gradients"].get(name)
            parameter.grad = None if gradient is None else gradient.to(parameter.device)
    run.stopping.start(state["seconds"])
    if state["told_to_stop"]:
        run.stopping.tell(str(state.get("stop_reason") or "it was told to stop"))
    for name in ("epoch", "batch", "step", "phase"):
        setattr(run, name, place[name])
    done = state["batches_done"]
    run.train_batch_idx, run.val_batch_idx = done["train"], done["val"]
    begun = -(-run.batch // run.accumulate_grad_batches)
    run.steps_before = run.step - begun + run.is_accumulating
    if place["batch"]:
        run.train_metrics.load_state_dict(state["metrics"])
    run.history.load_state_dict(state["history"])
    _set_curves(run, state["curves"])
    set_random_state(state["random"])


def _get_gradients(run: Run) -> dict[str, Any] | None:
    """The gradients of a step that waits for more batches."""
    if not run.is_accumulating:
        return None
    gradients = {name: each.grad for name, each in run.model.named_parameters()}
    return {
        "accumulate_grad_batches": run.accumulate_grad_batches,
        "gradients": {name: grad for name, grad in gradients.items() if grad is not None},
    }


def _check_accumulated(run: Run, state: dict[str, Any]) -> dict[str, Any] | None:
    """The gradients of the step that a state lies within, if any, for a run with such steps."""
    accumulated: dict[str, Any] | None = state.get("accumulated")
    if accumulated is not None:
        form = {"accumulate_grad_batches": COUNT, "gradients": DICT}
        check_fields("resume: accumulated", accumulated, form)
        gradients = {
            name: array_of(str(each.dtype), *each.shape)
            for name, each in run.model.named_parameters()
            if name in accumulated["gradients"]
        }
        check_fields("resume: gradients", accumulated["gradients"], Only(gradients))
    batch, share = state["position"]["batch"], run.accumulate_grad_batches
    same = accumulated is not None and accumulated["accumulate_grad_batches"] == share
    if state["position"]["phase"] == "training" and not same and (accumulated or batch % share):
        raise StateError(
            f"resume: the checkpoint was written after batch {batch} of an epoch, which is within "
            f"a step of accumulate_grad_batches={share}; resume with the number of batches it was "
            "written with, or from the end of an epoch; nothing was loaded"
        )
    return accumulated


def _get_history(run: Run) -> dict[str, Any]:
    history = run.history.state_dict()
    if run.rows_begun:
        history["steps"] = history["steps"][: -run.rows_begun]
    return history


def _get_curves(run: Run) -> dict[str, Any]:
    """What is drawn on the model's board, and what is still to be."""
    board = run.model.board
    return {
        "board": board.state_dict() if hasattr(board, "state_dict") else None,
        "plotted": list(run.plotted),
        "undrawn": {
            label: np.array(points).reshape(-1, 2) for label, points in run.undrawn.items()
        },
    }


def _set_curves(run: Run, state: dict[str, Any]) -> None:
    board = run.model.board
    if state["board"] is not None and hasattr(board, "load_state_dict"):
        board.load_state_dict(state["board"])
    run.plotted = dict.fromkeys(state["plotted"])
    run.undrawn = {
        label: [(x, y) for x, y in points.tolist()] for label, points in state["undrawn"].items()
    }


def _check_kinds(what: str, mine: Sequence[Any], saved: Sequence[dict[str, Any]]) -> None:
    own, theirs = [type(each).__name__ for each in mine], [each["type"] for each in saved]
    if own != theirs:
        raise StateError(
            f"resume: configure_optimizers gives the {what} {own}, and the checkpoint has "
            f"{theirs}; nothing was loaded"
        )


def _check_groups(optimizers: Sequence[Any], saved: Sequence[dict[str, Any]]) -> None:
    for optimizer, state in zip(optimizers, saved, strict=True):
        if not isinstance(optimizer, Optimizer):  # one of the user's, which has its own checks
            continue
        groups = {"param_groups": [{"params": [ANYTHING]}]}
        check_fields(f"resume: the state of {type(optimizer).__name__}", state, groups)
        own = [len(group["params"]) for group in optimizer.param_groups]
        theirs = [len(group["params"]) for group in state["param_groups"]]
        if own != theirs:
            raise StateError(
                f"resume: {type(optimizer).__name__} has groups of {own} parameters, and the "
                f"checkpoint has {theirs}; nothing was loaded"
            )


def choose_checkpoint(run: Run, resume: str | Path | None) -> dict[str, Any] | None:
    """Read and verify the checkpoint that `Trainer.fit` was asked to go on from, if any."""
    writer, latest = checkpoint_writer(run), resume in ("last", "auto")
    for each in run.callbacks:
        if isinstance(each, ModelCheckpoint):
            each.last_path, each.continues = None, latest  # another than that of an earlier run
    if resume is None:
        return None
    if not latest:
        path = find_checkpoint(resume)
        state = read_checkpoint(path)
    elif writer is None:
        raise OptionError(
            f'Trainer.fit: resume="{resume}" needs a folder to look in: give the Trainer a '
            "checkpoint_dir, or resume the path of a checkpoint"
        )
    else:
        found = list_checkpoints(writer.folder)
        if not found and resume == "auto":
            return None
        if not found:
            raise CheckpointError(
                f'resume="last": there is no checkpoint in {writer.folder}; resume="auto" starts a '
                "run in that case"
            )
        path, state = _read_latest(found, fall_back=resume == "auto")
    if resume != "auto":  # whose run may have been told to stop, and is to continue
        state["told_to_stop"] = False
    if writer is not None:
        writer.last_path = path
    return state


def _read_latest(found: list[Path], fall_back: bool) -> tuple[Path, dict[str, Any]]:
    """The latest checkpoint; or the latest that can be read, saying why others are passed over."""
    errors: list[Exception] = []
    for path in reversed(found):
        try:
            state = read_checkpoint(path)
        except (CheckpointError, OSError) as error:
            there = list_checkpoints(path.parent)
            if there and path not in there:  # another run has deleted it, as it has written others
                return _read_latest(there, fall_back)
            if not fall_back:
                raise
            errors.append(error)
            continue
        for each in errors:
            told = f'Trainer.fit: resume="auto" takes {path}, an earlier checkpoint: {each}'
            warn(printable(told))
        return path, state
    raise CheckpointError(
        f'Trainer.fit: resume="auto": none of the {len(found)} checkpoints in {found[-1].parent} '
        f"can be read; of the latest: {errors[0]}"
    )


def checkpoint_writer(run: Run) -> ModelCheckpoint | None:
    """The callback that writes this Trainer's checkpoints, the first if there are several."""
    return next((each for each in run.callbacks if isinstance(each, ModelCheckpoint)), None)


def how_to_resume(run: Run) -> str:
    """The line that tells a user who stopped the run what to do next."""
    writer = checkpoint_writer(run)
    where = f"after epoch {run.epoch} (step {run.step})"
    if run.batch:
        where = f"in epoch {run.epoch + 1}, batch {run.batch} (step {run.step})"
    how = "no checkpoint was written, which takes a checkpoint_dir"
    if writer is not None:
        how = f'checkpoint {writer.last_path}; to go on, call fit(..., resume="last")'
    return f"Stopped by {run.stop_reason} {where}; {how}"


def was_finished(run: Run) -> str:
    """The line for a resumed run in which there was nothing left to do."""
    why = f" ({run.stop_reason})" if run.stop_reason else ""
    return (
        f"Trainer.fit: the resumed run was finished already, after epoch {run.epoch} "
        f"(step {run.step}){why}; nothing was trained. To train on, raise the limits of the "
        "Trainer; for a new run, leave resume out"
    )


def not_finite(run: Run, what: str, value: Any, batch: int) -> NonFiniteLossError:
    """The error for a loss or parameter that became NaN or infinite in a batch of this epoch."""
    where, step = f"in epoch {run.epoch + 1}, batch {batch}", run.step_of(batch)
    if not batch:  # the epoch is over
        where, step = f"in epoch {run.epoch}", run.step
    start = f"Trainer.fit: {what} became {value} {where} (step {step})"
    if what == "the loss" and step == 1:
        return NonFiniteLossError(f"{start}, before any update; {_what_the_data_hold(run)}")
    writer = checkpoint_writer(run)
    path = None if writer is None else writer.last_path
    kept = f"the last good checkpoint is {path}" if path else "no checkpoint was written"
    return NonFiniteLossError(f"{start}; {kept}; lower the learning rate, or set gradient_clip_val")


def _what_the_data_hold(run: Run) -> str:
    """Where to look for the cause of a loss that no update has made NaN or infinite."""
    dataset = source = getattr(run.train_batches.loader, "dataset", None)
    while isinstance(source, Subset):
        source = source.dataset
    in_memory = isinstance(source, TensorDataset) and reads(source, "get_batch")
    if not (in_memory and reads(dataset, "get_batch")):  # to read it all might take long
        return "look at the inputs: do they hold NaN or infinity?"
    size, chunk = len(dataset), 4096  # type: ignore[arg-type]
    for start in range(0, size, chunk):
        rows = range(start, min(start + chunk, size))
        for x in dataset.get_batch(rows):  # type: ignore[union-attr]
            if not x.numel():
                continue
            bad = ~x.isfinite().reshape(len(rows), -1).all(axis=1)
            if bad.any():
                sample = start + int(bad.argmax())
                return f"sample {sample} of the training data holds NaN or infinity"
    return "the training data set is finite, so look at the loss and at the initial parameters"
