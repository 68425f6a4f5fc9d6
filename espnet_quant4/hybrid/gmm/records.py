"""What the steps of a GMM-HMM depend on; see `espnet_quant4.hybrid.stage_record`."""

from __future__ import annotations

from pathlib import Path

from espnet_quant4.hybrid.stage_record import Input, file_input, folder_inputs, listed_inputs

# What a step reads of a lang folder and of a model's.
LANG_FILES = ("phones.txt", "words.txt", "oov.txt", "topo", "L.fst")
LANG_PHONES = ("phones/silence.txt", "phones/disambig.txt")
MODEL_FILES, MODEL_OPTIONAL = ("final.mdl", "tree"), ("final.mat",)
# What only an alignment's or a model's folder has.
ALIGNED = ("final.mdl", "tree", "ali.1.gz", "pdf_ids")


def data_inputs(data: Path, transcripts: bool = True) -> dict[str, Input]:
    """Return what is read of a data folder: recordings, speakers and ``text``."""
    found = listed_inputs("wav.scp", data / "wav.scp")
    found["utt2spk"] = file_input(data / "utt2spk")
    if transcripts:
        found["text"] = file_input(data / "text")
    return found


def lang_inputs(lang: Path, pronunciations: bool = False) -> dict[str, Input]:
    """Return what is read of a lang folder, ``lexiconp.txt`` too with ``pronunciations``."""
    names = [*LANG_FILES, *LANG_PHONES, *(["lexiconp.txt"] if pronunciations else [])]
    return folder_inputs("lang", lang, names)


def model_inputs(model: Path, alignments: bool = False) -> dict[str, Input]:
    """Return what is read of a model's folder, its alignment too with ``alignments``."""
    names = [*MODEL_FILES, *(["ali.1.gz"] if alignments else [])]
    return folder_inputs("model", model, names, MODEL_OPTIONAL)
