"""Features in pieces and in chunks are those of the whole recording."""

import numpy as np
import pytest
import torch
from espnet2.asr.frontend.default import DefaultFrontend
from espnet2.asr.frontend.windowing import SlidingWindow
from espnet2.bin.asr_inference import Speech2Text
from espnet2.layers.global_mvn import GlobalMVN
from espnet2.layers.utterance_mvn import UtteranceMVN
from int4.small_recognizer import write_recognizer

from espnet_quant4.int4 import features
from espnet_quant4.int4.features import (
    FeatureStream,
    FrameWindows,
    can_be_in_pieces,
    features_in_pieces,
)

# n_fft, hop_length, win_length, center: hops over half and over a whole window, odd windows.
TRANSFORMS = [
    (256, 80, None, True), (256, 80, 200, True), (256, 128, None, True), (256, 256, None, True),
    (128, 160, None, True), (128, 300, 100, True), (255, 100, None, True), (32, 5, None, True),
    (256, 80, 200, False), (64, 200, None, False), (255, 127, 100, False),
]  # fmt: skip


def build_frontend(n_fft, hop, window, center):
    return DefaultFrontend(
        fs=8000, n_fft=n_fft, hop_length=hop, win_length=window, center=center, n_mels=10
    ).eval()


def build_global_mvn(folder):
    values = np.random.default_rng(0).normal(size=(500, 10)) * 2 - 8
    stats = folder / "stats.npz"
    np.savez(stats, count=np.array(500), sum=values.sum(0), sum_square=(values**2).sum(0))
    return GlobalMVN(stats)


def normalization(name, folder):
    if name == "global_mvn":
        return build_global_mvn(folder)
    options = {"means": (True, False), "both": (True, True), "vars": (False, True)}
    if name in options:
        means, variances = options[name]
        return UtteranceMVN(norm_means=means, norm_vars=variances)
    return None


def of_the_whole(frontend, normalize, speech):
    feats, lengths = frontend(speech, torch.tensor([speech.size(1)]))
    return feats if normalize is None else normalize(feats, lengths)[0]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_pieces_are_the_whole(transform):
    frontend = build_frontend(*transform)
    windows = FrameWindows.of(frontend)
    torch.manual_seed(0)
    lengths = {windows.shortest + extra for extra in (0, 1, 2, 13, 40, 257, 1333)}
    with torch.no_grad():
        for samples in lengths:
            speech = 0.1 * torch.randn(1, samples)
            whole = of_the_whole(frontend, None, speech)
            assert windows.of_whole(samples) == whole.size(1) >= 1
            for frames in (1, 2, 3, 7, 50):
                found = features_in_pieces(frontend, None, speech, frames)
                assert found.shape == whole.shape
                torch.testing.assert_close(found, whole, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("name", ["global_mvn", "means", "both", "vars", "none"])
def test_pieces_are_normalized_as_the_whole(name, tmp_path):
    frontend = build_frontend(256, 80, None, True)
    normalize = normalization(name, tmp_path)
    torch.manual_seed(1)
    speech = 0.1 * torch.randn(1, 4000)
    with torch.no_grad():
        found = features_in_pieces(frontend, normalize, speech, 8)
        whole = of_the_whole(frontend, normalize, speech)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("chunks", ["single", 7, 100, 1000, "mixed"])
def test_chunks_are_the_whole(transform, chunks, tmp_path):
    frontend, normalize = build_frontend(*transform), build_global_mvn(tmp_path)
    rng = np.random.default_rng(transform[0] + transform[1])
    most = 0
    for samples in (FrameWindows.of(frontend).shortest, 700, 903):
        speech = torch.from_numpy(rng.normal(size=(1, samples)).astype(np.float32))
        stream = FeatureStream(frontend, normalize)
        found, start = [], 0
        with torch.no_grad():
            while start < samples:
                sizes = {"single": 1, "mixed": int(rng.integers(0, 300))}
                end = min(start + sizes.get(chunks, chunks), samples)
                feats = stream.accept(speech[0, start:end], end == samples)
                found += [] if feats is None else [feats]
                start = end
                most = max(most, stream.buffered)
            whole = of_the_whole(frontend, normalize, speech)
        torch.testing.assert_close(torch.cat(found), whole[0], rtol=1e-5, atol=1e-5)
    if chunks != 1000:
        assert most <= transform[0] + 2 * transform[1] + 300


def test_a_recording_shorter_than_a_window_is_refused():
    for center, shortest in ((True, 129), (False, 256)):
        frontend = build_frontend(256, 80, None, center)
        with pytest.raises(
            ValueError, match=f"{shortest - 1} samples.*needs {shortest}.*n_fft: 256"
        ):
            FeatureStream(frontend, None).accept(torch.zeros(shortest - 1), True)
        assert len(FeatureStream(frontend, None).accept(torch.zeros(shortest), True)) >= 1


def test_what_is_not_known_is_not_cut(tmp_path):
    assert FrameWindows.of(SlidingWindow()) is None and FrameWindows.of(None) is None
    frontend = build_frontend(256, 80, None, True)
    assert can_be_in_pieces(frontend, None) and not can_be_in_pieces(SlidingWindow(), None)
    assert not can_be_in_pieces(frontend, torch.nn.Identity())
    with pytest.raises(ValueError, match="valid are frontend: default"):
        features_in_pieces(SlidingWindow(), None, torch.zeros(1, 8000))


def test_memory_does_not_grow_with_the_square_of_the_length():
    frontend, normalize = build_frontend(256, 80, None, True), UtteranceMVN()
    largest = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest[-1] = max(largest[-1], out.untyped_storage().nbytes())
            return out

    speech = torch.randn(1, 60 * 8000)
    for frames in (250, 500):
        largest.append(0)
        with torch.no_grad(), Watch():
            features_in_pieces(frontend, normalize, speech, frames)
    # The padded piece and the features of the whole; ESPnet's mask for the whole is 36 MB.
    assert max(largest) < 3e6


@pytest.mark.parametrize("changes", [{}, {"normalize": "utterance_mvn", "normalize_conf": {}}])
def test_a_model_reads_long_recordings_in_pieces(changes, tmp_path, monkeypatch):
    config, checkpoint = write_recognizer(tmp_path, **changes)
    recognizer = Speech2Text(config, checkpoint, beam_size=1, ctc_weight=0.0)
    torch.manual_seed(0)
    speech = 0.3 * torch.randn(1, 20000)
    lengths, sizes = torch.tensor([20000]), []
    frontend = recognizer.asr_model.frontend
    frontend.register_forward_hook(lambda _module, given, _out: sizes.append(given[0].size(1)))
    with torch.no_grad():
        whole, whole_lengths = recognizer.asr_model.encode(speech, lengths)
        assert sizes == [20000]
        monkeypatch.setattr(features, "PIECE_FRAMES", 50)
        found, found_lengths = recognizer.asr_model.encode(speech, lengths)
        assert len(sizes) == 1 + 6 and max(sizes[1:]) < 5000
        # A batch is padded, and training needs gradients: ESPnet's own way.
        recognizer.asr_model.encode(speech.expand(2, -1), lengths.expand(2))
        assert sizes[-1] == 20000
    recognizer.asr_model.encode(speech, lengths)
    assert sizes[-1] == 20000
    assert found_lengths.tolist() == whole_lengths.tolist()
    assert (found - whole).abs().mean() < 2e-3
