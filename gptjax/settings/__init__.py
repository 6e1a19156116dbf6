"""The fields of a config (fields.py), and how they are declared (declarations.py)."""

from gptjax.settings.declarations import Allowed as Allowed
from gptjax.settings.declarations import Count as Count
from gptjax.settings.declarations import Limit as Limit
from gptjax.settings.declarations import Natural as Natural
from gptjax.settings.declarations import NotNegative as NotNegative
from gptjax.settings.declarations import Positive as Positive
from gptjax.settings.declarations import Rule as Rule
from gptjax.settings.declarations import Section as Section
from gptjax.settings.declarations import Seed as Seed
from gptjax.settings.declarations import UpToOne as UpToOne
from gptjax.settings.declarations import at_most as at_most
from gptjax.settings.declarations import freeze_section as freeze_section
from gptjax.settings.declarations import thaw as thaw
from gptjax.settings.fields import CheckpointSettings as CheckpointSettings
from gptjax.settings.fields import DataSettings as DataSettings
from gptjax.settings.fields import EvaluationSettings as EvaluationSettings
from gptjax.settings.fields import LoggingSettings as LoggingSettings
from gptjax.settings.fields import MeshSettings as MeshSettings
from gptjax.settings.fields import ModelSettings as ModelSettings
from gptjax.settings.fields import OptimizerSettings as OptimizerSettings
from gptjax.settings.fields import ScheduleSettings as ScheduleSettings
from gptjax.settings.fields import Settings as Settings
from gptjax.settings.fields import TrainingSettings as TrainingSettings
from gptjax.settings.fields import allowed_values as allowed_values
from gptjax.settings.fields import freeze as freeze
