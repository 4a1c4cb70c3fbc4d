"""What a conversion wrote, changed and left out."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Report:
    """Counts, by split where that matters."""

    pictures: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    """Pictures without any box."""
    boxes: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By split and label; crowd boxes are not among them."""
    crowd: Counter[str] = field(default_factory=Counter)
    """Boxes with `iscrowd`, which our training and evaluation leave out."""
    remarks: Counter[str] = field(default_factory=Counter)
    """What was changed or left out, in words, and how often."""

    def table(self, classes: tuple[str, ...]) -> str:
        """Lines for a reader: splits, classes, remarks."""
        splits = list(self.pictures)
        rows = [("", *splits), ("pictures", *(self.pictures[split] for split in splits))]
        rows.append(("without boxes", *(self.empty[split] for split in splits)))
        rows.append(("crowd boxes", *(self.crowd[split] for split in splits)))
        labels = range(len(classes))
        rows.append(("boxes", *(sum(self.boxes[split, label] for label in labels) for split in splits)))
        rows.extend((f"  {classes[label]}", *(self.boxes[split, label] for split in splits)) for label in labels)
        width = max(len(row[0]) for row in rows)
        lines = [f"{row[0]:<{width}}" + "".join(f"{cell:>10}" for cell in row[1:]) for row in rows]
        if remarks := [f"{number:>10} {reason}" for reason, number in self.remarks.items() if number]:
            lines += ["left out or changed:", *remarks]
        return "\n".join(lines)
