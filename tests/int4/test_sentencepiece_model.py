"""SentencePiece's models without the table that SentencePiece holds itself."""

import io

import pytest
import yaml
from int4.small_recognizer import write_recognizer

from espnet_quant4.bin.main import main
from espnet_quant4.int4.model_file import load
from espnet_quant4.int4.sentencepiece_model import with_table, without_table

sentencepiece = pytest.importorskip("sentencepiece")
TEXTS = ["one two three", "four five six", "seven eight nine zero"]


def train(kind, **options):
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=written,
        model_type=kind,
        vocab_size=24,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return written.getvalue()


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
@pytest.mark.parametrize("rule", ["nmt_nfkc", "nfkc_cf", "identity"])
def test_the_same_model_comes_back(kind, rule):
    model = train(kind, normalization_rule_name=rule)
    stored = without_table(model)
    assert with_table(stored) == model
    assert len(stored) < 5000
    if rule == "nmt_nfkc":
        assert len(model) > 200_000
    # Writing text does not want the table.
    whole, short = (sentencepiece.SentencePieceProcessor(model_proto=m) for m in (model, stored))
    for text in TEXTS:
        pieces = whole.encode(text, out_type=str)
        assert short.decode_pieces(pieces) == whole.decode_pieces(pieces) == text


def test_a_table_of_ones_own_is_kept(tmp_path):
    rules = tmp_path / "rules.tsv"
    rules.write_text("41\t61\n")
    model = train("char", normalization_rule_tsv=str(rules))
    assert without_table(model) == model and with_table(model) == model
    assert (
        sentencepiece.SentencePieceProcessor(model_proto=model).encode("A", out_type=str)[-1] != "A"
    )


@pytest.mark.parametrize("content", [b"", b"no model", b"\xff" * 20, b"\x1a\x7f"])
def test_what_is_no_model_is_kept(content):
    assert without_table(content) == content and with_table(content) == content


def test_a_recognizers_file_leaves_the_table_out(tmp_path):
    config, checkpoint = write_recognizer(tmp_path)
    original = tmp_path / "char.model"
    original.write_bytes(train("char"))
    options = yaml.safe_load(config.read_text(encoding="utf-8"))
    options.update(token_type="bpe", bpemodel=str(original))
    config.write_text(yaml.safe_dump(options), encoding="utf-8")
    output = tmp_path / "model.int4"
    arguments = ["--asr_train_config", str(config), "--asr_model_file", str(checkpoint)]
    assert main(["convert", *arguments, "--output", str(output)]) == 0
    assert output.stat().st_size < 0.5 * original.stat().st_size
    content = original.read_bytes()
    original.unlink()
    recognizer = load(output)
    tokenizer = recognizer.tokenizer
    assert tokenizer.tokens2text(list("▁one▁two")) == "one two"
    # Reading text normalizes as before.
    tokens = sentencepiece.SentencePieceProcessor(model_proto=content).encode("ｏne", out_type=str)
    assert tokenizer.text2tokens("ｏne") == tokens and "o" in tokens
