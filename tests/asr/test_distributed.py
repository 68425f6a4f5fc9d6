"""Data-parallel training on two processes: clips must stay equal on both."""

import torch
import torch.distributed
import torch.multiprocessing
from small_transducer import SCHEME, build_transducer, random_batch
from torch.nn.parallel import DistributedDataParallel

from espnet_quant4.quantizers import Quantizer


def train(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    model = DistributedDataParallel(build_transducer(SCHEME), find_unused_parameters=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        # Each process sees data of its own scale, the first time to initialize clips by.
        batch = random_batch(seed=10 * step + rank)
        batch["speech"] *= 1 + 2 * rank
        optimizer.zero_grad()
        model(**batch)[0].backward()
        optimizer.step()
    state = {
        n: m.clip_value.detach().clone()
        for n, m in model.module.named_modules()
        if isinstance(m, Quantizer)
    }
    torch.save(state, f"{folder}/clips.{rank}")
    torch.distributed.destroy_process_group()


def test_clips_stay_equal(tmp_path):
    torch.multiprocessing.spawn(train, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"clips.{rank}") for rank in (0, 1))
    assert first.keys() == second.keys() and len(first) > 10
    for name, clip in first.items():
        torch.testing.assert_close(clip, second[name], atol=0, rtol=0, msg=name)
