"""Transition models: text and binary, as the Kaldi packages have them and as Kaldi writes them."""

import struct

import numpy as np
import pytest
from hybrid.small_world import monophone_tree, transition_model, triphone_tree_bytes

from espnet_quant4.hybrid.kaldi import kaldi_hmm_gmm
from espnet_quant4.hybrid.kaldi_files.tokens import KaldiFileError
from espnet_quant4.hybrid.kaldi_files.transition_model import HmmState, read_transition_model
from espnet_quant4.hybrid.kaldi_files.tree import read_tree

# More states and a skip, so that transition ids are not evenly spaced.
TOPOLOGY = """<Topology>
<TopologyEntry> <ForPhones> 2 3 </ForPhones>
<State> 0 <PdfClass> 0 <Transition> 0 0.5 <Transition> 1 0.3 <Transition> 2 0.2 </State>
<State> 1 <PdfClass> 1 <Transition> 1 0.75 <Transition> 2 0.25 </State>
<State> 2 </State> </TopologyEntry>
<TopologyEntry> <ForPhones> 1 </ForPhones>
<State> 0 <PdfClass> 0 <Transition> 0 0.9 <Transition> 1 0.1 </State>
<State> 1 </State> </TopologyEntry>
</Topology>
"""


def uneven_model():
    khg = kaldi_hmm_gmm()
    topology = khg.HmmTopology()
    topology.read(TOPOLOGY)
    tree = khg.monophone_context_dependency([1, 2, 3], [0, 1, 2, 2])
    return khg.TransitionModel(tree, topology)


def integer(value):
    return b"\4" + struct.pack("<i", value)


def real(value):
    return b"\4" + struct.pack("<f", value)


def vector(values):
    return integer(len(values)) + struct.pack(f"<{len(values)}i", *values)


def binary(model, double=False, tuples=False):
    """A final.mdl as Kaldi's TransitionModel::Write writes it, with something behind it."""
    phones = model.phones
    to_entry = [-1] * (max(phones) + 1)
    entries = b""
    for n, phone in enumerate(phones):
        to_entry[phone] = n
        states = model.topo.topology_for_phone(phone)
        entries += integer(len(states))
        for state in states:
            entries += integer(state.forward_pdf_class)
            entries += integer(state.self_loop_pdf_class) if tuples else b""
            entries += integer(len(state.transitions))
            entries += b"".join(integer(to) + real(p) for to, p in state.transitions)
    data = b"\0B<TransitionModel> <Topology> " + vector(phones) + vector(to_entry)
    data += integer(-1) if tuples else b""
    data += integer(len(phones)) + entries + b"</Topology> "
    kind = b"Tuples" if tuples else b"Triples"
    rows = [t.__getstate__() for t in model.tuples]
    data += b"<" + kind + b"> " + integer(len(rows))
    data += b"".join(integer(v) for row in rows for v in row[: 4 if tuples else 3])
    data += b"</" + kind + b"> <LogProbs> "
    letter = "d" if double else "f"
    data += b"DV " if double else b"FV "
    data += integer(len(model.log_probs)) + struct.pack(
        f"<{len(model.log_probs)}{letter}", *model.log_probs
    )
    return data + b"</LogProbs> </TransitionModel> <DIMENSION> " + integer(39)


def read(tmp_path, content):
    path = tmp_path / "final.mdl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transition_model(path)


@pytest.fixture(params=["text", "binary", "binary double", "binary tuples"])
def pair(request, tmp_path):
    """Kaldi's model and what is read from its file."""
    model = uneven_model()
    content = {
        "text": str(model) + "<DIMENSION> 39 \n",
        "binary": binary(model),
        "binary double": binary(model, double=True),
        "binary tuples": binary(model, tuples=True),
    }
    return model, read(tmp_path, content[request.param])


def test_maps_are_those_of_kaldi(pair):
    kaldi, model = pair
    ids = range(1, model.num_transition_ids + 1)
    assert model.num_transition_ids == kaldi.num_transition_ids == 12
    assert model.num_pdfs == kaldi.num_pdfs == 5
    assert model.id2pdf[0] == model.id2phone[0] == -1 and not model.is_self_loop[0]
    assert model.id2pdf[1:].tolist() == [kaldi.transition_id_to_pdf(i) for i in ids]
    assert model.id2phone[1:].tolist() == [kaldi.transition_id_to_phone(i) for i in ids]
    assert model.is_self_loop[1:].tolist() == [kaldi.is_self_loop(i) for i in ids]
    np.testing.assert_allclose(model.log_probs, kaldi.log_probs, rtol=1e-5)


def test_kaldi_gets_the_same_model_back(pair):
    kaldi, model = pair
    back = model.to_kaldi()
    assert back.state2id == kaldi.state2id and back.id2state[1:] == kaldi.id2state[1:]
    assert back.id2pdf_id[1:] == kaldi.id2pdf_id[1:]
    np.testing.assert_allclose(back.log_probs, kaldi.log_probs, rtol=1e-5)
    np.testing.assert_allclose(
        back.non_self_loop_log_probs, kaldi.non_self_loop_log_probs, rtol=1e-5
    )
    assert back.tuples == kaldi.tuples and back.num_pdfs == kaldi.num_pdfs
    for phone in kaldi.phones:
        ours, theirs = (m.topo.topology_for_phone(phone) for m in (back, kaldi))
        assert list(map(str, ours)) == list(map(str, theirs))


def test_triphones(tmp_path):
    (tmp_path / "tree").write_bytes(triphone_tree_bytes())
    kaldi = transition_model(read_tree(tmp_path / "tree"))
    model = read(tmp_path, str(kaldi))
    assert model.num_pdfs == 9
    assert model.id2pdf[1:].tolist() == kaldi.id2pdf_id[1:]


def test_self_loops_may_have_pdfs_of_their_own(tmp_path):
    """The topology of chain models, of which the Kaldi packages' text form knows too."""
    model = read(
        tmp_path,
        "<TransitionModel> <Topology> <TopologyEntry> <ForPhones> 1 </ForPhones> "
        "<State> 0 <ForwardPdfClass> 0 <SelfLoopPdfClass> 1 <Transition> 0 0.5 "
        "<Transition> 1 0.5 </State> <State> 1 </State> </TopologyEntry> </Topology> "
        "<Tuples> 1 1 0 4 2 </Tuples> <LogProbs> [ 0 -0.69 -0.69 ] </LogProbs> </TransitionModel>",
    )
    assert model.topology[1][0] == HmmState(0, 1, ((0, 0.5), (1, 0.5)))
    assert model.id2pdf.tolist() == [-1, 2, 4]
    assert model.num_pdfs == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "<Nnet3> ...", "'<Nnet3>' at byte 0 where <TransitionModel> was expected"),
        (lambda text: text[: len(text) // 2], "ends|was expected"),
        (lambda text: text.replace("<LogProbs> \n [ 0", "<LogProbs> \n [ 0 -0.1"), "12 transition"),
        (lambda text: text.replace("<Triples> 5 \n1 0", "<Triples> 5 \n9 0"), r"of phones \[9\]"),
        (lambda text: text.replace("1 0 0", "1 x 0"), "'x' at byte .* a number was expected"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, change, message):
    with pytest.raises(KaldiFileError, match=message):
        read(tmp_path, change(str(uneven_model())))


def test_a_binary_file_that_is_cut_off_is_refused(tmp_path):
    whole = binary(transition_model(monophone_tree()))
    for length in (30, 80, len(whole) - 60):
        with pytest.raises(KaldiFileError):
            read(tmp_path, whole[:length])
