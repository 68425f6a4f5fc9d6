"""Choice of widths under a budget, against trying all."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espnet_quant4.search.allocation import BudgetError, allocate, total_bits

WIDTHS = (2, 3, 4, 8)


@given(
    entries=st.lists(
        st.tuples(
            st.integers(1, 50),
            st.lists(st.floats(0, 10), min_size=len(WIDTHS), max_size=len(WIDTHS)),
        ),
        min_size=1,
        max_size=4,
    ),
    mean=st.floats(2, 9),
)
def test_no_other_choice_within_the_budget_is_better(entries, mean: float) -> None:
    parameters = {number: count for number, (count, _) in enumerate(entries)}
    losses = {
        number: dict(zip(WIDTHS, values, strict=True)) for number, (_, values) in enumerate(entries)
    }
    # A budget of whole bits, cut into so many steps: then no size is rounded.
    budget = int(mean * sum(parameters.values()))
    chosen = allocate(losses, parameters, budget, steps=budget)
    assert total_bits(chosen, parameters) <= budget

    def loss(choice) -> float:
        return sum(losses[key][bits] for key, bits in zip(losses, choice, strict=True))

    fitting = [
        choice
        for choice in itertools.product(WIDTHS, repeat=len(entries))
        if sum(c * bits for c, bits in zip(parameters.values(), choice, strict=True)) <= budget
    ]
    assert loss(chosen.values()) == pytest.approx(min(loss(choice) for choice in fitting))


def test_coarse_steps_stay_within_the_budget() -> None:
    parameters = {"a": 997, "b": 1003}
    losses = {key: {2: 5.0, 4: 1.0, 8: 0.0} for key in parameters}
    chosen = allocate(losses, parameters, 2000 * 6.1, steps=50)
    assert total_bits(chosen, parameters) <= 2000 * 6.1 and chosen in (
        {"a": 8, "b": 4},
        {"a": 4, "b": 8},
    )


def test_a_budget_below_the_smallest_widths() -> None:
    with pytest.raises(BudgetError, match="0.000 MB.*--budget.*--widths"):
        allocate({"a": {4: 0.0}}, {"a": 100}, 399)
