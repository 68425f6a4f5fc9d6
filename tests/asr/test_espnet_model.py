"""The quantized transducer model: loss, quantizers, checkpoints, wrong input."""

import copy
import pickle

import pytest
import torch
from espnet2.asr.decoder.transducer_decoder import TransducerDecoder
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.transducer.beam_search_transducer import BeamSearchTransducer
from espnet2.main_funcs.average_nbest_models import average_nbest_models
from espnet2.train.reporter import Reporter
from small_transducer import FEATURES, SCHEME, TOKENS, build_transducer, random_batch

from espnet_quant4.nn import QuantLinear
from espnet_quant4.quantizers import Quantizer, calibration
from espnet_quant4.quantizers.calibration import calibrating


def activations(model):
    return [m for m in model.modules() if isinstance(m, Quantizer) and m.role == "activation"]


def calibrated(**options):
    model = build_transducer(SCHEME, **options)
    with calibrating(model):
        model(**random_batch())
    return model


def test_loss_and_gradients_reach_every_parameter(batch):
    model = calibrated()
    loss, stats, weight = model(**batch)
    assert weight == 3 and stats["loss_transducer"] > 0 and stats["loss_ctc"] > 0
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_every_layer_is_quantized():
    model = calibrated()
    quantized = {
        n.split(".quantizers.")[0] for n, m in model.named_modules() if isinstance(m, Quantizer)
    }
    assert quantized == {
        "encoder.enc.0.nbrnn",
        "encoder.enc.0.l_last",
        "decoder.embed",
        "decoder.decoder.0",
        "joint_network.lin_enc",
        "joint_network.lin_dec",
        "joint_network.lin_out",
        "ctc.ctc_lo",
    }


def test_emulated_weights_have_at_most_15_levels(batch):
    model = calibrated().eval()
    lstm = model.encoder.enc[0].nbrnn
    for name in ("weight_ih", "weight_hh"):
        weight = lstm.quantizer("l0", name).quantize(getattr(lstm, f"{name}_l0"))
        for gate in weight.chunk(4):
            assert len(gate.unique()) <= 15
    with torch.no_grad():
        hidden = lstm(torch.randn(1, 30, 16))[0]
        codes = lstm.quantizers["l1"]["hidden"].quantize(hidden).unique()
    assert len(codes) <= 15 and codes.abs().max() <= 1


def test_espnet_float_transducer_decoder_works_too(batch):
    model = build_transducer(decoder=TransducerDecoder(len(TOKENS), hidden_size=5))
    model(**batch)[0].backward()
    assert model.use_transducer_decoder


def test_ctc_alone_needs_no_decoder(batch):
    from espnet_quant4.asr.espnet_model import QuantESPnetASRModel

    transducer = build_transducer()
    model = QuantESPnetASRModel(
        len(TOKENS), TOKENS, None, None, None, None, transducer.encoder, None, None,
        transducer.ctc, None, ctc_weight=1.0, report_cer=False, report_wer=False, scheme=SCHEME,
    )  # fmt: skip
    model(**batch)[0].backward()
    assert isinstance(model.ctc.ctc_lo, QuantLinear) and not model.use_transducer_decoder


def test_beam_search_of_espnet_runs_on_the_quantized_modules(batch):
    model = calibrated().eval()
    search = BeamSearchTransducer(model.decoder, model.joint_network, beam_size=3)
    with torch.no_grad():
        encoded, _ = model.encode(batch["speech"], batch["speech_lengths"])
        first, again = search(encoded[0]), search(encoded[0])
    assert first[0].yseq == again[0].yseq and first[0].score == again[0].score


def test_first_batch_calibrates_with_one_warning(batch, monkeypatch):
    monkeypatch.setattr(calibration, "_warned", False)
    model = build_transducer(SCHEME)
    with pytest.warns(UserWarning, match="starts without calibration") as caught:
        model(**batch)
    assert len([w for w in caught if "calibration" in str(w.message)]) == 1
    assert all(q.is_calibrated for q in activations(model))


def test_uncalibrated_model_is_not_evaluated(batch):
    with pytest.raises(RuntimeError, match="Calibrate"):
        build_transducer(SCHEME).eval()(**batch)


