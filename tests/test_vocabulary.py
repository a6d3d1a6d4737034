"""Retired words stay out of the code: docs/glossary.md holds the present names."""

import re
import tokenize
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "headway"
# identifiers of earlier versions that have one present name
IDENTIFIERS = """
    AT_HAND BlockLaw CHOICES Fate Foresight FromOriginal GeneratedStops IN_LINE KeysStored LAYOUTS LUCK MakeDrafter MarkWhole Origin
    OwnUnembeddings Places Placed Planner ReadingStack Ridden Shipped StopGently Tally Tapped TellEpoch VERBS WIDEST Wall
    accepted_at at_work attend_in_line before_stops chained_drafts decode_plainly drafts_trees
    drawn_from fates first_of foresee foresees_states home_of in_turns journal kept_positions lay_out likeliest mask_drafts
    rate_of_heads record_of recursive_drafts require_room ridden ridden_prompts rows_of shipped shipped_in speaking_of_layers tapped
    taps told_drafter tree_drafts try_out validation_of verb verbs walls why_not_exact why_not_this_long write_draft
"""
# words of prose that send readers to a private language
WORDS = "company foresight likeliest plainly ridden rides settled tapped taps verb verbs"
FILES = [pytest.param(path, id=str(path.relative_to(SOURCE))) for path in sorted(SOURCE.rglob("*.py"))]


@pytest.mark.parametrize("path", FILES)
def test_a_source_file_uses_present_names(path: Path) -> None:
    with tokenize.open(path) as file:
        names = {token.string for token in tokenize.generate_tokens(file.readline) if token.type == tokenize.NAME}
    words = set(re.findall(r"\w+", path.read_text(encoding="utf-8")))
    assert sorted((names & set(IDENTIFIERS.split())) | (words & set(WORDS.split()))) == []
