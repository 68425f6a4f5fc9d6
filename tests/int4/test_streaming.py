"""Streaming equals recognition of the whole recording, and refuses what cannot."""

import numpy as np
import pytest
import torch
from espnet2.bin.asr_inference import Speech2Text
from int4.small_recognizer import write_recognizer

from espnet_quant4.int4.recognition import recognize
from espnet_quant4.int4.streaming import StreamingRecognizer, check_streaming

LINEAR = {"preencoder": "linear", "preencoder_conf": {"input_size": 10, "output_size": 7}}
CASES = {
    "plain": {},
    "hop over half a window": {"frontend_conf": {"n_fft": 128, "hop_length": 160}},
    "hop over a window": {"frontend_conf": {"n_fft": 128, "hop_length": 300}},
    "short window, preencoder": {"frontend_conf": {"win_length": 200}, **LINEAR},
    "derivatives and neighbours": {
        "preencoder": "frame_context",
        "preencoder_conf": {"input_size": 10, "deltas": 2, "left_context": 3, "right_context": 1},
    },
    "later neighbours": {
        "preencoder": "frame_context",
        "preencoder_conf": {"input_size": 10, "right_context": 5},
        "encoder_conf": {"stack_frames": 2},
    },
    "no centre": {
        "frontend_conf": {"center": False},
        "specaug": "specaug",
        "specaug_conf": {
            "apply_time_warp": True,
            "apply_freq_mask": False,
            "apply_time_mask": False,
        },
    },
    "no normalization": {"normalize": None, "normalize_conf": {}},
    "subsampling": {
        "encoder_conf": {"use_projection": True, "subsample": [2, 2], "stack_frames": 1}
    },
    "subsampling by 3, stacks": {
        "encoder_conf": {"use_projection": True, "subsample": [3, 1], "stack_frames": 2}
    },
}


def load(folder, bidirectional=False, beam_size=1, **changes):
    config, checkpoint = write_recognizer(folder, bidirectional, **changes)
    return Speech2Text(config, checkpoint, beam_size=beam_size, ctc_weight=0.0)


@pytest.fixture(scope="module", params=CASES)
def recognizer(request, tmp_path_factory):
    return load(tmp_path_factory.mktemp("recognizer"), **CASES[request.param])


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return load(tmp_path_factory.mktemp("plain"))


def speech(samples, seed=0):
    rng = np.random.default_rng(seed)
    times = np.arange(samples) / 8000
    tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * times) * times)
    return (tone + 0.02 * rng.normal(size=samples)).astype(np.float32)


def chunks_of(samples, size, rng):
    """Yield chunks and whether they are the last; size 0: of random sizes, some of them empty."""
    start = 0
    while start < len(samples):
        end = min(start + (size or int(rng.integers(0, 700))), len(samples))
        yield samples[start:end], end == len(samples)
        start = end


@pytest.mark.parametrize("size", [1, 400, 880, 0, 10**6])
def test_chunks_give_what_the_whole_gives(recognizer, size):
    streaming = StreamingRecognizer(recognizer)
    rng = np.random.default_rng(size)
    for samples in (speech(300), speech(2000 if size == 1 else 10400), speech(5603, 1)):
        if size == 1 and len(samples) > 2000:
            continue
        if len(samples) < recognizer.asr_model.frontend.stft.n_fft:
            continue
        streaming.reset()
        found = torch.cat([streaming.accept(*chunk) for chunk in chunks_of(samples, size, rng)])
        with torch.no_grad():
            whole, _ = recognizer.asr_model.encode(
                torch.from_numpy(samples).unsqueeze(0), torch.tensor([len(samples)])
            )
        assert found.shape == whole[0].shape and len(found) > 0
        # The first layer's input has 8 bits: features whose last float32 bit differs seldom matter.
        assert (found - whole[0]).abs().mean() < 2e-3
        assert streaming.tokens() == recognizer(samples)[0][1]
        expected = recognize(recognizer, samples, 8000)
        transcript = streaming.transcript(8000)
        assert transcript.token_start == expected.token_start == sorted(expected.token_start)
        assert transcript.text == expected.text == streaming.text()
        assert transcript.score == pytest.approx(expected.score, abs=0.05)


def test_the_end_gives_frames_that_no_window_waits_for(tmp_path):
    # 300 samples: both frames are there before the end, which is when their stack is known to be full.
    recognizer = load(tmp_path, frontend_conf={"n_fft": 128, "hop_length": 160})
    streaming = StreamingRecognizer(recognizer)
    assert len(streaming.accept(speech(300))) == 0
    assert len(streaming.accept(speech(0), is_last=True)) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"normalize": "utterance_mvn", "normalize_conf": {}}, "UtteranceMVN"),
        ({"bidirectional": True}, "bidirectional: false"),
        ({"beam_size": 3}, "default_beam_search with beam_size 3"),
    ],
)  # fmt: skip
def test_what_needs_the_whole_recording_is_refused_by_name(changes, named, tmp_path):
    recognizer = load(tmp_path, **changes)
    with pytest.raises(ValueError, match=named):
        StreamingRecognizer(recognizer)


