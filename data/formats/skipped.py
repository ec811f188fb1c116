"""What a conversion leaves behind, and how it says so."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ocrdistill.files import left_out
from utils.runtime.words import counted

NAMED = 20  # skipped pictures and rows that the summary names


@dataclass
class Skipped:
    """What is not used, and why: what is wrong (failed, rows), what is not wanted (left_out), and what is worth a look.

    Attributes:
        failed: by picture, why its annotation cannot be used.
        entries: annotations of no picture that is there, or of one that another annotation is of.
        left_out: reason, as 'picture of sets without annotations' -> number of images.
        of_test: how many pictures of the training set are used in the test set instead.
        copies: how many pictures are copies of others and go where these go.
        turned: pictures that EXIF data turn, where no size in the annotations tells what these are of.
        raw_pixels: annotations are taken as of the pixels before that.
        there, annotated: all images that were found, and those that an annotation names.
        others, annotations: files that are no images, and the annotations among them.
    """

    failed: dict[Path, str] = field(default_factory=dict)
    rows: list[str] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    of_test: int = 0
    copies: int = 0
    turned: set[Path] = field(default_factory=set)
    raw_pixels: bool = False
    there: set[Path] = field(default_factory=set)
    annotated: set[Path] = field(default_factory=set)
    others: set[Path] = field(default_factory=set)
    annotations: set[Path] = field(default_factory=set)

    def describe(self) -> list[str]:
        """Lines for people, none if nothing was skipped."""
        lines = []
        if self.failed or self.rows:
            lines.append(f'skipped {counted(len(self.failed), "picture")} and {counted(len(self.rows), "row")}')
        lines += _first([*self.failed.values(), *self.rows])
        if self.entries:
            lines.append(f'skipped {counted(len(self.entries), "annotation")} without a picture of their own')
        lines += _first(self.entries)
        reasons = {**self.left_out, 'picture without an annotation': len(self.there - self.annotated)}
        for reason, count in reasons.items():
            noun, _, rest = reason.partition(' ')
            lines += [f'left out: {counted(count, noun)} {rest}'] if count else []
        lines += filter(None, [left_out(self.others - self.annotations)])
        if self.of_test:
            lines.append(f'not for training: {counted(self.of_test, "picture")} of the test set')
        if self.turned:
            turned = counted(len(self.turned), 'picture is', 'pictures are') + ' turned by EXIF data'
            taken = 'pixels as stored' if self.raw_pixels else 'upright picture; --raw-pixels if they are not'
            lines.append(f'{turned}: annotations are taken as of the {taken}')
        if self.copies:
            copies = counted(self.copies, 'picture is a copy', 'pictures are copies')
            lines.append(f'in one split with what they are copies of: {copies}')
        if self.notes:
            lines.append(f'worth a look: {len(self.notes)}')
        return lines + _first(self.notes)


def _first(reasons: list[str]) -> list[str]:
    more = [f'  and {len(reasons) - NAMED} more'] if len(reasons) > NAMED else []
    return [f'  {reason}' for reason in reasons[:NAMED]] + more
