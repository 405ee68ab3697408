"""Volumes are shown by their middle slices, in the order depth, height, width."""

import numpy as np

from visionforge.evaluation.slices import as_picture, middle_slices


def test_slices_stand_side_by_side_with_a_line_between():
    volume = np.arange(4**3).reshape(4, 4, 4)
    shown = middle_slices(volume, -1)
    assert shown.shape == (4, 14)
    np.testing.assert_array_equal(shown[:, :4], volume[2])
    np.testing.assert_array_equal(shown[:, 5:9], volume[:, 2])
    np.testing.assert_array_equal(shown[:, 10:], volume[:, :, 2])
    assert (shown[:, [4, 9]] == -1).all()


def test_an_image_and_a_volume_become_pictures_with_channels_last():
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(as_picture(image), image.transpose(1, 2, 0))
    assert as_picture(np.zeros((3, 5, 5, 5), np.uint8)).shape == (5, 17, 3)
