"""Stands in for ESPnet's commands in tests of the recipes' driver: says what it was called with and
leaves the files that the real one would. Everything else runs in the real interpreter.
"""

import json
import os
import runpy
import sys
import time
from pathlib import Path


def parse(words):
    """Return `{option: [values]}` of `--option value` pairs."""
    options = {}
    for option, value in zip(words[::2], words[1::2], strict=True):
        options.setdefault(option.removeprefix("--"), []).append(value)
    return options


def tokenize_text(options):
    lines = Path(options["input"][0]).read_text().splitlines()
    characters = sorted(set("".join(line.partition(" ")[2] for line in lines)))
    tokens = ["<space>" if c == " " else c for c in characters]
    Path(options["output"][0]).write_text(
        "\n".join(["<blank>", "<unk>", *tokens, "<sos/eos>"]) + "\n"
    )


def asr_train(options):
    output = Path(options["output_dir"][0])
    if "collect_stats" in options:
        for part in ("train", "valid"):
            (output / part).mkdir(parents=True, exist_ok=True)
            for name in ("speech_shape", "text_shape", "feats_stats.npz"):
                (output / part / name).write_text("amy-1 1\n")
        return
    print("1/1epoch started")
    if output.name == os.environ.get("FAKE_FAILURE"):
        sys.exit("CUDA is on holiday")
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.yaml").write_text(json.dumps(options))
    if "dry_run" not in options:
        (output / "valid.loss.ave.pth").write_text(str(options.get("init_param")))


def asr_inference(options):
    if "FAKE_SLEEP" in os.environ:
        with open(os.environ["FAKE_SLEEP"], "a") as pids:
            pids.write(f"{os.getpid()}\n")
        time.sleep(120)
    assert Path(options["asr_model_file"][0]).is_file()
    folder = Path(options["output_dir"][0]) / "1best_recog"
    folder.mkdir(parents=True, exist_ok=True)
    keys = Path(options["key_file"][0]).read_text().splitlines()
    (folder / "inference").write_text(os.environ["ESPNET_QUANT4_INFERENCE"])
    (folder / "text").write_text("".join(f"{key.split()[0]} hello\n" for key in keys))


def main():
    words = sys.argv[1:]
    command = words[1].rpartition(".")[2] if words[0] == "-m" else words[0]
    rest = words[2:]
    if command == "main":
        command, *rest = rest
    elif command == "pack":
        rest = rest[1:]
    if words[0] != "-m" or command == "run_job":
        sys.argv = words[1:] if words[0] == "-m" else words
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
        return
    options = parse(rest) if command != "results" else {"rest": rest}
    with open(os.environ["FAKE_CALLS"], "a") as calls:
        calls.write(json.dumps([command, options]) + "\n")
    if command in globals():
        globals()[command](options)
    elif command in ("calibrate", "convert"):
        output = Path(options["output"][0])
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(f"{command.removesuffix('e')}ed")
        print("saved")
    elif command == "pack":
        Path(options["outpath"][0]).write_text("zip")


if __name__ == "__main__":
    main()
