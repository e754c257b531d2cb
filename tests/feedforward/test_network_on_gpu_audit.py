"""The network on the pretend card: a pass never waits for a GPU."""

import torch
from pretend_card import CARD, Card

from msdyn.feedforward import ClipTensors, ModelConfig, Movies


def test_a_pass_does_not_wait():
    frames, height, width = 2, 28, 42
    torch.manual_seed(0)
    model = Movies(ModelConfig.small()).eval()
    clip = ClipTensors(
        torch.rand(1, frames, 3, height, width),
        torch.eye(4).expand(1, frames, 4, 4),
        torch.tensor([1.0, width / height, 0.5, 0.5]).expand(1, frames, 4),
        torch.linspace(0, 1, frames)[None],
    )
    with Card() as card, torch.no_grad():
        model, clip = model.to(CARD), clip.to(CARD)
        query = torch.full((1,), 0.5, device=CARD)
        card.clear()
        features = model.encode(clip)
        static = model.static(features)
        gaussians = model.gaussians(features, static, model.move(features, static, query))
        assert not card.waits, card.report()
        assert gaussians.means.is_cuda and card.kernels.total() > 500
