import itertools

from hypothesis import given
from hypothesis import strategies as st

from analytics.dashboard.ledger_strip import Piece, fit, offsets_by_kind

KINDS = ["processed", "failed", "skipped", "expired", "claimed"]


def history(steps):
    pieces, at = [], 0
    for gap, size, kind in steps:
        at += gap
        pieces.append(Piece(at, at + size, kind, size, 0))
        at += size
    return pieces


HISTORIES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 10_000), st.sampled_from(KINDS)), min_size=1, max_size=300
).map(history)


def test_it_leaves_what_fits_exact():
    pieces = history([(0, 10, "processed"), (0, 1, "failed"), (5, 10, "processed")])

    assert fit(pieces, 3) == pieces


def test_it_shows_a_crowded_stretch_as_the_worst_in_it_and_long_pieces_exactly():
    crowd = history([(0, 1_000_000, "processed")] + [(0, 1, kind) for kind in ["processed", "skipped", "failed"] * 50])

    fitted = fit(crowd, 20)

    assert fitted[0] == crowd[0]
    assert fitted[1:] == [Piece(1_000_000, 1_000_150, "failed", 150, 0)]


@given(pieces=HISTORIES, limit=st.integers(2, 50))
def test_it_stays_within_the_limit_and_loses_nothing(pieces, limit):
    fitted = fit(pieces, limit)

    assert len(fitted) <= limit
    assert sum(piece.records for piece in fitted) == sum(piece.records for piece in pieces)
    assert (fitted[0].start, fitted[-1].end) == (pieces[0].start, pieces[-1].end)
    assert all(left.end <= right.start for left, right in itertools.pairwise(fitted))
    starts, ends = {piece.start for piece in pieces}, {piece.end for piece in pieces}
    assert all(piece.start in starts and piece.end in ends for piece in fitted)


@given(pieces=HISTORIES)
def test_it_counts_offsets_by_kind_exactly(pieces):
    counted = offsets_by_kind(pieces)

    assert sum(counted.values()) == sum(piece.end - piece.start for piece in pieces)
    assert all(counted[kind] == sum(p.end - p.start for p in pieces if p.kind == kind) for kind in counted)
