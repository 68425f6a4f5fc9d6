"""ESPnet's task ``hybrid``: training of networks that score the states of hidden Markov models."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.asr.encoder.abs_encoder import AbsEncoder
from espnet2.asr.preencoder.abs_preencoder import AbsPreEncoder
from espnet2.tasks import asr
from espnet2.tasks.abs_task import AbsTask
from espnet2.torch_utils.initialize import initialize
from espnet2.train.abs_espnet_model import AbsESPnetModel
from espnet2.train.class_choices import ClassChoices
from espnet2.train.collate_fn import CommonCollateFn
from espnet2.train.preprocessor import CommonPreprocessor
from espnet2.train.trainer import Trainer
from espnet2.utils.types import float_or_none, int_or_none, str2bool, str_or_none
from typeguard import typechecked

from espnet_quant4.asr.encoder.rnn_encoder import QuantRNNEncoder
from espnet_quant4.asr.encoder.vgg_rnn_encoder import QuantVGGRNNEncoder
from espnet_quant4.asr.preencoder.frame_context import FrameContext
from espnet_quant4.hybrid.model.espnet_model import ESPnetHybridModel
from espnet_quant4.hybrid.model.frame_targets import IGNORE_ID
from espnet_quant4.scheme import with_scheme_content
from espnet_quant4.text_files import read_text

# What ASR offers too is ASR's, with what other plugins add to it.
frontend_choices = asr.frontend_choices
specaug_choices = asr.specaug_choices
normalize_choices = asr.normalize_choices
preencoder_choices = ClassChoices(
    name="preencoder",
    classes={**asr.preencoder_choices.classes, "frame_context": FrameContext},
    type_check=AbsPreEncoder,
    default="frame_context",
    optional=True,
)
encoder_choices = ClassChoices(
    name="encoder",
    # The quantized ones by name: the switch that turns the plugin off is about ESPnet's own tasks.
    classes={
        **asr.encoder_choices.classes,
        "quant_rnn": QuantRNNEncoder,
        "quant_vgg_rnn": QuantVGGRNNEncoder,
    },
    type_check=AbsEncoder,
    default="quant_rnn",
)
model_choices = ClassChoices(
    name="model",
    classes={"hybrid": ESPnetHybridModel},
    type_check=AbsESPnetModel,
    default="hybrid",
)

INITIALIZATIONS = (
    "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal", None,
)  # fmt: skip


class HybridTask(AbsTask):
    """Training of a hybrid model on speech and pdf ids, one a frame.

    Data names: ``speech`` (type ``sound`` or features) and ``pdf_ids`` (type ``text_int``).
    """

    num_optimizers: int = 1

    class_choices_list = [  # noqa: RUF012  ESPnet's own declaration
        frontend_choices,
        specaug_choices,
        normalize_choices,
        preencoder_choices,
        encoder_choices,
        model_choices,
    ]

    trainer = Trainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the task's options to ESPnet's parser."""
        group = parser.add_argument_group("Task related")
        # argparse's own `required` would get in the way of --print_config.
        required = parser.get_default("required")
        required += ["num_pdfs"]
        group.add_argument(
            "--num_pdfs",
            type=str_or_none,
            default=None,
            help="Number of pdf ids of the alignment, or a file that holds it",
        )
        group.add_argument(
            "--init",
            type=lambda x: str_or_none(x.lower()),
            default=None,
            choices=INITIALIZATIONS,
            help="The initialization method; None: PyTorch's of each layer",
        )
        group.add_argument(
            "--input_size",
            type=int_or_none,
            default=None,
            help="Features a frame, where the data are features and no waveforms",
        )
        group = parser.add_argument_group("Preprocess related")
        group.add_argument(
            "--use_preprocessor",
            type=str2bool,
            default=True,
            help="Apply preprocessing to data or not",
        )
        group.add_argument(
            "--speech_volume_normalize",
            type=float_or_none,
            default=None,
            help="Scale the maximum amplitude to the given value",
        )
        group.add_argument(
            "--rir_scp",
            type=str_or_none,
            default=None,
            help="File of room impulse responses, for training data",
        )
        group.add_argument(
            "--rir_apply_prob",
            type=float,
            default=1.0,
            help="Probability of a room impulse response",
        )
        group.add_argument(
            "--noise_scp",
            type=str_or_none,
            default=None,
            help="File of noise recordings, for training data",
        )
        group.add_argument(
            "--noise_apply_prob",
            type=float,
            default=1.0,
            help="Probability of added noise",
        )
        group.add_argument(
            "--noise_db_range",
            type=str,
            default="13_15",
            help="Range of the signal to noise ratio in dB",
        )
        for class_choices in cls.class_choices_list:
            class_choices.add_arguments(group)

    @classmethod
    @typechecked
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[
        [Collection[tuple[str, dict[str, np.ndarray]]]],
        tuple[list[str], dict[str, torch.Tensor]],
    ]:
        """Return what makes a padded batch of utterances."""
        return CommonCollateFn(float_pad_value=0.0, int_pad_value=IGNORE_ID)

    @classmethod
    @typechecked
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, Any]], dict[str, np.ndarray]] | None:
        """Return what is done to an utterance when it is read; None for nothing."""
        if not args.use_preprocessor:
            return None
        return CommonPreprocessor(
            train=train,
            rir_scp=args.rir_scp,
            rir_apply_prob=args.rir_apply_prob,
            noise_scp=args.noise_scp,
            noise_apply_prob=args.noise_apply_prob,
            noise_db_range=args.noise_db_range,
            speech_volume_normalize=args.speech_volume_normalize,
        )

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ("speech",) if inference else ("speech", "pdf_ids")

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        return ("pdf_ids",) if inference else ()

    @classmethod
    @typechecked
    def build_model(cls, args: argparse.Namespace) -> AbsESPnetModel:
        """Build the model that ``args`` describe.

        What they name by a file, the number of pdf ids and the schemes, is replaced by its content,
        for ``config.yaml`` is written from them.

        Raises:
            ValueError: for a ``num_pdfs`` that is neither a number nor a file with one.
        """
        args.num_pdfs = read_num_pdfs(args.num_pdfs)
        args.model_conf = with_scheme_content(args.model_conf, "model_conf")
        encoder_class = encoder_choices.get_class(args.encoder)
        if issubclass(encoder_class, (QuantRNNEncoder, QuantVGGRNNEncoder)):
            args.encoder_conf = with_scheme_content(args.encoder_conf, "encoder_conf")

        if args.input_size is None:
            frontend = frontend_choices.get_class(args.frontend)(**args.frontend_conf)
            input_size = frontend.output_size()
        else:
            args.frontend, args.frontend_conf = None, {}
            frontend, input_size = None, args.input_size
        specaug = normalize = preencoder = None
        if args.specaug is not None:
            specaug = specaug_choices.get_class(args.specaug)(**args.specaug_conf)
        if args.normalize is not None:
            normalize = normalize_choices.get_class(args.normalize)(**args.normalize_conf)
        if args.preencoder is not None:
            preencoder_class = preencoder_choices.get_class(args.preencoder)
            conf = dict(args.preencoder_conf)
            if issubclass(preencoder_class, FrameContext):
                conf["input_size"] = input_size
            preencoder = preencoder_class(**conf)
            input_size = preencoder.output_size()
        encoder = encoder_class(input_size=input_size, **args.encoder_conf)
        model = model_choices.get_class(args.model)(
            num_pdfs=args.num_pdfs,
            frontend=frontend,
            specaug=specaug,
            normalize=normalize,
            preencoder=preencoder,
            encoder=encoder,
            **args.model_conf,
        )
        if args.init is not None:
            initialize(model, args.init)
        return model


def read_num_pdfs(value: str | int | None) -> int:
    """Return a number of pdf ids.

    Args:
        value: the number, or a file that holds it, as alignments have beside them.

    Raises:
        ValueError: for anything else.
    """
    text = str(value).strip()
    if not text.isdigit() and Path(text).is_file():
        text = read_text(text).strip()
    if not text.isdigit() or int(text) < 1:
        raise ValueError(
            f"--num_pdfs {value}: valid are a number above 0 and a file that holds one, such as "
            "num_pdfs in the folder of the alignment."
        )
    return int(text)
