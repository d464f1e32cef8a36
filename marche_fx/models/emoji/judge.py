"""The judge of emoji: which group a picture belongs to, with features that tell subgroups apart."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..judge import Judge, JudgeLoss
from ..train import Recipe
from .names import SIDE

RECIPE = Recipe(epochs=40, batch=128, learning_rate=3e-3, warmup=200, weight_decay=0.05, ema=0.995)
WHITE = 1.0


def emoji_judge() -> Judge:
    """Nine groups from 64x64 pixels; without weights."""
    return Judge((32, 64, 128, 192), colours=3, size=SIDE, classes=9)


class GroupAndSubgroup(JudgeLoss):
    """Cross-entropy of group and subgroup, given the latter.

    Nine groups alone would leave the features blind to most of what a picture shows, and so the distance in them.

    Args:
        group_of: the group of each subgroup.
    """

    group_of: Tensor

    def __init__(self, judge: Judge, group_of: Tensor) -> None:
        super().__init__(judge, WHITE)
        self.classify_subgroup = nn.Linear(judge.classify.in_features, len(group_of))
        self.register_buffer("group_of", group_of)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        features = self.judge.drop(self.judge.features(self.augment(images)))
        by_group = F.cross_entropy(self.judge.classify(features), self.group_of[labels], label_smoothing=0.05)
        return by_group + F.cross_entropy(self.classify_subgroup(features), labels, label_smoothing=0.05)
