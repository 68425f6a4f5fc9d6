"""ESPnet's own training on two processes: one model on both, quantizers included, bit by bit.

What ESPnet does with two GPUs runs here on the CPU: its training command, once a rank, over gloo.
Each rank sees utterances of its own.
"""

from pathlib import Path

import pytest
import torch
from espnet2.tasks.asr import ASRTask
from espnet2.train.trainer import Trainer
from hybrid.small_hybrid import training_options, write_corpus
from small_asr import asr_options, write_asr_corpus

from espnet_quant4.hybrid.task import HybridTask

pytestmark = pytest.mark.slow

RANKS = 2
# A scheme whose clips are learned or constant, and one whose clips are running maxima.
CASES = [(task, scheme) for task in ("asr", "hybrid") for scheme in ("tailored", "naive")]


class RecordingTrainer(Trainer):
    """Saves each rank's state before training and behind its last step.

    Not at the end: validation hands out the buffers of rank 0, which would hide that they differ.
    """

    folder = Path()

    @classmethod
    def run(cls, model, *args, **kwargs):
        cls.save(model, "start")
        return super().run(model, *args, **kwargs)

    @classmethod
    def validate_one_epoch(cls, model, *args, **kwargs):
        cls.save(model.module, "end")
        return super().validate_one_epoch(model, *args, **kwargs)

    @classmethod
    def save(cls, model, moment):
        torch.save(model.state_dict(), cls.folder / f"{moment}.{torch.distributed.get_rank()}.pth")


class RecordedASRTask(ASRTask):
    trainer = RecordingTrainer


class RecordedHybridTask(HybridTask):
    trainer = RecordingTrainer


def training_command(task, scheme, folder):
    """Write a corpus of 8 utterances; return the options of a training, but for the rank."""
    settings = {"batch_size": 4, "max_epoch": 2}
    if task == "asr":
        corpus = write_asr_corpus(folder, scheme, **settings)
        options = asr_options(corpus, folder / "exp")
    else:
        corpus = write_corpus(folder, model_conf={"scheme": scheme}, **settings)
        options = training_options(corpus, folder / "exp")
    options += ["--dist_backend", "gloo", "--dist_init_method", f"file://{folder}/rendezvous"]
    return [*options, "--dist_world_size", str(RANKS), "--multiprocessing_distributed", "false"]


def train(rank, commands):
    """Run a rank's part of all trainings, one after the other."""
    torch.set_num_threads(1)
    for (name, _), (folder, command) in commands.items():
        RecordingTrainer.folder = folder
        task = RecordedASRTask if name == "asr" else RecordedHybridTask
        task.main(cmd=[*command, "--dist_rank", str(rank)])
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Where each case has its ``start.RANK.pth`` and ``end.RANK.pth``."""
    commands = {}
    for case in CASES:
        folder = tmp_path_factory.mktemp("-".join(case))
        commands[case] = folder, training_command(*case, folder)
    context = torch.multiprocessing.get_context("spawn")
    ranks = [context.Process(target=train, args=(rank, commands)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(timeout=1800)
    for process in ranks:
        # One that waits for the other's end would wait on.
        process.kill()
    assert [process.exitcode for process in ranks] == [0] * RANKS
    return {case: folder for case, (folder, _) in commands.items()}


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_ranks_hold_one_model_bit_by_bit(case, folders):
    first, second = (torch.load(folders[case] / f"end.{rank}.pth") for rank in range(RANKS))
    assert first.keys() == second.keys()
    assert not [name for name, value in first.items() if not torch.equal(value, second[name])]


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_weights_and_clips_of_both_ranks_were_trained(case, folders):
    for rank in range(RANKS):
        start, end = (torch.load(folders[case] / f"{m}.{rank}.pth") for m in ("start", "end"))
        changed = {name for name, value in end.items() if not torch.equal(value, start[name])}
        weights = {name for name in end if "quantizers" not in name and "weight" in name}
        assert weights and weights <= changed
        # Learned from data, or its maximum: what the first layer reads.
        assert {
            "encoder.enc.0.nbrnn.quantizers.l0.input.clip_value",
            "encoder.enc.0.nbrnn.quantizers.l0.input.calibrated",
        } <= changed
