"""The leaderboard: one Markdown page for people, one JSON file for programs, a plot, and pages of pairs.

They stay on this machine: the pages of pairs show rows of the data with both answers.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetuning.evaluation.side_by_side import side_by_side
from finetuning.leaderboard.document import Group, Leaderboard, LeftOut
from finetuning.leaderboard.entrants import Entrant
from finetuning.leaderboard.groups import groups_of
from finetuning.leaderboard.page import BESIDE, PLOT, markdown, title_of
from finetuning.leaderboard.standings import group_of
from finetuning.plots import Placed, score_by_size

PAGE, DOCUMENT = "leaderboard.md", "leaderboard.json"
SHOWN = 3  # rows whose answers a page of a pair shows


def write_leaderboard(
    folder: Path, entrants: Sequence[Entrant], left_out: Sequence[LeftOut] = (), smoke: bool = False
) -> Leaderboard:
    """Write leaderboard.md, leaderboard.json, pareto.png and the pages of pairs into `folder`; return the numbers.

    Each model of a group has a page beside the one with the best score. Scores that prove nothing take no part.
    """
    reasons = {entrant.name: entrant.why_left_out for entrant in entrants}
    groups = [group_of(alike) for alike in groups_of([one for one in entrants if not reasons[one.name]])]
    untrusted = [LeftOut(name=name, why=why) for name, why in reasons.items() if why]
    board = Leaderboard(groups=groups, left_out=[*left_out, *untrusted], smoke=smoke)
    by_name = {entrant.name: entrant for entrant in entrants}
    if panels := panels_of(groups):
        (folder / PLOT).write_bytes(score_by_size(panels))
    for group in groups:
        best, *others = (by_name[one.name] for one in group.models)
        for other in others:
            (folder / BESIDE).mkdir(exist_ok=True)
            (folder / BESIDE / f"{other.name}.md").write_text(side_by_side(best.examined, other.examined, SHOWN))
    (folder / DOCUMENT).write_text(json.dumps(board.as_json(), indent=2, allow_nan=False))
    (folder / PAGE).write_text(markdown(board))
    return board


def panels_of(groups: Sequence[Group]) -> Mapping[str, list[Placed]]:
    """What the plot shows: the groups of two models or more whose size is known or, if there is none, the first one."""
    found = {}
    for group in groups:
        placed = [
            Placed(one.name, one.costs.size_mb, one.score, one.interval, one.is_on_front)
            for one in group.models
            if one.costs.size_mb is not None
        ]
        if placed:
            found[title_of(group)] = placed
    several = {title: placed for title, placed in found.items() if len(placed) > 1}
    return several or dict(list(found.items())[:1])
