"""Switchboard's configurations: ESPnet takes them, and the networks have the published sizes."""

import functools

import pytest
import torch
import yaml
from egs.recipes import EGS, REPOSITORY
from espnet2.bin.asr_inference import get_parser as decoding_parser
from espnet2.tasks.asr import ASRTask

from espnet_quant4.bin import hybrid_inference
from espnet_quant4.hybrid.task import HybridTask

RNNT, HYBRID = EGS / "swbd" / "asr1" / "conf", EGS / "swbd" / "hybrid1" / "conf"
# 45 characters and the blank.
TOKENS = ["<blank>", "<unk>", "<space>", *(f"character{n}" for n in range(42)), "<sos/eos>"]
STATES = 32000
# Without the encoder that CTC alone trains.
TRAININGS = sorted(
    [RNNT / "train_asr_fp32.yaml", RNNT / "train_asr_qat.yaml", *HYBRID.glob("train_*.yaml")]
)


def parse(config, output, *options):
    """Parse a configuration with what the stage driver adds; options as ``key=value`` pairs follow."""
    arguments = ["--config", str(config), "--output_dir", str(output), *options]
    if config.parent == RNNT:
        tokens = output / "tokens.txt"
        tokens.write_text("".join(f"{token}\n" for token in TOKENS))
        arguments += ["--token_type", "char", "--token_list", str(tokens), "--normalize", "none"]
        return ASRTask, ASRTask.get_parser().parse_args(arguments)
    if "--num_pdfs" not in options:
        arguments += ["--num_pdfs", str(STATES)]
    if "lfmmi" in config.name:
        arguments += ["--model_conf", "lfmmi_conf.denominator=den.fst"]
    arguments += ["--input_size", "40", "--normalize", "none"]
    return HybridTask, HybridTask.get_parser().parse_args(arguments)


def shapes(model):
    """Names and shapes of what is learned, without clips."""
    return {
        name: tuple(value.shape)
        for name, value in model.named_parameters()
        if "quantizers" not in name
    }


def lstm_shapes(name, layers, inputs, cells, directions):
    """The parameters of an ``nn.LSTM``."""
    found = {}
    for layer in range(layers):
        for direction in ("", "_reverse")[:directions]:
            end = f"l{layer}{direction}"
            found[f"{name}.weight_ih_{end}"] = (
                4 * cells,
                inputs if layer == 0 else directions * cells,
            )
            found[f"{name}.weight_hh_{end}"] = (4 * cells, cells)
            found |= {f"{name}.bias_{kind}_{end}": (4 * cells,) for kind in ("ih", "hh")}
    return found


def linear_shapes(name, inputs, outputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


PUBLISHED = {
    RNNT: {
        **lstm_shapes("encoder.enc.0.nbrnn", 6, 2 * 3 * 40, 640, 2),
        **linear_shapes("encoder.enc.0.l_last", 1280, 1280),
        "decoder.embed.weight": (46, 10),
        **lstm_shapes("decoder.decoder.0", 1, 10, 768, 1),
        **linear_shapes("joint_network.lin_enc", 1280, 256),
        **linear_shapes("joint_network.lin_dec", 768, 256),
        **linear_shapes("joint_network.lin_out", 256, 46),
    },
    HYBRID: {
        **lstm_shapes("encoder.enc.0.nbrnn", 4, 3 * 40, 512, 2),
        **linear_shapes("encoder.enc.0.l_last", 1024, 1024),
        **linear_shapes("bottleneck", 1024, 256),
        **linear_shapes("output", 256, STATES),
    },
}


@functools.cache
def content(config):
    return yaml.safe_load(config.read_text(encoding="utf-8"))


@pytest.mark.parametrize("config", TRAININGS, ids=lambda path: path.stem)
def test_networks_have_the_published_sizes(config, tmp_path):
    task, args = parse(config, tmp_path)
    # Shapes without memory: nothing is drawn at random for 60 million weights.
    with torch.device("meta"):
        model = task.build_model(args)
    assert shapes(model) == PUBLISHED[config.parent]
    quantized = any("quantizers" in name for name, _ in model.named_buffers())
    assert quantized == ("qat" in config.stem)
    assert model.preencoder.output_size() == 3 * 40
    if task is ASRTask:
        assert model.joint_network.operation is torch.mul
    else:
        assert model.chunks.is_active == ("lfmmi" not in config.stem)
        assert model.chunks.size == (0 if "lfmmi" in config.stem else 21)


def test_ctc_trains_the_encoder_of_the_transducer(tmp_path):
    task, args = parse(RNNT / "train_asr_ctc.yaml", tmp_path)
    with torch.device("meta"):
        found = shapes(task.build_model(args))
    encoder = {name: shape for name, shape in found.items() if name.startswith("encoder.")}
    assert encoder.items() <= PUBLISHED[RNNT].items()
    assert found.keys() - encoder == linear_shapes("ctc.ctc_lo", 1280, 46).keys()


@pytest.mark.parametrize(
    "config", [*TRAININGS, RNNT / "train_asr_ctc.yaml"], ids=lambda path: path.stem
)
def test_schedules_end_with_the_training(config, tmp_path):
    task, args = parse(config, tmp_path)
    (optimizer,) = task.build_optimizers(args, torch.nn.Linear(1, 1))
    assert isinstance(optimizer, torch.optim.AdamW if config.parent == RNNT else torch.optim.Adam)
    if args.scheduler == "onecyclelr":
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **args.scheduler_conf)
        # One more would be an error in the middle of the last epoch.
        assert schedule.total_steps == args.max_epoch * args.num_iters_per_epoch


