"""The page about an experiment."""

import argparse
import base64
import html.parser
import re
import sys

import numpy as np
import pytest
import soundfile
import torch
from espnet2.tasks.asr import ASRTask
from espnet2.utils.yaml_no_alias_safe_dump import yaml_no_alias_safe_dump
from hybrid.small_hybrid import training_options, write_corpus
from small_transducer import TOKENS

from espnet_quant4.bin import main
from espnet_quant4.hybrid.task import HybridTask
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.report.experiment import folder
from espnet_quant4.report.experiment.report import clips_by_epoch

matplotlib = pytest.importorskip("matplotlib")

CONFIG = {
    "token_list": TOKENS,
    "token_type": "char",
    "frontend": "default",
    "frontend_conf": {"fs": "8k", "n_fft": 256, "hop_length": 80, "n_mels": 10},
    "normalize": "utterance_mvn",
    "encoder": "quant_rnn",
    "encoder_conf": {"num_layers": 1, "hidden_size": 5, "output_size": 5, "use_projection": False},
    "decoder": "quant_transducer",
    "decoder_conf": {"hidden_size": 4},
    "joint_net_conf": {"joint_space_size": 6},
    "model": "quant_espnet",
}
LOG = """\
[vm] 2026-11-23 23:42:06,436 (trainer:392) INFO: {epoch}epoch results: [train] iter_time=0.018, \
loss_ctc=17.969, loss={train}, optim0_lr0=1.000e-03, time=1 minute and 19.3 seconds, \
total_count=2325, [valid] loss_ctc=58.231, loss={valid}, time=1.92 seconds, total_count=100
"""
TOTALS = """\
| SPKR    | # Snt # Wrd | Corr    Sub    Del    Ins    Err  S.Err |
| Sum/Avg |   130   773 |  95.1    3.6    1.3    0.6    {error}   30.8 |
"""


def write_data(at):
    noise = np.random.default_rng(0)
    names = [f"utt{i}" for i in range(8)]
    for name in names:
        soundfile.write(at / f"{name}.wav", 0.1 * noise.standard_normal(4000), 8000)
    (at / "wav.scp").write_text("".join(f"{n} {at / n}.wav\n" for n in names))
    (at / "text").write_text("".join(f"{n} a b\n" for n in names))


def write_experiment(at, scheme, data=None):
    """Write a folder as training leaves it, with two epochs; return the model."""
    torch.manual_seed(0)
    args = argparse.Namespace(**ASRTask.get_default_config())
    for key, value in CONFIG.items():
        setattr(args, key, value)
    args.model_conf = {"scheme": scheme, "ctc_weight": 0.3}
    where = data or at / "gone"
    args.valid_data_path_and_name_and_type = [
        (f"{where}/wav.scp", "speech", "sound"),
        (f"{where}/text", "text", "text"),
    ]
    model = ASRTask.build_model(args)
    with calibrating(model.eval()), torch.no_grad():
        model.encode(torch.randn(2, 8000), torch.tensor([8000, 6000]))
        model.joint_network(torch.randn(1, 3, 1, 5).tanh(), torch.randn(1, 1, 2, 4).tanh())
        model.decoder(torch.tensor([[0, 3, 4]]))
    at.mkdir()
    (at / "config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)), encoding="utf-8")
    for name in ("1epoch.pth", "2epoch.pth", "valid.loss.ave.pth"):
        torch.save(model.state_dict(), at / name)
    (at / "train.1.log").write_text(LOG.format(epoch=1, train=99, valid=98))
    (at / "train.log").write_text(
        LOG.format(epoch=1, train=17, valid=58) + LOG.format(epoch=2, train=7, valid=8)
    )
    for part, error in (("dev", 5.6), ("org/test", 7.7)):
        for rate in ("wer", "cer"):
            scored = at / "decode" / part / f"score_{rate}"
            scored.mkdir(parents=True)
            (scored / "result.txt").write_text(TOTALS.format(error=error))
    return model


class Reader(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps addresses and text."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.ids, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value for key, value in attrs if key in ("href", "src")]
        self.ids += [value for key, value in attrs if key == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read_page(at):
    reader = Reader()
    reader.feed((at / "report.html").read_text(encoding="utf-8"))
    reader.close()
    assert not reader.open
    return reader, " ".join(" ".join(reader.text).split())


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("reported")
    write_data(tmp_path)
    model = write_experiment(tmp_path / "exp", "tailored", tmp_path)
    options = ["--batches", "1", "--pictures", str(tmp_path / "pictures")]
    assert main.main(["report", str(tmp_path / "exp"), *options]) == 0
    return tmp_path / "exp", model


def test_the_page_holds_every_quantized_tensor(reported):
    at, model = reported
    reader, text = read_page(at)
    names = [
        n.replace(".quantizers", "") for n, m in model.named_modules() if isinstance(m, Quantizer)
    ]
    # In the settings, the ranking and above its histogram.
    assert names and all(reader.text.count(name) == 3 for name in names)
    assert len([a for a in reader.addresses if a.startswith("data:")]) == len(names) + 1
    assert "4 utterances" in text and "10 log10" in text


def test_the_pictures_are_files_too_where_that_is_asked_for(reported):
    page = (reported[0] / "report.html").read_text(encoding="utf-8")
    written = {path.stem: path.read_bytes() for path in (reported[0].parent / "pictures").iterdir()}
    drawn = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="Histogram of ([^"]+)"', page)
    assert len(written) > 10
    assert written == {name: base64.b64decode(picture) for picture, name in drawn}


def test_the_page_needs_nothing_from_outside(reported):
    reader, _ = read_page(reported[0])
    page = (reported[0] / "report.html").read_text(encoding="utf-8")
    assert "//" not in re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in reader.addresses)
    assert {a[1:] for a in reader.addresses if a.startswith("#")} == set(reader.ids)


