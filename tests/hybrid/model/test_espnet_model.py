"""The model: loss and statistics, chunks in training only, what it refuses."""

import math
from typing import Any

import pytest
import torch
from espnet2.asr.encoder.rnn_encoder import RNNEncoder
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.specaug.specaug import SpecAug
from espnet2.layers.utterance_mvn import UtteranceMVN

from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.asr.preencoder.frame_context import FrameContext
from espnet_quant4.hybrid.model.espnet_model import ESPnetHybridModel
from espnet_quant4.int4 import features
from espnet_quant4.quantizers.calibration import calibrating
from espnet_quant4.scheme import SchemeError

FEATURES, PDFS = 3, 5


def build(encoder_class: Any = QuantRNNEncoder, seed: int = 0, **conf: Any) -> ESPnetHybridModel:
    torch.manual_seed(seed)
    options = {"preencoder": FrameContext(FEATURES, deltas=1), "specaug": None, **conf}
    encoder = options.pop("encoder", None) or encoder_class(
        2 * FEATURES, num_layers=2, hidden_size=6, output_size=7, use_projection=False
    )
    return ESPnetHybridModel(
        num_pdfs=PDFS, frontend=None, normalize=None, encoder=encoder, **options
    )


def random_batch(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    lengths = torch.tensor([20, 14, 9])
    return {
        "speech": torch.randn(3, 20, FEATURES),
        "speech_lengths": lengths,
        "pdf_ids": torch.randint(PDFS, (3, 20)),
        # One short by a frame, one too long by one.
        "pdf_ids_lengths": lengths + torch.tensor([-1, 0, 1]),
    }


def test_loss_is_the_mean_over_frames_and_padding_does_not_count() -> None:
    model, batch = build().eval(), random_batch()
    with torch.no_grad():
        loss, stats, weight = model(**batch)
        posteriors, lengths = model.log_posteriors(batch["speech"], batch["speech_lengths"])
    assert weight.tolist() == [43] and lengths.tolist() == [20, 14, 9]
    torch.testing.assert_close(posteriors.exp().sum(2), torch.ones(3, 20))
    rights, nats = 0, 0.0
    for utterance, length in enumerate(lengths.tolist()):
        ids = batch["pdf_ids"][utterance, : int(batch["pdf_ids_lengths"][utterance])].tolist()
        ids = (ids + ids[-1:])[:length]
        for frame, pdf in enumerate(ids):
            nats -= float(posteriors[utterance, frame, pdf])
            rights += int(posteriors[utterance, frame].argmax()) == pdf
    assert loss.item() == pytest.approx(nats / 43, rel=1e-5)
    assert stats["loss"].item() == loss.item()
    assert stats["acc"].item() == pytest.approx(rights / 43)
    batch["speech"][2, 9:] = 1e3
    batch["pdf_ids"][2, 10:] = 4
    with torch.no_grad():
        assert model(**batch)[0].item() == pytest.approx(loss.item(), rel=1e-6)


def test_utterances_score_alone_as_in_a_batch() -> None:
    model, batch = build().eval(), random_batch()
    with torch.no_grad():
        together, _ = model.log_posteriors(batch["speech"], batch["speech_lengths"])
        alone, _ = model.log_posteriors(batch["speech"][1:2, :14], torch.tensor([14]))
    torch.testing.assert_close(together[1, :14], alone[0])


@pytest.mark.parametrize("encoder_class", [QuantRNNEncoder, RNNEncoder])
def test_training_learns_also_from_chunks(encoder_class: Any) -> None:
    batch = random_batch()
    batch["pdf_ids"] = batch["speech"].sum(2).mul(2).round().long().clamp(0, PDFS - 1)
    batch["pdf_ids_lengths"] = batch["speech_lengths"]
    chunks = {"size": 5, "mode": "random", "left_context": 2}
    model = build(encoder_class, chunk_conf=chunks, bottleneck_activation="relu")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss, _, weight = model(**batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert weight.item() == 43
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in model.parameters())


def test_chunks_are_for_training_only() -> None:
    batch = random_batch()
    whole = build()
    # Chunks as long as the longest utterance are the utterances.
    longest = build(chunk_conf={"size": 20, "mode": "sequential"})
    short = build(chunk_conf={"size": 3, "mode": "sequential"})
    losses = [model(**batch)[0].item() for model in (whole, longest, short)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert abs(losses[2] - losses[0]) > 1e-5
    with torch.no_grad():
        evaluated = [model.eval()(**batch)[0].item() for model in (whole, longest, short)]
    assert evaluated[0] == evaluated[1] == evaluated[2]


def test_every_nth_frame_with_its_own_target() -> None:
    model, batch = build(subsample=3).eval(), random_batch()
    with torch.no_grad():
        loss, _, weight = model(**batch)
        thinned, lengths = model.log_posteriors(
            batch["speech"], batch["speech_lengths"], repeat_frames=False
        )
        repeated, frames = model.log_posteriors(batch["speech"], batch["speech_lengths"])
    assert lengths.tolist() == [7, 5, 3] and weight.item() == 15
    assert frames.tolist() == [20, 14, 9] and repeated.shape[1] == 20
    assert torch.equal(repeated[:, ::3], thinned) and torch.equal(repeated[:, 1], thinned[:, 0])
    first = [float(thinned[0, t, batch["pdf_ids"][0, 3 * t]]) for t in range(7)]
    second = [float(thinned[1, t, batch["pdf_ids"][1, 3 * t]]) for t in range(5)]
    third = [float(thinned[2, t, batch["pdf_ids"][2, 3 * t]]) for t in range(3)]
    assert loss.item() == pytest.approx(-sum(first + second + third) / 15, rel=1e-5)


def test_one_step_scores_several_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_multiframe(**conf: Any) -> ESPnetHybridModel:
        torch.manual_seed(1)
        encoder = QuantRNNEncoder(
            2 * FEATURES, output_size=7, hidden_size=6, use_projection=False, stack_frames=3
        )
        return build(encoder=encoder, frames_per_step=3, **conf)

    model, batch = build_multiframe().eval(), random_batch()
    assert model.output.out_features == 3 * PDFS
    with torch.no_grad():
        loss, _, weight = model(**batch)
        posteriors, lengths = model.log_posteriors(batch["speech"], batch["speech_lengths"])
        alone, _ = model.log_posteriors(batch["speech"][1:2, :14], torch.tensor([14]))
    assert posteriors.shape == (3, 20, PDFS) and lengths.tolist() == [20, 14, 9]
    assert weight.tolist() == [43]
    torch.testing.assert_close(posteriors.exp().sum(2), torch.ones(3, 20))
    torch.testing.assert_close(alone[0], posteriors[1, :14])
    # The frames of a step have outputs of their own.
    assert not torch.allclose(posteriors[0, 0], posteriors[0, 1])
    nats = []
    for utterance, length in enumerate(lengths.tolist()):
        ids = batch["pdf_ids"][utterance, : int(batch["pdf_ids_lengths"][utterance])].tolist()
        ids = (ids + ids[-1:])[:length]
        nats += [-float(posteriors[utterance, frame, pdf]) for frame, pdf in enumerate(ids)]
    assert loss.item() == pytest.approx(sum(nats) / 43, rel=1e-5)

    quantized = build_multiframe(scheme="tailored").eval()
    with torch.no_grad(), calibrating(quantized):
        quantized(**batch)
    found = []
    for inference in ("emulated", "int4"):
        monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", inference)
        with torch.no_grad():
            found.append(quantized.log_posteriors(batch["speech"], batch["speech_lengths"])[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_steps_of_several_frames_learn_from_chunks() -> None:
    encoder = QuantRNNEncoder(
        2 * FEATURES, output_size=7, hidden_size=6, use_projection=False, stack_frames=2
    )
    chunks = {"size": 5, "mode": "sequential", "left_context": 1}
    model, batch = build(encoder=encoder, frames_per_step=2, chunk_conf=chunks), random_batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss, _, weight = model(**batch)
        assert weight.tolist() == [43]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_label_smoothing_is_for_training_only() -> None:
    batch = random_batch()
    plain, smooth = build(), build(label_smoothing=0.3)
    logs, _ = plain.eval().log_posteriors(batch["speech"], batch["speech_lengths"])
    valid = torch.arange(20) < batch["speech_lengths"].unsqueeze(1)
    uniform = -logs[valid].mean().item()
    plain_loss, smooth_loss = plain.train()(**batch)[0].item(), smooth(**batch)[0].item()
    assert smooth_loss == pytest.approx(0.7 * plain_loss + 0.3 * uniform, rel=1e-5)
    assert smooth.eval()(**batch)[0].item() == pytest.approx(plain_loss, rel=1e-5)


def test_bottleneck_is_optional() -> None:
    names = {name for name, _ in build().named_parameters()}
    assert {"bottleneck.weight", "output.weight"} <= names
    without = build(bottleneck_size=None)
    assert without.bottleneck is None and without.output.in_features == 7
    assert math.isfinite(without(**random_batch())[0].item())


def test_schemes_reach_every_layer() -> None:
    model = build(scheme="tailored")
    assert model.output.quantizers["weight"].bits == 8
    assert model.output.quantizers["weight"].groups == PDFS
    assert model.output.quantizers["input"].bits == 8
    assert model.bottleneck.quantizers["weight"].bits == 4
    assert type(model.bottleneck.quantizers["input"]).__name__.startswith("Pact")
    lstm = model.encoder.enc[0].nbrnn.quantizers
    assert lstm["l0"]["input"].bits == 8 and lstm["l1"]["weight_hh"].bits == 4
    with pytest.raises(SchemeError, match="quantized already"):
        encoder = QuantRNNEncoder(
            6, num_layers=1, output_size=7, use_projection=False, scheme="naive"
        )
        build(encoder=encoder, scheme="tailored")


@pytest.mark.parametrize("scheme", ["naive", "tailored", "int8"])
def test_int4_inference_equals_emulation(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch()
    found = []
    for inference in ("emulated", "int4"):
        monkeypatch.setenv("ESPNET_QUANT4_INFERENCE", inference)
        model = build(scheme=scheme).eval()
        with torch.no_grad(), calibrating(model):
            model(**batch)
        with torch.no_grad():
            found.append(model.log_posteriors(batch["speech"], batch["speech_lengths"])[0])
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)
    assert found[0].std() > 1e-3


def test_padding_shapes_no_clip() -> None:
    clips = []
    for padding in (0.0, 1e3):
        batch = random_batch()
        batch["speech"][1, 14:] = padding
        batch["speech"][2, 9:] = padding
        model = build(scheme="naive").eval()
        with torch.no_grad(), calibrating(model):
            model(**batch)
        clips.append(model.bottleneck.quantizers["input"].clip().item())
    assert clips[0] == clips[1]


@pytest.mark.parametrize(
    "conf, message",
    [
        ({"subsample": 0}, "subsample: 0"),
        ({"frames_per_step": 0}, "frames_per_step: 0"),
        ({"bottleneck_size": 0}, "bottleneck_size: 0.*null"),
        ({"bottleneck_activation": "gelu"}, "'gelu'; valid: none, relu, tanh"),
        ({"label_smoothing": 1.0}, "label_smoothing: 1.0"),
        ({"criterion": "mmi"}, "'mmi'; valid: ce, lfmmi"),
        ({"criterion": "lfmmi"}, "needs lfmmi_conf"),
        ({"ce_weight": -1.0}, "ce_weight: -1.0"),
        ({"inference": "int3"}, "'int3'; valid: int4, emulated"),
        ({"specaug": SpecAug(time_mask_width_range=4)}, "apply_time_warp"),
        (
            {
                "criterion": "lfmmi",
                "lfmmi_conf": {"den": "x"},
                "chunk_conf": {"size": 21, "mode": "random"},
            },
            "needs whole utterances",
        ),
    ],
)
def test_wrong_options(conf: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**conf)


def test_an_encoder_that_changes_the_frame_rate_is_refused() -> None:
    encoder = QuantRNNEncoder(6, num_layers=2, output_size=7)  # ESPnet's default divides by 4
    with pytest.raises(ValueError, match="turned 20 frames into 5.*needs 20.*subsample: null"):
        build(encoder=encoder)(**random_batch())
    with pytest.raises(ValueError, match="turned 20 frames into 20.*needs 10.*stack_frames: 2"):
        build(frames_per_step=2)(**random_batch())


def test_speech_that_cannot_be_scored() -> None:
    model, batch = build().eval(), random_batch()
    with pytest.raises(ValueError, match="empty utterances"):
        model.log_posteriors(batch["speech"], torch.tensor([20, 0, 9]))
    batch["speech"][1, 3] = float("nan")
    with pytest.raises(ValueError, match=r"NaN or infinite values at batch positions \[1\]"):
        model.log_posteriors(batch["speech"], batch["speech_lengths"])
    # In training it reaches the loss, where ESPnet's trainer skips and counts the step.
    assert math.isnan(build()(**batch)[0].item())


def test_messages_name_utterances() -> None:
    batch = random_batch()
    batch["pdf_ids_lengths"][2] = 5
    with pytest.raises(ValueError, match="an7 has 5 ids for 9 frames"):
        build()(**batch, utt_id=["an5", "an6", "an7"])


def test_features_of_long_recordings_are_made_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build().eval()
    model.frontend = DefaultFrontend(fs=8000, n_fft=256, hop_length=80, n_mels=FEATURES)
    model.normalize = UtteranceMVN(norm_vars=True)
    speech, lengths, sizes = torch.randn(1, 20000), torch.tensor([20000]), list[int]()
    model.frontend.register_forward_hook(lambda _, given, __: sizes.append(given[0].size(1)))
    with torch.no_grad():
        whole, whole_lengths = model.log_posteriors(speech, lengths)
        monkeypatch.setattr(features, "PIECE_FRAMES", 50)
        found, found_lengths = model.log_posteriors(speech, lengths)
    assert sizes[0] == 20000 and len(sizes) == 1 + 6 and max(sizes[1:]) < 5000
    assert found_lengths.tolist() == whole_lengths.tolist() == [251]
    torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-4)
