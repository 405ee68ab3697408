"""`visionforge export`."""

from visionforge.cli.commands import Command


def _run(arguments: list[str]) -> int:
    from visionforge.cli.export import run_export

    return run_export(arguments)


COMMAND = Command(
    "export",
    "write the network of a run as ONNX, torch.export program or safetensors, with the proof that it is the same",
    _run,
    place=70,
)
