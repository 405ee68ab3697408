"""Every test-time view differs from the image, is exact, and keeps what the flags protect."""

import pytest
import torch

from visionforge.data.info import DomainFlags
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.training.tta import (
    INVERSES,
    average_views,
    dense_view_functions,
    shift,
    tta_views,
    undo_view,
    view_functions,
)

ALL = DomainFlags(hflip=True, vflip=True, dflip=True, rotation="any", texture_is_label=False, colour_is_label=False)


@pytest.fixture
def images():
    return torch.rand((4, 3, 28, 28), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mode", ["light", "full"])
@pytest.mark.parametrize("resolution", [28, 64])
@pytest.mark.parametrize("name", dataset_names())
def test_every_view_differs(name, resolution, mode):
    images = torch.rand((4, 3, resolution, resolution), generator=torch.Generator().manual_seed(0))
    views = tta_views(images, dataset_info(name).flags, mode)
    assert len(views) >= (5 if mode == "full" else 2)
    assert torch.equal(views[0], images)
    for index, view in enumerate(views):
        for other in views[:index]:
            assert (view - other).abs().mean() > 0.01


def test_shifts_are_whole_pixels(images):
    assert torch.equal(shift(images, 1, 0)[..., 1:], images[..., :-1])
    assert torch.equal(shift(images, 0, -1)[..., :-1, :], images[..., 1:, :])
    assert torch.equal(shift(images, 1, 0)[..., 0], images[..., 0])
    assert torch.equal(shift(images, -2, 0)[..., :-2], images[..., 2:])
    assert torch.equal(shift(images, 0, 2)[..., :2, :], images[..., :1, :].expand(-1, -1, 2, -1))
    flags = dataset_info("organamnist").flags
    assert torch.equal(view_functions(flags, "full", 64)["shift right"](images), shift(images, 2, 0))


def test_flags_choose_the_views():
    def names(dataset, mode="full", resolution=28):
        return set(view_functions(dataset_info(dataset).flags, mode, resolution))

    exact = {"hflip", "vflip", "rotate 90", "rotate 180", "rotate 270"}
    assert not exact & names("organamnist")
    assert exact & names("retinamnist") == {"hflip"}
    assert exact <= names("pathmnist")
    assert names("pathmnist", "light") == {"identity", "hflip", "vflip"}
    assert names("organamnist", "light") == {"identity", "shift right", "shift left"}
    assert names("pathmnist", "off") == {"identity"}


def test_no_shift_where_a_pixel_is_more_than_a_28th():
    assert set(view_functions(dataset_info("digits").flags, "full", 8)) == {"identity"}
    assert set(view_functions(dataset_info("retinamnist").flags, "full", 27)) == {"identity", "hflip"}


def test_flips_and_turns_are_exact(images):
    views = view_functions(dataset_info("pathmnist").flags, "full", 28)
    assert torch.equal(views["hflip"](images), images.flip(-1))
    assert torch.equal(views["vflip"](images), images.flip(-2))
    assert torch.equal(views["rotate 180"](images), images.flip(-1).flip(-2))


def test_average_of_the_views():
    shown = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]], [[0.1, 0.9]]])
    torch.testing.assert_close(average_views(shown), torch.tensor([[1.6 / 3, 1.4 / 3]]))
    torch.testing.assert_close(average_views(shown, 0.6), torch.tensor([[0.6 + 0.4 * 0.3, 0.4 * 0.7]]))


@pytest.mark.parametrize("mode", ["off", "light", "full"])
@pytest.mark.parametrize("shape", [(2, 5, 28, 28), (2, 5, 7, 7), (2, 3, 28, 28, 28)])
def test_every_view_of_pixels_is_undone_exactly_or_left_out(shape, mode):
    """Also of outputs at a fraction of the resolution."""
    outputs = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    dims = len(shape) - 2
    dense = dense_view_functions(ALL, mode, 28, dims)
    for name, view in view_functions(ALL, mode, 28, dims).items():
        if name in dense:
            assert torch.equal(undo_view(name, view(outputs)), outputs), name
            continue
        assert name.startswith("shift")
        with pytest.raises(ValueError, match=f"view: '{name}' has no exact inverse; allowed: identity"):
            undo_view(name, outputs)
    if mode == "full":
        assert set(dense) == set(INVERSES) - (set() if dims == 3 else {"dflip"})


def test_wrong_outputs_are_told():
    with pytest.raises(ValueError, match=r"outputs: \(2, 5\) of the view 'hflip'; allowed: \(N, K, H, W\)"):
        undo_view("hflip", torch.zeros(2, 5))
    with pytest.raises(ValueError, match="view 'dflip'"):
        undo_view("dflip", torch.zeros(2, 5, 4, 4))
