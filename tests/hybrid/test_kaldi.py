"""The Kaldi packages: versions are looked at before an import could wait for ever."""

import subprocess
import sys
from importlib import metadata

import pytest

from espnet_quant4.hybrid import kaldi

try:
    kaldi.check_versions()
except ImportError as error:  # an environment without the extra: nothing to test
    pytest.skip(str(error), allow_module_level=True)


def test_the_packages_work_together_with_kaldilm_last():
    program = (
        "from espnet_quant4.hybrid import kaldi\n"
        "kaldi.kaldilm()\n"
        "text = '0 1 1 1\\n1'\n"
        "graph = kaldi.kaldifst().compile(text)\n"
        "kaldi.kaldi_hmm_gmm().add_self_loops\n"
        "kaldi.kaldi_decoder().FasterDecoder(graph, kaldi.kaldi_decoder().FasterDecoderOptions())\n"
        "print(kaldi.kaldilm().arpa2fst.__name__, graph.num_states)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert result.stdout.split() == ["arpa2fst", "2"], result.stderr


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("kaldifst", "1.8.0", r"kaldifst==1\.7\.17.*kaldifst 1\.8\.0 is installed.*pip install"),
        ("kaldilm", None, r"kaldi-hmm-gmm==1\.1\.4.*kaldilm is missing.*pip install"),
    ],
)
def test_a_wrong_or_missing_version_is_an_import_error(monkeypatch, name, found, message):
    installed = metadata.version

    def version(asked):
        if asked != name:
            return installed(asked)
        if found is None:
            raise metadata.PackageNotFoundError(asked)
        return found

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ImportError, match=message):
        kaldi.check_versions()


def test_kaldilm_imported_first_is_an_error_and_no_wait():
    program = "import kaldilm\nfrom espnet_quant4.hybrid import kaldi\nkaldi.kaldifst()\n"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert "ImportError: kaldilm was imported before" in result.stderr
