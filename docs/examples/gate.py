"""An add-on attention of your own: a weight for each channel, learned from that channel."""

from torch import nn

import afi_search


class Gate(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Conv2d(channels, channels, 1, groups=channels)

    def forward(self, r):  # R, what AFI integrates: B x channels x H x W, and so is the answer
        return r * self.weight(r).sigmoid()


afi_search.register_attention(afi_search.Attention("gate", Gate))