def test_float_checkpoint_starts_qat(batch):
    float_model = build_transducer(seed=1)
    model = build_transducer(SCHEME, seed=2)
    model.load_state_dict(float_model.state_dict(), strict=True)
    parameters = dict(model.named_parameters())
    for name, parameter in float_model.named_parameters():
        assert torch.equal(parameters[name], parameter)
    float_model.load_state_dict(model.state_dict(), strict=True)


def test_checkpoint_of_other_sizes_is_refused():
    state = build_transducer().state_dict()
    state["decoder.embed.weight"] = torch.zeros(9, 5)
    with pytest.raises(RuntimeError, match="decoder.embed.weight"):
        build_transducer(SCHEME).load_state_dict(state)


def test_copies_and_pickles(batch):
    model = calibrated().eval()
    expected = model(**random_batch())[0]
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        torch.testing.assert_close(twin(**random_batch())[0], expected)


def test_average_nbest_models(tmp_path, batch):
    """ESPnet adds up integer buffers and divides the others: both must still be right after."""
    model = calibrated()
    reporter = Reporter()
    for epoch in (1, 2, 3):
        reporter.set_epoch(epoch)
        with reporter.observe("valid") as sub:
            sub.register({"loss": torch.tensor(float(epoch))})
            sub.next()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        torch.save(model.state_dict(), tmp_path / f"{epoch}epoch.pth")
    average_nbest_models(tmp_path, reporter, [["valid", "loss", "min"]], nbest=3)
    averaged = torch.load(tmp_path / "valid.loss.ave_3best.pth")
    states = [torch.load(tmp_path / f"{epoch}epoch.pth") for epoch in (1, 2, 3)]
    for key, value in averaged.items():
        assert value.dtype == states[0][key].dtype, key
        if value.is_floating_point():
            mean = torch.stack([s[key] for s in states]).mean(0)
            torch.testing.assert_close(value, mean, msg=key)
    loaded = build_transducer(SCHEME)
    loaded.load_state_dict(averaged)
    assert all(q.is_calibrated for q in activations(loaded))
    assert loaded.eval()(**batch)[0].isfinite()


def test_empty_utterance_is_named(batch):
    batch["speech_lengths"][1] = 0
    with pytest.raises(ValueError, match=r"speech_lengths is 0 at batch positions \[1\]"):
        build_transducer()(**batch)


def test_nan_reaches_the_loss_in_training_and_is_named_in_evaluation(batch):
    model = calibrated()
    batch["speech"][2, 3, 1] = float("nan")
    loss, _, _ = model(**copy.deepcopy(batch))
    assert loss.isnan()
    with pytest.raises(ValueError, match=r"batch positions \[2\]"):
        model.eval()(**batch)


def test_silence_gives_a_finite_loss(batch):
    model = calibrated()
    batch["speech"].zero_()
    assert model(**batch)[0].isfinite()


def test_joint_network_conf_without_transducer_is_refused():
    from espnet_quant4.asr.espnet_model import QuantESPnetASRModel

    transducer = build_transducer()
    with pytest.raises(ValueError, match="joint network belongs to decoder: quant_transducer"):
        QuantESPnetASRModel(
            len(TOKENS), TOKENS, None, None, None, None, transducer.encoder, None, None,
            transducer.ctc, None, ctc_weight=1.0, joint_network_conf={"joint_space_size": 4},
        )  # fmt: skip


def test_audio_shorter_than_a_window_is_named():
    model = build_transducer()
    model.frontend = DefaultFrontend(fs=8000, n_fft=256, hop_length=80, n_mels=FEATURES)
    with pytest.raises(ValueError, match=r"has 100 samples.*more than 128"):
        model.encode(torch.randn(2, 100), torch.tensor([100, 60]))
    encoded, lengths = model.encode(torch.randn(2, 400), torch.tensor([400, 60]))
    assert lengths.min() >= 1 and encoded.isfinite().all()
    encoded, _ = model.eval().encode(torch.zeros(1, 400), torch.tensor([400]))
    assert encoded.isfinite().all()
