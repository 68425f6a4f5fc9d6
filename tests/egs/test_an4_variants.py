"""The ablation's variants: each fits the network of its family and changes something in it."""

import argparse

import pytest
import yaml
from egs.recipes import EGS

import espnet_quant4.plugin
from espnet_quant4.bin import main
from espnet_quant4.bin.task_class import task_class
from espnet_quant4.quantizers import Quantizer
from espnet_quant4.scheme import bundled_names
from espnet_quant4.scheme_variants import read_variants, select

FILE = EGS / "an4/ablation.yaml"
BASE, VARIANTS = read_variants(FILE)
# What tells them apart is how they are trained.
SAME_SCHEME = [v.name for v in VARIANTS if v.arguments]


def quantizers_of(family, scheme):
    """Return what each quantizer is and how its clip starts, by its place in the network."""
    espnet_quant4.plugin.register()
    task = task_class(family)
    args = argparse.Namespace(**task.get_default_config())
    config = EGS / f"an4/{family}1/conf/train_{family}_qat.yaml"
    for key, value in yaml.safe_load(config.read_text(encoding="utf-8")).items():
        setattr(args, key, value)
    args.model_conf = {**args.model_conf, "scheme": scheme}
    args.input_size, args.frontend, args.normalize = 40, None, None
    args.num_pdfs = 50
    args.token_list, args.token_type = [str(i) for i in range(30)], "char"
    model = task.build_model(args)
    return {
        name: (repr(q), q.role, getattr(q, "init", None))
        for name, q in model.named_modules()
        if isinstance(q, Quantizer)
    }


def written(file, family, output):
    """Return each variant with its scheme, as ablation.sh has them from the command."""
    command = ["variants", "--file", str(file), "--family", family, "--output", str(output)]
    assert main.main(command) == 0
    return [
        (v, v.name if v.name in bundled_names() else str(output / f"{v.name}.yaml"))
        for v in select(read_variants(file)[1], family)
    ]


@pytest.mark.parametrize("family", ["asr", "hybrid"])
def test_every_variant_fits_its_network_and_changes_it(family, tmp_path):
    base = quantizers_of(family, BASE)
    chosen = written(FILE, family, tmp_path)
    assert len(chosen) > 20
    for variant, scheme in chosen:
        found = quantizers_of(family, scheme)
        same = variant.name in (BASE, *SAME_SCHEME)
        assert (found == base) == same, variant.name


@pytest.mark.parametrize("family", ["asr", "hybrid"])
def test_repeats_differ_in_two_schemes_and_their_seeds(family, tmp_path):
    file, found = EGS / "an4/repeats.yaml", {}
    for variant, scheme in written(file, family, tmp_path):
        placed = str(quantizers_of(family, scheme))
        found.setdefault(placed, []).append(variant.arguments.get(family, ""))
    seeds = ["", "--qat_args '--seed 12'", "--qat_args '--seed 13'"]
    assert list(found.values()) == [seeds, seeds]
    assert str(quantizers_of(family, read_variants(file)[0])) in found
