"""What the size that a network reads asks of the data: the same rules for settings files and for functions."""

from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION, Resize
from visionforge.config.schema.tasks import task_named


def network_resolution(resize: Resize, resolution: int) -> int:
    """Return height and width of what a network reads, given that of the images; in pixels, or voxels of volumes."""
    return resolution if resize.size is None else resize.size


def resize_problems(resize: Resize, resolution: int, task: str, spatial_dims: int) -> list[str]:
    """Return a line for everything in which a resize does not fit the images, or their labels.

    Args:
        resize: The size that the network reads.
        resolution: Height and width of the images.
        task: Kind of labels.
        spatial_dims: 2 for images, 3 for volumes.
    """
    problems: list[str] = []
    size = resize.size
    if size is None:
        return problems
    if task_named(task).located:
        problems.append(
            f"data.resize.size: {size} is not allowed with {task} data, whose labels lie at places of the image; "
            "leave it out, or import the pictures in that size"
        )
    if spatial_dims == 3 and size > MAX_VOLUME_RESOLUTION:
        problems.append(
            f"data.resize.size: {size} is not allowed for volumes, whose memory grows with the third power; at most "
            f"{MAX_VOLUME_RESOLUTION}"
        )
    if resize.mode == "pad" and size < resolution:
        problems.append(
            f"data.resize.mode: pad has no room for images of {resolution} pixels in a data.resize.size of {size}; "
            f"allowed: bilinear, bicubic, or at least {resolution} pixels"
        )
    return problems
