"""Reading ESPnet's logs; the lines are copied from real runs."""

import math

import pytest

from espnet_quant4.report.espnet_log import (
    EpochResults,
    LogWatcher,
    decoding_times,
    epoch_results,
    real_time_factor,
)

TRAINING = """\
[vm] 2026-11-23 23:19:42,275 (abs_task:1920) INFO: [train] Batch sampler: NumElementsBatchSampler(\
N-batch=93, batch_bins=240000, sort_in_batch=descending, sort_batch=descending)
[vm] 2026-11-23 23:19:42,500 (trainer:331) INFO: 25/30epoch started
[vm] 2026-11-23 23:41:26,243 (trainer:810) INFO: 25epoch:train:1-50batch: iter_time=0.018, \
loss=17.093, train_time=0.819
[vm] 2026-11-23 23:42:06,436 (trainer:392) INFO: 25epoch results: [train] iter_time=0.018, \
loss_ctc=17.969, loss=17.969, time=1 minute and 19.3 seconds, total_count=2325, [valid] \
loss_ctc=58.231, cer_ctc=nan, loss=58.231, time=1.92 seconds, total_count=100
[vm] 2026-11-23 23:42:06,586 (trainer:322) INFO: 26/30epoch started. Estimated time to finish: \
4 minutes and 40.03 seconds
""".splitlines()

DECODING = """\
2026-11-23 23:00:00,000 (asr_inference:522) INFO: speech length: 8000
2026-11-23 23:00:00,400 (asr_inference:638) INFO: encoder output length: 25
2026-11-23 23:00:00,500 (asr_inference:646) INFO: best hypo: a<space>b

2026-11-23 23:00:00,510 (asr_inference:522) INFO: speech length: 16000
2026-11-23 23:00:00,760 (asr_inference:646) INFO: best hypo:
2026-11-23 23:00:00,770 (asr_inference:522) INFO: speech length: 9000
""".splitlines()


def test_training_is_followed_from_line_to_line():
    watcher = LogWatcher()
    shown = [watcher.feed(line) for line in TRAINING[:3]]
    assert shown == [None, None, None]
    assert watcher.status() == "epoch 25/30, batch 50"
    assert watcher.feed(TRAINING[3]) == (
        "epoch 25/30: train loss 17.969, valid loss 58.231; took 1 minute and 19.3 seconds"
    )
    watcher.feed(TRAINING[4])
    assert watcher.status() == ("epoch 26/30, batch 0, about 4 minutes and 40.03 seconds left")


def test_decoding_is_counted():
    watcher = LogWatcher(total=3)
    assert watcher.status() == ""
    assert [watcher.feed(line) for line in DECODING] == [None] * len(DECODING)
    assert watcher.status() == "2/3 utterances"


def test_a_bar_says_how_far_a_command_is():
    watcher = LogWatcher()
    bar = "features of dev:  56%|█████▋    | 9/16 [00:00<00:00, 172.47utt/s]"
    assert watcher.feed(bar) is None
    assert watcher.status() == "features of dev 9/16"
    watcher.feed("GMM: 100%|██████████| 40/40 [00:01<00:00, 36.34pass/s, failed=0, gaussians=199]")
    assert watcher.status() == "GMM 40/40"
    watcher.feed(" 50%|█████     | 1.50k/3.00k [00:01<00:01]")
    assert watcher.status() == "1.50k/3.00k"


def test_decoding_time_runs_from_speech_to_hypothesis():
    # The last utterance has no hypothesis: the run was ended.
    assert list(decoding_times(DECODING)) == [(8000, 0.5), (16000, 0.25)]


def test_real_time_factor_over_several_logs(tmp_path):
    paths = [tmp_path / "asr_inference.1.log", tmp_path / "asr_inference.2.log"]
    for path in paths:
        path.write_text("\n".join(DECODING))
    factor, seconds = real_time_factor(paths, sampling_rate=8000)
    assert seconds == pytest.approx(6.0)
    assert factor == pytest.approx(1.5 / 6.0)
    assert math.isnan(real_time_factor([], sampling_rate=8000)[0])


# As ESPnet3's callback logs them: the validation of an epoch before its training.
ESPNET3 = """\
[vm] 2026-11-27 17:46:07 UTC (x.py:416) INFO:\t[train] epoch_summary:1epoch:valid: valid_time=0.04, \
loss=81.3013, loss_ctc=37.4
[vm] 2026-11-27 17:46:07 UTC (x.py:385) INFO:\t[train] 1epoch:train:1-50batch: train_time=0.06, loss=99
[vm] 2026-11-27 17:46:07 UTC (x.py:385) INFO:\t[train] epoch_summary:1epoch:train: train_time=0.06, \
loss=116.949, loss_ctc=53.0, optim0_lr0=5.94819e-05
[vm] 2026-11-27 17:46:08 UTC (x.py:416) INFO:\t[train] epoch_summary:2epoch:valid: loss=81.2831
"""


def test_espnet3_logs_give_the_same_results():
    (only,) = epoch_results(ESPNET3.splitlines())
    assert only == EpochResults(1, 116.949, 81.3013, 5.94819e-05)
