"""A small training of a transducer: the hybrid's corpus of tones, with made-up transcripts."""

from pathlib import Path

from hybrid.small_hybrid import training_options, write_corpus

TOKENS = ["<blank>", "<unk>", "<space>", "a", "b", "<sos/eos>"]
# What changes in the small hybrid's configuration for a transducer.
TRANSDUCER = {
    "preencoder": "frame_context",
    "preencoder_conf": {"input_size": 10, "deltas": 1},
    "decoder": "quant_transducer",
    "decoder_conf": {"hidden_size": 10, "embed_size": 4},
    "joint_net_conf": {"joint_space_size": 8, "joint_operation": "multiply"},
    "model": "quant_espnet",
}
MODEL_CONF = {"ctc_weight": 0.0, "report_cer": False, "report_wer": False}


def write_asr_corpus(folder: Path, scheme=None, **changes) -> Path:
    """Write what `small_hybrid.write_corpus` does, and tokens.txt and text; return the folder."""
    write_corpus(folder, model_conf={**MODEL_CONF, "scheme": scheme}, **{**TRANSDUCER, **changes})
    (folder / "tokens.txt").write_text("".join(f"{token}\n" for token in TOKENS))
    texts = (f"utt{number} {'ab ba aab'[number:]}\n" for number in range(8))
    (folder / "text").write_text("".join(texts))
    return folder


def asr_options(corpus: Path, output: Path) -> list[str]:
    """Return the options of a training on the corpus, which is its own validation data."""
    options = training_options(corpus, output)
    options = [o.replace("pdf_ids,pdf_ids,text_int", "text,text,text") for o in options]
    place = options.index("--num_pdfs")
    options[place : place + 2] = ["--token_type", "char", "--token_list", f"{corpus}/tokens.txt"]
    return options
