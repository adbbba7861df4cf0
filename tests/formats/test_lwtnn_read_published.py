"""The published JSON Schema of lwtnn files: it takes what lwtnn runs, and refuses what a schema can see is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from test_lwtnn_engine import shipped
from test_lwtnn_read_hostile import BAD, GOOD

import modelhub_lwtnn

SCHEMA = json.loads(Path(modelhub_lwtnn.__file__).with_name("lwtnn.schema.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

BEYOND = {
    # what depends on widths and on other places in the file
    "half a character",
    "too many labels",
    "too few labels",
    "weights not divisible",
    "weights for another width",
    "bias too short",
    "normalization too short",
    "uneven maxout",
    "gates of two sizes",
    "GRU with two biases",
    "conv1d weights",
    "conv1d of endless reach",
    "embedding not last",
    "embedding n_out",
    "embedding of huge n_out",
    "source out of range",
    "layer out of range",
    "group out of range",
    "size",
    "own source",
    "cycle",
    "vector for a sequence",
    "sequence for a vector",
    "recurrent layer on a vector",
    "dense as a sequence node",
    "a layer at two widths",
    "add of two widths",
    "more labels than components",
    "fewer labels",
    "output out of range",
    "huge integer",
    "conv1d dilation 1.0",  # 1.0 is an integer to JSON Schema
    "float source",
}


def test_it_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", GOOD)
def test_it_takes_good_files(name):
    VALIDATOR.validate(GOOD[name])


def test_it_takes_what_the_real_engine_ran():
    for case in shipped():
        VALIDATOR.validate(case["network"])


@pytest.mark.parametrize("name", ["conv1d", "gru_sequence", "merge_graph", "highway"])
def test_it_takes_real_cases(cases, name):
    VALIDATOR.validate(json.loads((cases / "lwtnn" / name / "lwtnn" / "model.json").read_text()))


@pytest.mark.parametrize("name", sorted(set(BAD) - BEYOND))
def test_it_refuses_bad_files(name):
    assert not VALIDATOR.is_valid(BAD[name][0])


def test_what_is_beyond_it_is_named():
    assert set(BAD) >= BEYOND
    assert {name for name in BAD if VALIDATOR.is_valid(BAD[name][0])} == BEYOND
