"""A run on a shared machine: stopped before it begins, beside another one, with the same said once."""

import os
import signal
import warnings

import pytest
from nano_run import run

from otic.apps.pretrain import told_once
from otic.core.errors import ConfigError, OticWarning
from otic.data.crops import Crops
from otic.engine.config import TrainConfig
from otic.engine.interrupt import Interrupt, Interrupted
from otic.engine.lock import locked


def test_a_folder_in_use_is_refused(tmp_path):
    with locked(tmp_path), pytest.raises(ConfigError, match="is training here"):
        run(tmp_path, 2)
    assert run(tmp_path, 2).steps == 2


def test_a_signal_while_statistics_are_measured_ends_it(tmp_path, monkeypatch, capfd):
    take, taken = Crops.take, []

    def signalled(self, position):
        taken.append(position)
        if len(taken) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(self, position)

    monkeypatch.setattr(Crops, "take", signalled)
    with pytest.raises(Interrupted, match="before the first step, nothing to save"):
        run(tmp_path, 2, quiet=False)
    assert len(taken) == 3
    assert capfd.readouterr().err == "stopping after this step; Ctrl-C again stops at once\n"


def test_a_signal_is_answered_once_and_not_when_quiet(capfd):
    for quiet in (False, True):
        with Interrupt(quiet=quiet) as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.wanted()
    assert capfd.readouterr().err.count("stopping after this step") == 1


def test_a_warning_of_each_step_is_told_once():
    with warnings.catch_warnings(record=True, action="always") as said:
        for _ in range(2):
            with told_once():
                for text in ("masks", "rates", "masks"):
                    warnings.warn(OticWarning(text), stacklevel=1)
    assert [str(w.message) for w in said] == ["masks", "rates"] * 2


@pytest.mark.parametrize(
    "changes",
    [{"betas": (1.5, 0.9)}, {"eps": -1.0}, {"weight_decay": -0.1}, {"floor": -1e-3}, {"save_minutes": float("nan")}],
)
def test_settings_that_no_optimiser_takes_are_named(changes):
    with pytest.raises(ConfigError, match=rf"train\.{next(iter(changes))}="):
        TrainConfig(**changes)
