"""Where the time of a training went, as a table and two sentences."""

from visionforge.cli.printing import heading, plain_table, print_table
from visionforge.engine.step_profile import StepProfile
from visionforge.runs.paths import shown
from visionforge.runs.workspace import Workspace
from visionforge.streams import say


def print_step_profile(found: StepProfile, workspace: Workspace) -> None:
    """Print a profile, and where it lies."""
    say()
    heading(f"where {found.seconds:,.1f} s of training went: {found.steps:,} steps on {found.device}")
    table = plain_table("", "of the training", "ms in a step", right=("of the training", "ms in a step"))
    for part in found.parts:
        table.add_row(part.name, f"{part.share:.1%}", "" if part.step_ms is None else f"{part.step_ms:,.2f}")
    if found.step_ms is not None:
        table.add_row("a step", "", f"{found.step_ms:,.2f}")
    print_table(table)
    if found.operators:
        table = plain_table("operator", "ms in a step", "calls", right=("ms in a step", "calls"))
        for each in found.operators[:5]:
            table.add_row(each.name, f"{each.step_ms:,.2f}", f"{each.calls:,.0f}")
        print_table(table)
    for sentence in found.advice:
        say(sentence)
    say(f"Medians of {found.measured:,} measured steps{_cost(found.overhead)}.")
    for label, path in (("profile", workspace.profile), ("trace", workspace.trace)):
        if path.is_file():
            say(f"{label:>12}  {shown(path)}")


def _cost(overhead: float | None) -> str:
    """Return by how much longer measured steps take than those in between that were only timed."""
    if overhead is None:
        return ", too few to say what measuring costs"
    return f", which take {abs(overhead):.1%} {'longer' if overhead >= 0 else 'less'} than those between them"
