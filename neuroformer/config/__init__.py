"""Every setting of a run; a strict loader of YAML and overrides.

The dataclasses are the schema. An unknown key, a wrong type or an impossible combination is a
:class:`ConfigError` that names the key, what was got and what was expected.
"""

from neuroformer.config.errors import ConfigError
from neuroformer.config.loader import apply_overrides, from_dict, load_config, to_dict
from neuroformer.config.members import block_plan, member_config
from neuroformer.config.recording_sections import (
    RecordingConfig,
    RenderConfig,
    SourceConfig,
    SpeedConfig,
    SyncConfig,
    UnitsConfig,
)
from neuroformer.config.run import Config
from neuroformer.config.schema import (
    BlockConfig,
    ContrastConfig,
    DecodeConfig,
    FrameEncoderConfig,
    GenerateConfig,
    InputConfig,
    InterventionConfig,
    LossConfig,
    ModelConfig,
    MovingConfig,
    SplitConfig,
    TargetConfig,
    TraceConfig,
    TrainConfig,
    TuneConfig,
    WindowConfig,
)
from neuroformer.config.yaml_file import read_yaml

__all__ = [
    "BlockConfig",
    "Config",
    "ConfigError",
    "ContrastConfig",
    "DecodeConfig",
    "FrameEncoderConfig",
    "GenerateConfig",
    "InputConfig",
    "InterventionConfig",
    "LossConfig",
    "ModelConfig",
    "MovingConfig",
    "RecordingConfig",
    "RenderConfig",
    "SourceConfig",
    "SpeedConfig",
    "SplitConfig",
    "SyncConfig",
    "TargetConfig",
    "TraceConfig",
    "TrainConfig",
    "TuneConfig",
    "UnitsConfig",
    "WindowConfig",
    "apply_overrides",
    "block_plan",
    "from_dict",
    "load_config",
    "member_config",
    "read_yaml",
    "to_dict",
]
