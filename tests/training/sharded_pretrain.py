"""training/pretrain.py on CPUs with weights sharded over processes, which Accelerate does on accelerators alone."""

import runpy
import sys
from pathlib import Path

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


initialise = AcceleratorState.__init__


def initialise_sharded(self, *arguments, fsdp_plugin=None, **keywords):
    is_first = not self.initialized
    initialise(self, *arguments, fsdp_plugin=fsdp_plugin, **keywords)
    if is_first:
        # As the end of the constructor does where there are GPUs.
        self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


AcceleratorState.__init__ = initialise_sharded
training = Path(__file__).resolve().parents[2] / "training"
sys.path[0], sys.argv[0] = str(training), str(training / "pretrain.py")
runpy.run_path(sys.argv[0], run_name="__main__")
