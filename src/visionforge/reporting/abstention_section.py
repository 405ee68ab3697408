"""What a report shows of images of which a network should say nothing."""

from visionforge.evaluation.evaluation import Evaluation
from visionforge.reporting.figures.interactive import risk_plots
from visionforge.reporting.presentation import Section
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.sections import headings, number

METHODS = {
    "split": "a class belongs to the set if its probability is above a threshold (Sadinle et al., 2019)",
    "class": "a class belongs to the set if its probability is above a threshold of its own (Sadinle et al., 2019)",
    "aps": "the most probable classes, until their sum is large enough (Romano et al., 2020, without its random part)",
    "raps": "the same with a price for every class after the second (Angelopoulos et al., 2021)",
}


def abstention_section(evaluation: Evaluation) -> list[Section]:
    """Return the section; nothing where an image may have several labels."""
    found = evaluation.abstention()
    if found is None or evaluation.risk is None:
        return []
    selective, rows = found["selective"], []
    right = selective["accuracy_at_coverage"]
    surest = "".join(
        f", on {right[share]:.1%} of the {float(share):.0%} that it is surest of" for share in right if share != "1"
    )
    notes = [f"It is right on {right['1']:.1%} of all images{surest}."]
    if (sets := found["sets"]) is not None:
        notes.append(
            f"The set of an image holds its true class in at least {sets['asked']:.1%} of images like the "
            f"{sets['validation_images']:,} validation images: {METHODS[sets['method']]}. "
            f"Sets have {sets['mean_size']:.2f} classes on average; {sets['one_class']:.1%} have one, "
            f"{sets['empty']:.1%} have none."
        )
        if evaluation.split == "val":
            notes.append("They were fitted on these very images, so their coverage here proves nothing.")
        for name, of in [("all", sets), *sets["per_class"].items()]:
            ends = of["interval"]
            between = "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
            images = Cell(f"{of['images']:,}", "number")
            rows.append([Cell(name), images, Cell(number(of["coverage"]), "number", between)])
    else:
        notes.append("There are no sets of classes: nobody asked for them, or there were too few validation images.")
    if (abstained := found["abstained"]) is not None:
        accuracy = number(abstained["accuracy_of_the_others"])
        notes.append(f"The network abstains on {abstained['share']:.1%}; of the others it is right on {accuracy}.")
    if (ood := found["ood"]) is not None:
        notes.append(
            f"{ood['beyond']:.1%} of the images are further out than 95 % of the validation images "
            f"(ood_score by {ood['method']}, threshold {ood['threshold']:.4g})."
        )
    notes.append(
        f"Area under the curve of risk and coverage {selective['aurc']:.4f}, {selective['excess_aurc']:.4f} of it more "
        "than the best order would have."
    )
    table = Table(headings(["set holds the true class", "images", "coverage"]), rows) if rows else None
    heading = "When does it not know?"
    return [Section("abstention", heading, notes=notes, plots=risk_plots(evaluation.risk), table=table)]
