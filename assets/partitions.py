"""One partition a recipe. Assets declare it themselves, so it lives beside them, below `pipelines`."""

import warnings

import dagster as dg

from finetuning.recipe import find

# A check whose status is kept by partition is a preview in Dagster 1.13. Without it one model's passed verdict would
# show as every model's.
warnings.filterwarnings("ignore", "Specifying a partitions_def on an AssetCheckSpec", category=dg.PreviewWarning)

BASE_MODELS = dg.StaticPartitionsDefinition(list(find()))
OWNERS = ["team:fine-tuning"]
