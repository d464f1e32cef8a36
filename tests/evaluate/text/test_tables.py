from marche_fx.evaluate.text import VARIANTS, TextRow
from marche_fx.evaluate.text.tables import HEADINGS, cells, text_table
from marche_fx.tuning.intervals import Interval
from tests.evaluate.tiny import silent, written

WIDEST = TextRow(
    loop="low-confidence",
    variant=max(VARIANTS, key=len),
    policy="None",
    prompts=12,
    same=Interval(1.0, 1.0, 1.0),
    identical=1.0,
    rows=1.0,
    results=1.0,
    flops=1.0,
    seconds_ratio=1.0,
    perplexity=123.45,
    perplexity_over_original=Interval(1.23, 1.0, 10.23),
    bits_per_byte=1.44,
    distinct=0.9,
)


def test_no_figure_is_cut_off_in_120_columns() -> None:
    console = silent()
    console.print(text_table([WIDEST]))
    told = written(console)
    assert len(cells(WIDEST)) == len(HEADINGS)
    for word in (WIDEST.variant, *cells(WIDEST), *" ".join(HEADINGS).split()):
        assert word in told
    assert max(map(len, told.splitlines())) <= 120
