"""The Asterisk prompts' data stage: spoken form and the split by whole sentences."""

import random

import pytest
from egs.recipes import load

asterisk = load("asterisk_en/asr1/local/data.py")


def made_up_prompts(number=400, seed=0):
    """Prompts of one to three sentences from a small stock, so that many share one."""
    draw = random.Random(seed)
    words = ["press", "one", "for", "the", "next", "message", "please", "hold", "goodbye", "now"]
    stock = [" ".join(draw.choices(words, k=draw.randint(1, 8))) for _ in range(number)]
    return {
        f"prompt-{i:03d}": ". ".join(draw.sample(stock, k=draw.choice([1, 1, 1, 2])))
        for i in range(number)
    }


@pytest.mark.parametrize(
    ("transcript", "spoken"),
    [
        ("Please enter your PIN, then press #.", "please enter your pin then press pound"),
        ("You have 8 messages", "you have eight messages"),
        ("28.8 kilobits", "twenty eight point eight kilobits"),
        ("at [@]", "at"),
        ("[tone]", ""),
        ("It's  busy!", "it's busy"),
    ],
)
def test_transcripts_become_what_is_said(transcript, spoken):
    assert asterisk.normalize_text(transcript) == spoken


def split(prompts):
    groups = asterisk.group_by_shared_sentence(prompts)
    texts = {name: asterisk.normalize_text(text) for name, text in prompts.items()}
    return asterisk.split_groups(groups, texts)


def test_no_sentence_is_in_two_parts():
    prompts = made_up_prompts()
    parts = split(prompts)
    sentences = {
        part: {s for name in names for s in asterisk.sentences_of(prompts[name])}
        for part, names in parts.items()
    }
    assert sentences["dev"] and sentences["test"]
    assert not sentences["train"] & sentences["test"]
    assert not sentences["train"] & sentences["dev"]
    assert not sentences["dev"] & sentences["test"]


def test_every_prompt_is_in_one_part():
    prompts = made_up_prompts()
    parts = split(prompts)
    names = [name for part in parts.values() for name in part]
    assert sorted(names) == sorted(prompts)
    for part, wanted in asterisk.WORDS_WANTED.items():
        counts = [len(asterisk.normalize_text(prompts[n]).split()) for n in parts[part]]
        assert wanted * 0.9 <= sum(counts) <= wanted
        assert all(count in asterisk.WORDS_OF_A_TESTABLE_PROMPT for count in counts)


def test_the_split_does_not_depend_on_the_order_of_the_list():
    prompts = made_up_prompts()
    shuffled = list(prompts.items())
    random.Random(1).shuffle(shuffled)
    first, second = split(prompts), split(dict(shuffled))
    assert {part: set(names) for part, names in first.items()} == {
        part: set(names) for part, names in second.items()
    }


def test_the_list_of_transcripts_is_read(tmp_path):
    path = tmp_path / "core-sounds-en.txt"
    path.write_text("; a comment: not a prompt\nagent-pass: Please enter your password.\n\n")
    assert asterisk.read_transcripts(path) == {"agent-pass": "Please enter your password."}
