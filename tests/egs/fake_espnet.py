"""Stands in for ESPnet's commands in tests of the recipes' driver: says what it was called with and
leaves the files that the real one would. Everything else runs in the real interpreter.
"""

import json
import os
import runpy
import sys
import time
import zlib
from pathlib import Path

from espnet_quant4.hybrid.stage_record import Stage, file_input

# What commands read of a folder.
MODEL = ("final.mdl", "pdf_ids")
MODELS = ("alignments", "model")  # options that name a model's folder
READ = ("wav.scp", "text", "utt2spk", "L.fst", "words.txt", "final.mdl", "HCLG.fst")


def parse(words):
    """Return `{option: [values]}`; what stands before the first option is under "step"."""
    options, name = {}, "step"
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            options.setdefault(name, [])
        else:
            options.setdefault(name, []).append(word)
    return options


def write(path, text=""):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def keys_of(path):
    return [line.split()[0] for line in Path(path).read_text().splitlines()]


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
            keys = keys_of(options[f"{part}_shape_file"][0])
            for name in ("speech_shape", "text_shape", "feats_stats.npz"):
                write(output / part / name, "".join(f"{key} 1\n" for key in keys))
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


hybrid_train = asr_train


def hybrid_features(options):
    keys = keys_of(Path(options["data"][0]) / "wav.scp")
    write(Path(options["output"][0]) / "feats.scp", "".join(f"{key} feats.ark:1\n" for key in keys))


def hybrid_lang(options):
    for name in ("L.fst", "L_disambig.fst", "words.txt"):
        write(Path(options["output"][0]) / name)


def hybrid_gmm(options):
    output, keys = Path(options["output"][0]), keys_of(Path(options["data"][0]) / "text")
    if options["step"] == ["scores"]:
        write(output / "scores.scp", "".join(f"{key} gmm\n" for key in keys))
        return
    if options["step"] == ["realign"]:
        keys = keys[1:]  # one that the network cannot align
    for name in ("pdf_counts", "num_pdfs", "tree"):
        write(output / name, "1")
    # As a real model: of its transcripts and of the model before, which an alignment hands on.
    before = [Path(options[name][0]) / "final.mdl" for name in MODELS if name in options]
    made = options["step"][0] if not before else before[0].read_text()
    if options["step"][0] in ("mono", "triphone"):
        made += (Path(options["data"][0]) / "text").read_text()
    write(output / "final.mdl", made)
    rows = "".join(f"{key} 0 {zlib.crc32(made.encode())}\n" for key in keys)
    # As the real command: an alignment that comes out as it was keeps its time.
    if not (output / "pdf_ids").exists() or (output / "pdf_ids").read_text() != rows:
        write(output / "pdf_ids", rows)


def hybrid_import(options):
    output = Path(options["output"][0])
    if options["step"] == ["graph"]:
        write(output / "HCLG.fst")
    else:
        hybrid_gmm({**options, "step": ["align"]})


def hybrid_graph(options):
    write(Path(options["output"][0]) / "HCLG.fst")


def hybrid_inference(options):
    keys = keys_of(options["key_file"][0])
    output = Path(options["output_dir"][0])
    write(output / "scores.scp", "".join(f"{key} network\n" for key in keys))
    write(output / "inference", os.environ["ESPNET_QUANT4_INFERENCE"])


def hybrid_decode(options):
    keys = keys_of(options["scores"][0])
    write(Path(options["output"][0]) / "nbest" / "text", "".join(f"{key} hello\n" for key in keys))


def hybrid_rescore(options):
    output = Path(options["output"][0])
    texts = [(Path(folder) / "text").read_text() for folder in options["nbest"]]
    write(output / "text", "".join(texts))
    if "tune_on" in options:
        write(output / "tuned.json", "{}")
    else:
        assert Path(options["tuned"][0]).is_file()


def stage_of(command, options):
    """The record of a hybrid system's command that keeps one: all files that its options name."""
    makes = {
        "hybrid_lang": ("L.fst",),
        "hybrid_gmm": ("scores.scp",) if options.get("step") == ["scores"] else MODEL,
        "hybrid_graph": ("HCLG.fst",),
        "hybrid_import": ("HCLG.fst",) if options.get("step") == ["graph"] else MODEL,
        **dict.fromkeys(("hybrid_lm", "hybrid_prior", "hybrid_denominator"), ()),
    }
    if command not in makes:
        return None
    inputs = {}
    for name, values in options.items():
        for path in map(Path, values):
            read = [path] if path.is_file() else [path / part for part in READ]
            if name not in ("output", "step"):
                inputs |= {
                    f"{name} {file.name}": file_input(file) for file in read if file.is_file()
                }
    name = " ".join([command, *options.get("step", [])])
    settings = {name: values for name, values in options.items() if name != "output"}
    output = Path(options["output"][0])
    return Stage(name, output, makes[command], inputs, settings, keeps=("pdf_ids",))


def main():
    words = sys.argv[1:]
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(words[1], {})
        return
    command = words[1].rpartition(".")[2] if words[0] == "-m" else words[0]
    rest = words[2:]
    if command == "main":
        command, *rest = rest
    elif command == "pack":
        rest = rest[1:]
    if words[0] != "-m" or command in ("run_job", "launch"):
        sys.argv = words[1:] if words[0] == "-m" else words
        if words[0] == "-m":
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(words[0], run_name="__main__")
        return
    options = parse(rest)
    stage = stage_of(command, options)
    # What is there of the same inputs and options stays, as with the real commands.
    if stage is not None and not stage.begin(print):
        return
    with open(os.environ["FAKE_CALLS"], "a") as calls:
        calls.write(json.dumps([command, options]) + "\n")
    if command in globals():
        globals()[command](options)
    elif command in ("calibrate", "convert", "hybrid_lm", "hybrid_prior", "hybrid_denominator"):
        write(options["output"][0], f"{command.removesuffix('e')}ed")
        print("saved")
    elif command in ("pack", "hybrid_pack"):
        write(options["outpath"][0], "zip")
    if stage is not None:
        stage.finish()


if __name__ == "__main__":
    main()
