"""Whether the graphs speak for their files: engines that contradict them are told."""

from __future__ import annotations

import pytest

from modelhub.difference.smallest import doubts

NAN = float("nan")


def said(source: list[float], ours: list[float], theirs: list[float], target: list[float]):
    return [
        ("source: torch float32", "y", source),
        ("source: its graph, float64", "y", ours),
        ("target: lwtnn float64", "y", target),
        ("target: its graph, float64", "y", theirs),
    ]


def test_engines_that_agree_with_their_graphs_raise_no_doubt():
    assert doubts(said([1.0000001], [1.0], [2.0], [2.0])) == []
    assert doubts(said([NAN], [NAN], [2.0], [2.0])) == []


@pytest.mark.parametrize("wrong", [2.0, NAN, 1.2])
def test_an_engine_that_contradicts_its_graph_is_told(wrong):
    (told,) = doubts(said([wrong], [1.0], [2.0], [2.0]))
    assert told.startswith("source: torch float32 does not answer for y")
    (told,) = doubts(said([1.0], [1.0], [2.0], [wrong - 1]))
    assert told.startswith("target: lwtnn float64")


def test_a_small_contradiction_is_held_against_the_difference_that_is_looked_for():
    assert doubts(said([1.001], [1.0], [2.0], [2.0])) == []
    assert doubts(said([1.001], [1.0], [1.002], [1.002])) != []