def test_the_worst_tensor_stands_first(reported):
    page = (reported[0] / "report.html").read_text(encoding="utf-8")
    ranking = page[page.index("worst first") : page.index("<h2>Histograms")]
    ratios = [float(x) for x in re.findall(r'<tr><td class="number">([\d.]+)</td>', ranking)]
    assert len(ratios) > 10 and ratios == sorted(ratios)


def test_scores_and_curve_are_shown(reported):
    at, _ = reported
    _, text = read_page(at)
    assert "Epoch 2: train loss 7, valid loss 8." in text
    assert "decode/dev 5.6 5.6 30.8" in text and "decode/org/test 7.7" in text
    first, second = folder.training_curve(at)
    # The first epoch was trained twice; the later log holds.
    assert (first.epoch, first.train_loss, first.valid_loss, first.learning_rate) == (
        1,
        17,
        58,
        0.001,
    )
    assert second.epoch == 2


def test_the_same_folder_gives_the_same_bytes_in_every_style(reported, monkeypatch):
    at, _ = reported
    before = (at / "report.html").read_bytes()
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 9.0)
    monkeypatch.setitem(matplotlib.rcParams, "figure.facecolor", "black")
    assert main.main(["report", str(at), "--batches", "1"]) == 0
    assert (at / "report.html").read_bytes() == before
    assert not list(at.glob("*.part"))


def test_a_clip_is_followed_over_the_epochs(reported):
    at, model = reported
    state = torch.load(at / "1epoch.pth", weights_only=True)
    try:
        weight = "encoder.enc.0.nbrnn.weight_hh_l0"
        torch.save({**state, weight: 2 * state[weight]}, at / "1epoch.pth")
        torch.save({**state, weight: 4 * state[weight]}, at / "calibrated.pth")
        clips = clips_by_epoch(model, at)
    finally:
        torch.save(state, at / "1epoch.pth")
        (at / "calibrated.pth").unlink()
    start, first, second = (clips["encoder.enc.0.nbrnn.l0.weight_hh"][epoch] for epoch in (0, 1, 2))
    assert first == pytest.approx((2 * second[0], 2 * second[1]))
    assert start == pytest.approx((4 * second[0], 4 * second[1]))
    assert clips["encoder.enc.0.nbrnn.l0.hidden"] == {0: (1, 1), 1: (1, 1), 2: (1, 1)}


def test_clips_that_were_never_set_leave_the_weights(tmp_path):
    write_data(tmp_path)
    model = write_experiment(tmp_path / "exp", "naive", tmp_path)
    state = {k: v for k, v in model.state_dict().items() if "quantizers" not in k}
    torch.save(state, tmp_path / "exp" / "valid.loss.ave.pth")
    assert main.main(["report", str(tmp_path / "exp"), "--batches", "1"]) == 0
    _, text = read_page(tmp_path / "exp")
    assert "activations were never set" in text and "espnet-quant4 calibrate" in text
    assert "weight_ih" in text


def test_without_data_only_weights_are_shown(tmp_path):
    write_experiment(tmp_path / "exp", "tailored")
    assert main.main(["report", str(tmp_path / "exp")]) == 0
    reader, text = read_page(tmp_path / "exp")
    assert "Only weights" in text and "gone/wav.scp" in text
    assert reader.text.count("encoder.enc.0.nbrnn.l0.weight_ih") == 3
    assert reader.text.count("encoder.enc.0.nbrnn.l0.input") == 1


def test_data_can_be_named(tmp_path):
    write_data(tmp_path)
    write_experiment(tmp_path / "exp", "tailored")
    data = ["--data_path_and_name_and_type", f"{tmp_path}/wav.scp,speech,sound"]
    data += ["--data_path_and_name_and_type", f"{tmp_path}/text,text,text"]
    assert main.main(["report", str(tmp_path / "exp"), *data]) == 0
    assert "Activations of 8 utterances" in read_page(tmp_path / "exp")[1]


