"""Every test-time view differs from the image and keeps what the flags protect."""

import pytest
import torch

from visionforge.data.registry import dataset_info, dataset_names
from visionforge.training.tta import shift, tta_views, view_functions


@pytest.fixture
def images():
    return torch.rand((4, 3, 28, 28), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("resolution", [8, 28, 64])
@pytest.mark.parametrize("name", dataset_names())
def test_every_view_differs(name, resolution):
    images = torch.rand((4, 3, resolution, resolution), generator=torch.Generator().manual_seed(0))
    views = tta_views(images, dataset_info(name).flags)
    assert len(views) >= 5
    assert torch.equal(views[0], images)
    for index, view in enumerate(views):
        for other in views[:index]:
            assert (view - other).abs().mean() > 0.01


def test_shift_is_one_whole_pixel_at_28(images):
    torch.testing.assert_close(shift(images, 1 / 28, 0)[..., 1:], images[..., :-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(shift(images, 0, -1 / 28)[..., :-1, :], images[..., 1:, :], atol=1e-5, rtol=0)
    torch.testing.assert_close(shift(images, 1 / 28, 0)[..., 0], images[..., 0], atol=1e-5, rtol=0)


def test_flags_choose_the_views():
    organ = view_functions(dataset_info("organamnist").flags)
    assert not {"hflip", "vflip", "rotate 90"} & set(organ)
    assert {"hflip"} == {"hflip", "vflip", "rotate 90"} & set(view_functions(dataset_info("retinamnist").flags))
    assert {"hflip", "vflip", "rotate 90", "rotate 270"} <= set(view_functions(dataset_info("pathmnist").flags))


def test_flips_and_turns_are_exact(images):
    views = view_functions(dataset_info("pathmnist").flags)
    assert torch.equal(views["hflip"](images), images.flip(-1))
    assert torch.equal(views["vflip"](images), images.flip(-2))
    assert torch.equal(views["rotate 180"](images), images.flip(-1).flip(-2))
