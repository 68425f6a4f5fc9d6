#!/usr/bin/env python3
"""RNN transducer on AN4 by ESPnet3's stages: FP32, then 4-bit quantization-aware training.

README.md beside this file has the commands; ``--help`` lists the stages.
"""

import copy

from espnet3.systems.esp2_asr.system import ASRSystem
from espnet3.systems.launch import launch


class System(ASRSystem):
    """ESPnet3's system for speech recognition, whose stages may all run in one command."""

    def collect_stats(self, *args, **kwargs):
        # This stage takes the normalization out of the configuration that it is given. A `train`
        # in the same process would then quietly use the default one.
        configuration = self.training_config
        self.training_config = copy.deepcopy(configuration)
        try:
            return super().collect_stats(*args, **kwargs)
        finally:
            self.training_config = configuration


if __name__ == "__main__":
    # The package of the default configurations; ESPnet3 tells it from the class's own otherwise.
    launch(System, conf_package="egs3.TEMPLATE.esp2_asr")