def test_a_float_model_has_histograms_only(tmp_path):
    write_experiment(tmp_path / "exp", "fp32")
    assert main.main(["report", str(tmp_path / "exp")]) == 0
    reader, text = read_page(tmp_path / "exp")
    assert "A float model" in text and "dB" not in text
    assert "encoder.enc.0.nbrnn.weight_ih_l0" in reader.text


def test_a_hybrid_model(tmp_path):
    corpus, at = write_corpus(tmp_path), tmp_path / "exp"
    scheme = tmp_path / "scheme.yaml"
    scheme.write_text(
        "linear:\n  weight: {quantizer: max, bits: 4}\n  input: {quantizer: fix, bits: 4}\n"
    )
    options = [*training_options(corpus, at), "--model_conf", f"scheme={scheme}"]
    args = HybridTask.get_parser().parse_args(options)
    model = HybridTask.build_model(args)
    at.mkdir()
    (at / "config.yaml").write_text(yaml_no_alias_safe_dump(vars(args)), encoding="utf-8")
    torch.save(model.state_dict(), at / "valid.loss.ave.pth")
    assert main.main(["report", str(at), "--task", "hybrid", "--batches", "1"]) == 0
    reader, text = read_page(at)
    assert reader.text.count("bottleneck.weight") == reader.text.count("output.input") == 3
    assert "4 utterances" in text and "No finished epoch" in text and "Nothing is decoded" in text


def test_older_logs_of_both_trainers_are_read_in_their_order(tmp_path):
    # The job runner's highest number is its oldest log, ESPnet3's its newest.
    for order in (("train.2.log", "train.1.log"), ("train1.log", "train2.log")):
        at = tmp_path / order[0]
        at.mkdir()
        for loss, name in enumerate((*order, "train.log"), 1):
            (at / name).write_text(LOG.format(epoch=1, train=loss, valid=0))
            (epoch,) = folder.training_curve(at)
            assert epoch.train_loss == loss


def test_error_rates_of_espnet3_are_those_of_its_counts(tmp_path):
    part = tmp_path / "inference_int4/test"
    part.mkdir(parents=True)
    sentences = "".join(f"=== SENTENCE {n} ===\n\nREF: A B\nHYP: A C\n" for n in (1, 2))
    for rate, counts in (
        ("wer", "hits=6, substitutions=2, deletions=2, insertions=1"),
        ("cer", "hits=30, substitutions=5, deletions=5, insertions=0"),
    ):
        (part / f"{rate}_alignment").write_text(f"{sentences}\n{rate.upper()}: 50.00 ({counts})\n")
    (row,) = folder.error_rates(tmp_path)
    assert row == {
        "part": "inference_int4/test", "sentences": "2", "words": "10", "correct": "60.0",
        "substitutions": "20.0", "deletions": "20.0", "insertions": "10.0", "error": "50.0",
        "sentence_error": "", "cer": "25.0",
    }  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    at = tmp_path_factory.mktemp("broken") / "exp"
    write_experiment(at, "naive")
    return at


@pytest.mark.parametrize(
    "options, message",
    [
        (["--model", "best.pth"], "best.pth: no such checkpoint. --model takes one of: 1epoch.pth"),
        (["--model", "train.log"], "train.log: not a file of torch.save.*--model"),
        (["--task", "hybrid"], "lacks num_pdfs, which HybridTask saves.*another task.*--task"),
        (["--data_path_and_name_and_type", "no/wav.scp,speech,sound"], "no/wav.scp: no such file"),
    ],
)
def test_what_is_missing_is_named(broken, capsys, options, message):
    assert main.main(["report", str(broken), *options]) == 1
    error = capsys.readouterr().err
    assert re.search(f"espnet-quant4 report: .*{message}", error)
    assert not (broken / "report.html").exists()


def test_another_models_checkpoint_is_refused(broken, capsys):
    torch.save({"encoder.weight": torch.ones(2)}, broken / "other.pth")
    assert main.main(["report", str(broken), "--model", "other.pth"]) == 1
    assert "other.pth: not the parameters of the model in config.yaml: " in capsys.readouterr().err


def test_a_folder_without_training_is_refused(tmp_path, capsys):
    assert main.main(["report", str(tmp_path)]) == 1
    assert "config.yaml: no such file. Give the folder" in capsys.readouterr().err


def test_data_of_another_form_are_refused(capsys):
    with pytest.raises(SystemExit):
        main.main(["report", "exp", "--data_path_and_name_and_type", "wav.scp"])
    assert "'wav.scp' is not PATH,NAME,TYPE" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named(broken, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main.main(["report", str(broken)]) == 1
    assert 'pip install "matplotlib"' in capsys.readouterr().err
