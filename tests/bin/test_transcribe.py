"""``espnet-quant4 transcribe`` goes on whatever a recording is like, and prints a line for each."""

import io
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin import transcribe as command
from espnet_quant4.bin.main import main
from espnet_quant4.int4 import model_file


def convert(folder, **changes):
    config, checkpoint = write_recognizer(folder, **changes)
    if "token_type" in changes:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
        assert content["token_type"] == changes["token_type"]
    arguments = ["--asr_train_config", str(config), "--asr_model_file", str(checkpoint)]
    assert main(["convert", *arguments, "--output", str(folder / "model.int4")]) == 0
    return str(folder / "model.int4")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Unidirectional, so that it can stream."""
    return convert(tmp_path_factory.mktemp("model"), bidirectional=False)


@pytest.fixture
def loaded_once(model, monkeypatch):
    """Let commands of one test share the model, which takes a second to load."""
    load, kept = model_file.load, {}

    def shared(path, **options):
        key = (str(path), *sorted(options.items()))
        kept[key] = kept.get(key) or load(path, **options)
        return kept[key]

    monkeypatch.setattr(model_file, "load", shared)
    return model


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(1)
    for name, seconds in (("one", 1.3), ("two", 0.7)):
        times = np.arange(int(8000 * seconds)) / 8000
        tone = 0.3 * np.sin(2 * np.pi * (300 + 900 * times) * times)
        soundfile.write(folder / f"{name}.wav", tone + 0.02 * rng.normal(size=tone.shape), 8000)
    return folder


@pytest.fixture
def bad(tmp_path):
    """Recordings that cannot be recognized, each in another way."""
    (tmp_path / "text.wav").write_text("no audio")
    (tmp_path / "samples.raw").write_bytes(bytes(1000))
    (tmp_path / "folder").mkdir()
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    soundfile.write(tmp_path / "short.wav", np.zeros(128), 8000)
    soundfile.write(tmp_path / "nan.wav", np.full(4000, np.nan), 8000, subtype="FLOAT")
    names = ("text.wav", "samples.raw", "folder", "empty.wav", "short.wav", "nan.wav", "none.wav")
    return [str(tmp_path / name) for name in names]


@pytest.mark.parametrize("chunks", [[], ["--chunk_seconds", "0.2"]])
def test_no_recording_stops_the_others(loaded_once, speech, bad, chunks, capsys):
    one = str(speech / "one.wav")
    assert main(["transcribe", loaded_once, one, *chunks]) == 0
    text = capsys.readouterr().out.rstrip("\n")
    assert text
    assert main(["transcribe", loaded_once, *bad[:4], one, *bad[4:], one, *chunks]) == 1
    captured = capsys.readouterr()
    assert captured.out == f"{one} {text}\n" * 2
    errors = captured.err.splitlines()
    assert len(errors) == len(bad)
    for name, error in zip(bad, errors, strict=True):
        assert error.startswith(f"espnet-quant4 transcribe: {name}: ")
        # An example of what to call instead may name a folder again.
        assert error.count(name) == (2 if name.endswith("folder") else 1)
    assert "128 samples" in errors[4] and "needs 129" in errors[4]


def test_faults_of_the_program_stop_no_other_recording(loaded_once, speech, monkeypatch, capsys):
    from espnet_quant4.int4 import audio

    read_audio = audio.read_audio

    def read(path, *rest):
        if path == "odd":
            raise TypeError("no such thing")
        return read_audio(path, *rest)

    monkeypatch.setattr(audio, "read_audio", read)
    two = str(speech / "two.wav")
    assert main(["transcribe", loaded_once, "odd", two]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{two} ")
    assert captured.err == "espnet-quant4 transcribe: odd: TypeError: no such thing\n"
    monkeypatch.setenv("ESPNET_QUANT4_TRACEBACK", "1")
    with pytest.raises(TypeError):
        main(["transcribe", loaded_once, "odd", two])


def test_json_has_times_and_words_offline_and_in_chunks(loaded_once, speech, capsys):
    one = str(speech / "one.wav")
    found = []
    for options in ([], ["--chunk_seconds", "0.2"], ["--beam_size", "3"]):
        assert main(["transcribe", loaded_once, one, "--format", "json", *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    offline, streamed, beam = found
    assert offline["file"] == one and offline["end"] == 1.3 and offline["processing_seconds"] > 0
    for key in ("text", "tokens", "token_start", "words"):
        assert offline[key] == streamed[key]
    assert offline["score"] == pytest.approx(streamed["score"], abs=0.05)
    starts = offline["token_start"]
    assert len(starts) == len(offline["tokens"]) > 0 and starts == sorted(starts)
    # 3 frames of 10 ms each are one of the encoder's.
    assert all(0 <= start <= 1.3 and round(start / 0.03, 3) % 1 == 0 for start in starts)
    assert " ".join(word["word"] for word in offline["words"]) == " ".join(offline["text"].split())
    assert all(word["start"] < word["end"] <= 1.33 for word in offline["words"])
    assert "<" not in offline["text"]
    # ESPnet's beam search does not tell.
    assert beam["token_start"] is None
    assert all(word["start"] is None and word["end"] is None for word in beam["words"])


def test_without_a_token_type_tokens_are_still_text(tmp_path, speech, capsys):
    model = convert(tmp_path, token_type=None)
    capsys.readouterr()
    assert main(["transcribe", model, str(speech / "one.wav"), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    text = "".join(t if t != "<space>" else " " for t in found["tokens"] if t in "abc<space>")
    assert found["text"] == text != ""


def test_a_model_with_ctc_alone_is_searched_by_its_ctc(tmp_path, speech, capsys):
    model = convert(
        tmp_path,
        decoder=None,
        decoder_conf={},
        joint_net_conf=None,
        model_conf={"scheme": "naive", "ctc_weight": 1.0},
    )
    capsys.readouterr()
    found = []
    for options in ([], ["--beam_size", "4"]):
        one = str(speech / "one.wav")
        assert main(["transcribe", model, one, "--format", "json", *options]) == 0
        found.append(json.loads(capsys.readouterr().out))
    greedy, beam = found
    recognizer = model_file.load(model, beam_size=4, ctc_weight=1.0)
    samples, _ = soundfile.read(speech / "one.wav", dtype="float32")
    with torch.no_grad():
        encoded, _ = recognizer.asr_model.encode(
            torch.from_numpy(samples).unsqueeze(0), torch.tensor([len(samples)])
        )
        path = recognizer.asr_model.ctc.argmax(encoded)[0].tolist()
    collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol]
    assert greedy["tokens"] == recognizer.converter.ids2tokens(collapsed) != []
    assert len(greedy["token_start"]) == len(collapsed) and greedy["score"] < 0
    assert beam["tokens"] == recognizer(samples)[0][1] and beam["token_start"] is None
    # A search that saw nothing of the model gave scores of 0.
    assert beam["score"] < 0
    assert main(["transcribe", model, one, "--chunk_seconds", "1"]) == 1
    assert "decoder: quant_transducer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [["--chunk_seconds", "inf"], ["--chunk_seconds", "nan"], ["--chunk_seconds", "0"],
     ["--chunk_seconds", "-1"], ["--beam_size", "0"], ["--beam_size", "2", "--chunk_seconds", "1"]],
)  # fmt: skip
def test_impossible_options_are_refused(options, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["transcribe", "none.int4", "a.wav", *options])
    assert stopped.value.code == 2
    assert f"{options[0]} {options[1]}" in capsys.readouterr().err


def test_a_chunk_may_be_longer_than_all_recordings(loaded_once, speech, capsys):
    one = str(speech / "one.wav")
    assert main(["transcribe", loaded_once, one, "--chunk_seconds", "1e300"]) == 0
    streamed = capsys.readouterr().out
    assert main(["transcribe", loaded_once, one]) == 0
    assert streamed == capsys.readouterr().out


def test_what_cannot_stream_is_refused(tmp_path, speech, capsys):
    model = convert(tmp_path)
    assert main(["transcribe", model, str(speech / "one.wav"), "--chunk_seconds", "1"]) == 1
    assert "bidirectional: false" in capsys.readouterr().err
    assert main(["transcribe", "none.int4", "a.wav"]) == 1
    assert "none.int4: no such file" in capsys.readouterr().err


class SlowInput:
    """Standard input of a program that waits for a result before it writes the next name."""

    def __init__(self, names, printed):
        self.names, self.printed, self.given = list(names), printed, 0

    def readline(self):
        assert self.printed().count("\n") == self.given, "the name before is not recognized yet"
        if self.given == len(self.names):
            return b""
        self.given += 1
        return os.fsencode(f"{self.names[self.given - 1]}\r\n")


def test_names_on_standard_input_are_recognized_one_by_one(
    loaded_once, speech, monkeypatch, capsys
):
    names = [str(speech / "two.wav"), str(speech / "one.wav"), str(speech / "two.wav")]
    seen = []

    def printed():
        seen.append(capsys.readouterr().out)
        return "".join(seen)

    given = SlowInput(names, printed)
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["transcribe", loaded_once, "-"]) == 0
    assert [line.split()[0] for line in printed().splitlines()] == names


@pytest.mark.slow
def test_a_pipe_that_stays_open_gets_its_results(model, speech):
    one, two = str(speech / "one.wav"), str(speech / "two.wav")
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        [sys.executable, "-m", "espnet_quant4.bin.main", "transcribe", model, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([tests, *filter(None, sys.path)])},
    ) as running:
        stopper = threading.Timer(300, running.kill)
        stopper.start()
        try:
            for name in (one, two):
                running.stdin.write(f"{name}\n")
                running.stdin.flush()
                assert running.stdout.readline().startswith(f"{name} ")
            # What was printed stays, and shells see an interruption.
            running.send_signal(2)
            assert running.wait() == 130
        finally:
            stopper.cancel()
            running.kill()


def test_empty_lines_on_standard_input_are_passed_over(loaded_once, speech, monkeypatch, capsys):
    one = speech / "one.wav"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"\ufeff{one}\n\n \nnone\n{one}"))
    assert main(["transcribe", loaded_once, "-"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count(str(one)) == 2 and captured.err.count("no such file") == 1


def test_a_recording_is_one_line_whatever_its_name(loaded_once, speech, tmp_path, capsys):
    name = tmp_path / "a\nb\u2028c.wav"
    name.write_bytes((speech / "one.wav").read_bytes())
    assert main(["transcribe", loaded_once, str(name), f"{name}.none"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{tmp_path}/a\\nb\\u2028c.wav ")
    assert len(captured.out.splitlines()) == len(captured.err.splitlines()) == 1
    assert main(["transcribe", loaded_once, str(name), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"] == str(name)


def test_a_substituted_process_is_read(loaded_once, speech, tmp_path, capsys):
    one, pipe = speech / "one.wav", tmp_path / "63"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(one.read_bytes()))
    writer.start()
    status = main(["transcribe", loaded_once, str(pipe)])
    writer.join()
    piped = capsys.readouterr().out
    assert main(["transcribe", loaded_once, str(one)]) == status == 0
    assert capsys.readouterr().out == piped != "\n"


def test_a_model_without_frontend_is_named(loaded_once, monkeypatch, capsys):
    recognizer = model_file.load(Path(loaded_once), beam_size=1, ctc_weight=0.0)
    monkeypatch.setattr(recognizer.asr_model, "frontend", None)
    assert main(["transcribe", loaded_once, "a.wav"]) == 1
    assert "takes features" in capsys.readouterr().err


def test_verbose_says_first_what_computes(loaded_once, speech, bad, monkeypatch, capsys):
    assert main(["transcribe", loaded_once, bad[0], "--verbose"]) == 1
    said, error = capsys.readouterr().err.splitlines()
    assert said.startswith("espnet-quant4 transcribe: INT4: all ") and "kernels" in said
    assert bad[0] in error
    recognizer = model_file.load(Path(loaded_once), beam_size=1, ctc_weight=0.0)
    monkeypatch.setattr(recognizer, "asr_model", torch.nn.Linear(1, 1))
    monkeypatch.setattr("espnet_quant4.int4.recognition.check_frontend", lambda model: None)
    monkeypatch.setattr("espnet_quant4.int4.recognition.is_ctc_alone", lambda model: False)
    assert main(["transcribe", loaded_once, bad[0], "--verbose"]) == 1
    assert "float" in capsys.readouterr().err.splitlines()[0]


@pytest.mark.parametrize("known", [True, False])
def test_the_bar_knows_how_many_are_left(loaded_once, speech, known, monkeypatch, capsys):
    names = [str(speech / "one.wav"), str(speech / "two.wav")]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(names)))
    assert main(["transcribe", loaded_once, *(names if known else ["-"])]) == 0
    shown = capsys.readouterr().err
    assert ("2/2 [" in shown) is known and ("2file [" in shown) is not known


def test_line_ends_are_escaped():
    assert command.one_line("a\r\nb\x85\tc ü") == "a\\r\\nb\\x85\tc ü"
