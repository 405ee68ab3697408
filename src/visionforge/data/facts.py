"""Everything that the catalog says of a data set, as texts."""

from visionforge.config.schema.tasks import task_named
from visionforge.data.info import DatasetInfo, DomainFlags


def dataset_facts(entry: DatasetInfo) -> dict[str, str]:
    """Return label → text."""
    flags = entry.flags
    allowed = allowed_flips(flags)
    facts = {
        "name": f"{entry.name} ({entry.title})",
        "images": entry.description,
        "task": entry.task,
        "classes": ", ".join(name if name == str(i) else f"{i} {name}" for i, name in enumerate(entry.classes)),
        **({"positive": entry.positive or entry.classes[-1]} if task_named(entry.task).has_positive else {}),
        **({"dimensions": "3 (volumes, cubes)"} if entry.spatial_dims == 3 else {}),
        "channels": "3 (colour)" if entry.channels == 3 else "1 (grey)",
        **({"pictures": "scaled as a whole, filled with black"} if entry.fit == "pad" else {}),
        **(
            {"intensity": "grey values {:g} to {:g} become 0 to 255".format(*entry.intensity)}
            if entry.intensity
            else {}
        ),
        "splits": ", ".join(f"{name} {count:,}" for name, count in entry.splits.model_dump().items()),
        **({"columns": ", ".join(entry.columns)} if entry.columns else {}),
        "resolutions": resolutions_text(entry),
        "mean": ", ".join(f"{value:.4f}" for value in entry.normalisation.mean),
        "std": ", ".join(f"{value:.4f}" for value in entry.normalisation.std),
        "constants": entry.normalisation.source,
        "label keeps under": ", ".join([*allowed, f"{flags.rotation} rotation"]),
        "texture is label": "yes" if flags.texture_is_label else "no",
        "colour is label": "yes" if flags.colour_is_label else "no",
        **({"import": "; ".join(entry.notes)} if entry.notes else {}),
        "licence": entry.licence,
        "cite": entry.citation,
    }
    made = "on this machine only" if entry.original is None else "made once of the published files"
    for resolution, archive in entry.archives.items():
        facts[f"archive {resolution}"] = archive.url or made
        if archive.md5 is not None or entry.original is None:
            facts[f"MD5 {resolution}"] = archive.md5 or "not recorded"
    return {**facts, **published_facts(entry)}


def published_facts(entry: DatasetInfo) -> dict[str, str]:
    """Return label → text of the files that the archives are made of; empty where archives are published."""
    original = entry.original
    if original is None:
        return {}
    facts = {}
    for file in original.published:
        facts[file.file] = f"{file.url} (at most {file.max_bytes:,} bytes, {file.checksum.name} {file.checksum.value})"
    drawn = "validation images" if original.has_test else "validation and test images"
    facts["splits drawn"] = f"{drawn}, by class, from seed {original.split_seed}"
    return facts


def allowed_flips(flags: DomainFlags) -> list[str]:
    """Return the flips that keep the label, in words."""
    flips = {"left-right flip": flags.hflip, "top-bottom flip": flags.vflip, "front-back flip": flags.dflip}
    return [name for name, yes in flips.items() if yes]


def kind_text(entry: DatasetInfo) -> str:
    """Return what the images are in a word or two: grey, colour, grey volumes or colour volumes."""
    colours = "grey" if entry.channels == 1 else "colour"
    return f"{colours} volumes" if entry.spatial_dims == 3 else colours


def resolutions_text(entry: DatasetInfo) -> str:
    """Return the heights and widths, and depths of volumes, that a data set has, in pixels."""
    return "any" if entry.resolutions is None else ", ".join(map(str, entry.resolutions))
