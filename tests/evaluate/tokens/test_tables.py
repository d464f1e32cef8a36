from marche_fx.evaluate.tokens import VARIANTS, TokenRow
from marche_fx.evaluate.tokens.tables import HEADINGS, cells, token_table
from marche_fx.tuning.intervals import Interval
from tests.evaluate.tiny import silent, written

WIDEST = TokenRow(
    loop="32-steps",
    variant=max(VARIANTS, key=len),
    policy="None",
    same=Interval(1.0, 1.0, 1.0),
    identical=1.0,
    rows=1.0,
    results=1.0,
    flops=1.0,
    seconds_ratio=1.0,
    images=100,
    labels=Interval(1.0, 1.0, 1.0),
    frechet=Interval(2.34, 0.81, 4.45),
    frechet_over_original=Interval(-1.23, -2.34, 1.11),
)


def test_no_figure_is_cut_off_in_120_columns() -> None:
    console = silent()
    console.print(token_table([WIDEST]))
    told = written(console)
    assert "32-steps: 100 images" in told
    assert len(cells(WIDEST)) == len(HEADINGS)
    for word in (WIDEST.variant, *cells(WIDEST), *" ".join(HEADINGS).split()):
        assert word in told
    assert max(map(len, told.splitlines())) <= 120
