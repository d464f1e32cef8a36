"""Models made at random: full refresh is exact, partial refresh is what the oracle says."""

from __future__ import annotations

import pytest
from hypothesis import given, seed, settings

from tests.generated.check import check
from tests.generated.choose import numbered_recipe, recipes
from tests.generated.loops import Loop, check_loop, numbered_loop
from tests.generated.model import build
from tests.generated.recipe import Layer, Recipe


def test_a_recipe_is_rebuilt_from_its_repr() -> None:
    recipe = Recipe(layers=(Layer(), Layer(mask="causal", cross=True)), context=3, results=("pooled",), seed=4)
    again = eval(repr(recipe), {"Recipe": Recipe, "Layer": Layer})
    assert again == recipe
    state = build(recipe).state_dict()
    assert all((value == state[name]).all() for name, value in build(again).state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_a_generated_model_decodes_as_the_original_and_the_oracle_do(part: int) -> None:
    # Others in each part, the same in every run.
    @seed(part)
    @settings(max_examples=25, derandomize=False, database=None)
    @given(recipe=recipes())
    def decodes(recipe: Recipe) -> None:
        check(recipe)

    decodes()


def test_queries_times_a_table_are_no_scores_where_heads_are_joined_to_queries() -> None:
    """Nothing tells there that the table's first dimension is the queries'; but values have none like it."""
    check(numbered_recipe(4, 144))


@pytest.mark.parametrize("is_inference", [False, True])
def test_a_step_that_writes_into_its_argument_and_calls_a_compiled_function_is_decoded_with(is_inference: bool) -> None:
    recipe = Recipe(input="ids", writes="indexed", compiled="whole")
    check_loop(recipe, Loop(goes_on=True, inference=is_inference))


def test_a_step_that_writes_what_it_computes_of_weights_is_refused() -> None:
    check(Recipe(input="ids", writes="computed"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_a_generated_loop_reads_what_the_oracle_of_each_branch_says(part: int) -> None:
    for number in range(10 * part, 10 * part + 10):
        check_loop(numbered_recipe(5, number), numbered_loop(5, number))