@pytest.mark.parametrize("part", ["postencoder", "frontend", "decoder", "encoder", "preencoder"])
def test_unknown_parts_are_refused_by_name(plain, part, monkeypatch):
    class Unknown(torch.nn.Module):
        pass

    check_streaming(plain)
    with monkeypatch.context() as patched:
        patched.setitem(plain.asr_model._modules, part, Unknown())
        patched.delitem(plain.asr_model.__dict__, part, raising=False)
        with pytest.raises(ValueError, match="Unknown"):
            check_streaming(plain)
    with monkeypatch.context() as patched:
        patched.setattr(plain.asr_model, "training", True)
        with pytest.raises(ValueError, match="training mode"):
            check_streaming(plain)


@pytest.mark.parametrize(
    ("samples", "named"),
    [
        (np.zeros((1, 400), np.float32), r"\(1, 400\)"),
        (np.zeros(400, np.int16), "int16"),
        (np.array([0.1, np.nan], np.float32), "NaN"),
        (np.array([0.1, np.inf]), "infinite"),
    ],
)
def test_other_samples_are_refused_and_change_nothing(plain, samples, named):
    whole = speech(4000)
    streaming = StreamingRecognizer(plain)
    streaming.accept(whole[:1000])
    with pytest.raises(ValueError, match=named):
        streaming.accept(samples)
    streaming.accept(whole[1000:], is_last=True)
    assert streaming.tokens() == plain(whole)[0][1]


def test_a_recording_ends_once(plain):
    streaming = StreamingRecognizer(plain)
    streaming.accept(speech(4000), is_last=True)
    for last in (False, True):
        with pytest.raises(ValueError, match=r"call reset\(\)"):
            streaming.accept(speech(100), last)
    streaming.reset()
    assert streaming.tokens() == []
    streaming.accept(speech(4000), is_last=True)


def test_a_recording_that_is_too_short_is_refused_as_offline(plain):
    streaming = StreamingRecognizer(plain)
    streaming.accept(speech(100))
    with pytest.raises(ValueError, match="128 samples.*too short.*needs 129") as refused:
        streaming.accept(speech(28), is_last=True)
    with pytest.raises(ValueError) as offline:
        recognize(plain, speech(128), 8000)
    assert str(offline.value) == str(refused.value)


def test_frames_that_the_encoder_rounds_to_none_are_refused(tmp_path):
    recognizer = load(
        tmp_path, encoder_conf={"use_projection": True, "subsample": [3, 3], "stack_frames": 1}
    )
    streaming = StreamingRecognizer(recognizer)
    with pytest.raises(ValueError, match="3 frames are too short.*one for 9"):
        streaming.accept(speech(200), is_last=True)
    with pytest.raises(ValueError, match="3 frames are too short.*one for 9"):
        recognize(recognizer, speech(200), 8000)
    encoder = recognizer.asr_model.encoder
    for frames in range(5, 40):
        _, lengths, _ = encoder(torch.zeros(1, frames, 10), torch.tensor([frames]))
        assert encoder.output_frames(frames) == int(lengths)


def test_the_callers_buffer_may_be_used_again(plain):
    whole, buffer = speech(4000), np.empty(500, np.float32)
    streaming = StreamingRecognizer(plain)
    for start in range(0, 4000, 500):
        buffer[:] = whole[start : start + 500]
        streaming.accept(buffer, is_last=start == 3500)
        buffer[:] = 1.0
    assert streaming.tokens() == plain(whole)[0][1]


def test_memory_is_constant(plain, monkeypatch):
    # What a decoder that always says blank leaves behind; tokens are the result and may grow.
    streaming = StreamingRecognizer(plain)
    monkeypatch.setattr(
        plain.asr_model.joint_network, "forward", lambda *_: torch.eye(7)[0], raising=True
    )
    elements = []
    for number in range(40):
        streaming.accept(speech(800, number))
        elements.append(
            sum(
                found.untyped_storage().nbytes()
                for found in reachable_tensors(vars(streaming), skip=(plain, plain.asr_model))
            )
        )
    assert max(elements[20:]) <= max(elements[2:20]) < 20_000


def reachable_tensors(root, skip):
    """Return the tensors that hang on an object, in whatever containers."""
    seen, left, found = {id(one) for one in skip}, [root], {}
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, (type, torch.nn.Module)):
            continue
        seen.add(id(one))
        if isinstance(one, torch.Tensor):
            found[one.untyped_storage().data_ptr()] = one
        elif isinstance(one, dict):
            left += one.values()
        elif isinstance(one, (list, tuple)):
            left += one
        elif type(one).__module__.startswith("espnet_quant4"):
            left += vars(one).values()
    return list(found.values())
