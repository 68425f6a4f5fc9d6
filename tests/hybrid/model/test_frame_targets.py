"""Pdf ids laid against frames: what fits, what is made to fit, what is refused."""

import pytest
import torch

from espnet_quant4.hybrid.model.frame_targets import frame_targets


def test_last_id_is_repeated_and_surplus_is_cut() -> None:
    pdf_ids = torch.tensor([[1, 2, 3, -1], [4, 5, 6, 7], [8, -1, -1, -1]])
    found = frame_targets(pdf_ids, torch.tensor([3, 4, 1]), torch.tensor([5, 3, 1]), 9)
    assert found.tolist() == [[1, 2, 3, 3, 3], [4, 5, 6, -1, -1], [8, -1, -1, -1, -1]]


@pytest.mark.parametrize("ids, frames", [(3, 6), (6, 3), (0, 1)])
def test_too_large_a_difference_names_the_utterance(ids: int, frames: int) -> None:
    pdf_ids = torch.zeros(2, 6, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"an42 has {ids} ids for {frames} frames"):
        frame_targets(
            pdf_ids, torch.tensor([5, ids]), torch.tensor([5, frames]), 4, ["an41", "an42"]
        )
    # Without names, and with names that are not this batch's.
    for names in (None, ["an41", "an42", "an43"]):
        with pytest.raises(ValueError, match="batch position 1 has"):
            frame_targets(pdf_ids, torch.tensor([5, ids]), torch.tensor([5, frames]), 4, names)


@pytest.mark.parametrize("wrong", [4, -1, 99])
def test_an_id_that_is_no_output(wrong: int) -> None:
    pdf_ids = torch.tensor([[0, 1, 2], [3, wrong, 0]])
    lengths = torch.tensor([3, 3])
    message = f"an42 has id {wrong} at frame 1; valid are 0 to 3.*--num_pdfs"
    with pytest.raises(ValueError, match=message):
        frame_targets(pdf_ids, lengths, lengths, 4, ["an41", "an42"])
