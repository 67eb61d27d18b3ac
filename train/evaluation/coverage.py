"""Table 5: at how many pixels of an image a layer has a true intersection, from the manifest of a dataset."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import shards
from shards.summary import PAPER_COVERAGE, PAPER_MEDIAN, PAPER_P25, PAPER_P75, PAPER_P90

COLUMNS = ("mean", "median", "p25", "p75", "p90")
PAPER = dict(zip(COLUMNS, (PAPER_COVERAGE, PAPER_MEDIAN, PAPER_P25, PAPER_P75, PAPER_P90)))
PAPER_VIEWS = (964_508, 963_163, 910_810, 835_007, 696_663, 516_342)


def layer_validity(dataset: shards.Dataset, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Per layer: {"layer", "views", "mean", "median", "p25", "p75", "p90"}, percent of the pixels of the whole image.

    Over the views in which the layer exists at all (`views`, "valid views" in the paper): its L5 has a 25th percentile
    above zero though nearly half of its views have no sixth surface. Of a clip the mean over its frames counts; samples
    of which only layer 0 is known count there alone. ValueError where there is none.
    """
    table = dataset.columns(["coverage", "single_layer"]).take(list(rows)).to_pydict()
    lists = [c[:1] if single else c for c, single in zip(table["coverage"], table["single_layer"])]
    found = []
    for layer in range(max(map(len, lists), default=0)):
        percent = 100 * np.array([c[layer] for c in lists if len(c) > layer and c[layer] > 0])
        if percent.size:
            values = [percent.mean(), *np.percentile(percent, (50, 25, 75, 90))]
            found.append({"layer": layer, "views": percent.size, **dict(zip(COLUMNS, map(float, values)))})
    if not found:
        raise ValueError(f"{dataset.directory}: none of the {len(lists)} samples has a valid pixel in any layer")
    return found