@pytest.mark.parametrize("recipe", [RNNT, HYBRID], ids=["rnnt", "hybrid"])
def test_systems_differ_in_training_and_scheme_alone(recipe):
    """The quantized network is the FP32 one, so that its checkpoint fits."""
    pairs = [
        (p, p.with_stem(p.stem.replace("qat", "fp32")))
        for p in (path for path in TRAININGS if path.parent == recipe and "qat" in path.stem)
    ]
    assert pairs
    for quantized, other in pairs:
        # Sequence training has an FP32 configuration of another name.
        other = (
            other if other.exists() else quantized.with_stem(quantized.stem.removesuffix("_qat"))
        )
        mine, floats = content(quantized), content(other)
        assert mine["model_conf"].pop("scheme") == "tailored"
        for key in (
            "encoder",
            "encoder_conf",
            "decoder",
            "decoder_conf",
            "joint_net_conf",
            "preencoder_conf",
        ):
            if key == "encoder_conf":
                mine[key] = {**mine[key], "dropout": floats[key]["dropout"]}
            assert mine.get(key) == floats.get(key)
        assert mine["model_conf"] == floats["model_conf"]


REDUCED = {
    RNNT: [
        "encoder_conf.hidden_size=12",
        "encoder_conf.output_size=16",
        "decoder_conf.hidden_size=10",
    ],
    HYBRID: ["encoder_conf.hidden_size=12", "encoder_conf.output_size=16"],
}


def batch(recipe):
    """Two utterances, of 0.9 and 0.7 s: waveforms and characters, or features and states."""
    generator = torch.Generator().manual_seed(0)
    if recipe == RNNT:
        return {
            "speech": torch.randn(2, 7200, generator=generator),
            "speech_lengths": torch.tensor([7200, 5600]),
            "text": torch.tensor([[3, 4, 5, 2], [5, 3, -1, -1]]),
            "text_lengths": torch.tensor([4, 2]),
        }
    return {
        "speech": torch.randn(2, 90, 40, generator=generator),
        "speech_lengths": torch.tensor([90, 70]),
        "pdf_ids": torch.randint(0, 50, (2, 90), generator=generator),
        "pdf_ids_lengths": torch.tensor([90, 70]),
    }


@pytest.mark.parametrize("system", ["fp32", "tailored", "naive"])
@pytest.mark.parametrize("recipe", [RNNT, HYBRID], ids=["rnnt", "hybrid"])
def test_a_step_with_fewer_cells(recipe, system, tmp_path):
    name = "train_asr" if recipe == RNNT else "train_hybrid"
    options = ["--num_pdfs", "50"] if recipe == HYBRID else []
    for option in REDUCED[recipe]:
        kind, _, value = option.partition(".")
        options += [f"--{kind}", value]
    if system != "fp32":
        # As the stage driver does: one configuration, the scheme replaced.
        options += ["--model_conf", f"scheme={REPOSITORY}/conf/scheme/{system}.yaml"]
    config = recipe / f"{name}_{'fp32' if system == 'fp32' else 'qat'}.yaml"
    task, args = parse(config, tmp_path, *options)
    torch.manual_seed(0)
    model = task.build_model(args)
    (optimizer,) = task.build_optimizers(args, model)
    for _ in range(2):
        optimizer.zero_grad()
        loss, stats, _ = model.train()(**batch(recipe))
        loss.backward()
        optimizer.step()
    assert loss.isfinite() and stats["loss"].isfinite()
    lacking = [name for name, value in model.named_parameters() if value.grad is None]
    assert not lacking


@pytest.mark.parametrize("config", sorted(RNNT.glob("decode_*.yaml")), ids=lambda path: path.stem)
def test_transducer_searches_are_options_of_espnets(config):
    known = {action.dest for action in decoding_parser()._actions}
    assert set(content(config)) <= known


@pytest.mark.parametrize("config", sorted(HYBRID.glob("decode_*.yaml")), ids=lambda path: path.stem)
def test_scores_of_hybrids_are_options_of_ours(config):
    known = {action.dest for action in hybrid_inference.get_parser()._actions}
    assert set(content(config)) <= known
