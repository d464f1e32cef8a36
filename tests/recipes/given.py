"""Recipes of any kind, for properties."""

from __future__ import annotations

from hypothesis import strategies as st

from marche_fx import (
    CosineBudget,
    Denoising,
    FullRefresh,
    HeadReuse,
    Hold,
    InterleavedRefresh,
    Interpolate,
    NeighbourRefresh,
    Recipe,
    SelectiveRefresh,
    StalenessRefresh,
)

SHARES = st.sampled_from((0.0, 0.1, 0.25, 1.0))

POLICIES = st.one_of(
    st.just(FullRefresh()),
    st.builds(SelectiveRefresh, SHARES, warmup=st.integers(0, 3), tolerance=st.sampled_from((0.0, 0.1, 0.3))),
    st.builds(StalenessRefresh, st.builds(CosineBudget, SHARES, SHARES, st.just(9)), every=st.sampled_from((None, 4))),
    st.builds(NeighbourRefresh, SHARES, queried=st.sampled_from((None, 0.2))),
    st.builds(InterleavedRefresh, st.integers(1, 5)),
    st.just(SelectiveRefresh(0.1) + StalenessRefresh(0.2)),
)

SPACINGS = st.sampled_from(("even", "quadratic", "logsnr"))

DENOISINGS = st.one_of(
    st.none(),
    st.builds(Denoising, st.integers(2, 5), SPACINGS, guidance=st.sampled_from((None, (0.1, 1.0)))),
    st.builds(Denoising, anneal=st.tuples(st.integers(2, 5), st.integers(2, 5))),
)

REUSES = st.one_of(
    st.none(),
    st.builds(HeadReuse, st.one_of(st.none(), st.builds(Hold, st.integers(1, 4))), st.integers(1, 4)),
    st.builds(HeadReuse, st.builds(Interpolate, st.integers(2, 9), st.sampled_from(("linear", "cubic")))),
)

NUMBERS = st.one_of(st.none(), st.floats(0.1, 9.0))

RECIPES = st.builds(
    Recipe,
    refresh=POLICIES,
    denoising=DENOISINGS,
    reuse=REUSES,
    steps=st.one_of(st.none(), st.integers(2, 16)),
    order=st.sampled_from((None, "random", "raster", "halton", "checkerboard")),
    counts=st.sampled_from((None, "cosine", "linear", "two-stage")),
    cfg=NUMBERS,
    cfg_schedule=st.sampled_from((None, "linear", "constant")),
    temperature=NUMBERS,
    model=st.one_of(st.none(), st.text("0123456789abcdef", min_size=16, max_size=16)),
    figures=st.dictionaries(st.text(max_size=5), st.floats(-9, 9), max_size=3),
)
