"""A loaded recognizer belongs to nobody else: not to its file, its original or its process."""

import copy
import json
import os
import pickle
import subprocess
import sys
import tempfile
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import yaml
from espnet2.tasks.asr import ASRTask
from int4.small_recognizer import write_recognizer
from small_transducer import TOKENS

from espnet_quant4.int4.file_format import Int4FileError, read
from espnet_quant4.int4.model_file import load, save

OPTIONS = {"beam_size": 2, "ctc_weight": 0.0}
TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def bpe_file(tmp_path_factory):
    """An INT4 file with a SentencePiece model whose pieces are the model's tokens."""
    folder = tmp_path_factory.mktemp("recognizer")
    config, checkpoint = write_recognizer(folder)
    (folder / "text").write_text("a b c ab bc ca abc\n" * 20)
    sentencepiece.SentencePieceTrainer.Train(
        input=str(folder / "text"), model_prefix=str(folder / "bpe"), vocab_size=7,
        model_type="char", minloglevel=2,
    )  # fmt: skip
    content = yaml.safe_load(config.read_text())
    content.update(token_type="bpe", bpemodel=str(folder / "bpe.model"))
    content["token_list"] = [*TOKENS[:2], "a", "\u2581", *TOKENS[4:]]
    model, _ = ASRTask.build_model_from_file(config, checkpoint)
    save(model, content, folder / "model.int4")
    return folder / "model.int4"


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(1)
    times = np.arange(9000) / 8000
    tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * times) * times)
    return (tone + 0.02 * rng.normal(size=9000)).astype(np.float32)


def result(recognizer, samples):
    text, tokens, _, hypothesis = recognizer(samples)[0]
    return text, tokens, float(hypothesis.score)


@pytest.fixture(scope="module")
def expected(bpe_file, samples):
    found = result(load(bpe_file, **OPTIONS), samples)
    assert found[0] and set(found[0]) <= set("abc \u2047")
    return found


def test_the_file_may_be_overwritten_and_cut_while_it_is_in_use(
    bpe_file, samples, expected, tmp_path
):
    path = tmp_path / "model.int4"
    path.write_bytes(bpe_file.read_bytes())
    used, unused = load(path, **OPTIONS), load(path, **OPTIONS)
    assert result(used, samples) == expected
    with path.open("r+b") as opened:
        opened.write(os.urandom(path.stat().st_size))
    # One has its kernels already, the other makes them now.
    assert result(used, samples) == result(unused, samples) == expected
    with path.open("r+b") as opened:
        opened.truncate(64)
    late = copy.deepcopy(unused)
    path.unlink()
    assert result(late, samples) == expected


def test_a_file_that_changes_while_it_is_read_is_refused_or_whole(bpe_file, tmp_path):
    path = tmp_path / "model.int4"
    content = bpe_file.read_bytes()
    path.write_bytes(content)
    whole, _ = read(path)

    def overwrite(_):
        for value in range(200):
            with path.open("r+b") as opened:
                opened.seek(len(content) - 1 - value)
                opened.write(bytes([value]))
                opened.seek(0)
                opened.write(content)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(overwrite, None)
        while not writing.done():
            try:
                found, _ = read(path)
            except Int4FileError as error:
                assert "changed" in str(error) or "truncated" in str(error)
                continue
            assert all(torch.equal(found[name], whole[name]) for name in whole)
        writing.result()


def test_copies_outlive_the_original(bpe_file, samples, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    original = load(bpe_file, **OPTIONS)
    fresh, pickled = copy.deepcopy(original), pickle.dumps(original)
    assert result(original, samples) == expected
    copied = copy.deepcopy(original)
    del original
    assert not list(tmp_path.iterdir())
    for recognizer in (fresh, copied, pickle.loads(pickled)):
        assert result(recognizer, samples) == expected


def run_python(code, *arguments):
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, "ESPNET_QUANT4_DISABLE": "1"},
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip


@pytest.mark.slow
def test_another_process_reads_files_and_pickles_and_leaves_nothing_when_killed(
    bpe_file, samples, expected, tmp_path
):
    """The plugin is switched off there, which is about ESPnet's own programs."""
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    np.save(tmp_path / "samples.npy", samples)
    (tmp_path / "recognizer.pickle").write_bytes(pickle.dumps(load(bpe_file, **OPTIONS)))
    done = run_python(
        """
        import json, os, pickle, signal, sys, tempfile
        import numpy as np
        folder, file, scratch = sys.argv[1:]
        tempfile.tempdir = scratch
        from espnet_quant4.int4.model_file import load
        with open(f"{folder}/recognizer.pickle", "rb") as opened:
            pickled = pickle.load(opened)
        for recognizer in (pickled, load(file, beam_size=2, ctc_weight=0.0)):
            text, tokens, _, found = recognizer(np.load(f"{folder}/samples.npy"))[0]
            print(json.dumps([text, tokens, float(found.score)]), flush=True)

        # Killed in the middle of loading, where files are open.
        import espnet2.bin.asr_inference
        def kill(*args, **options):
            os.kill(os.getpid(), signal.SIGKILL)
        espnet2.bin.asr_inference.Speech2Text = kill
        load(file)
        """,
        tmp_path,
        bpe_file,
        scratch,
    )
    assert done.returncode == -9, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 2
    for text, tokens, score in lines:
        assert (text, tokens) == expected[:2] and score == pytest.approx(expected[2], abs=1e-4)
    assert not list(scratch.iterdir())


def test_without_files_in_memory_a_folder_serves(
    bpe_file, samples, expected, tmp_path, monkeypatch
):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert result(load(bpe_file, **OPTIONS), samples) == expected
    assert not list(tmp_path.iterdir())


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_the_float_parts_in_another_precision(bpe_file, samples, expected, dtype):
    recognizer = load(bpe_file, dtype=dtype, device="cpu", **OPTIONS)
    model = recognizer.asr_model
    assert model.joint_network.lin_out.bias.dtype == torch.float32  # of an INT4 layer
    text, _, score = result(recognizer, samples)
    if dtype == "float64":
        assert text == expected[0] and score == pytest.approx(expected[2], abs=1e-3)
    else:
        assert score == pytest.approx(expected[2], rel=0.2, abs=1.0)


def test_devices_and_precisions_that_are_not(bpe_file):
    with pytest.raises(ValueError, match="device: cuda:0; valid: cpu"):
        load(bpe_file, device="cuda:0")
    with pytest.raises(ValueError, match="dtype: 'int8'; valid: float32, bfloat16, float64"):
        load(bpe_file, dtype="int8")
    load(bpe_file, device=torch.device("cpu"))
