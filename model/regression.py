"""The baseline that the flow is compared with: the same network, asked once, without noise (section 4.3, App. E.1).

A regression answers with the mean of all stacks that an image leaves possible. Of the flow's it has the network, the
weights, the data and the loss; it is a flow that knows the first step only, from nothing at t = 1.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from model.wt_dit import WTDiT


def blank(valid_BHW: Tensor, layers: int) -> Tensor:
    """What a regression sees in place of noisy points, (B,L,H,W,3) float32: 0 where a pixel is valid, 1 where not."""
    outside_BHW = (~valid_BHW.bool()).float()
    return outside_BHW[:, None, :, :, None].expand(-1, layers, -1, -1, 3)


@torch.no_grad()
def regress(model: "WTDiT", rgb_B3HW: Tensor, valid_BHW: Tensor, frames: int = 1) -> Tensor:
    """The network's answer (B,L,H,W,3), or 4 with masks, normalised; rgb in [0, 1], valid bool, clips as `sample`."""
    t_B = torch.ones(len(rgb_B3HW), device=rgb_B3HW.device)
    return model(rgb_B3HW, blank(valid_BHW, model.config.layers), t_B, frames).float()
