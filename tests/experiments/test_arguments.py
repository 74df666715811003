import pytest
from mekax.experiments.arguments import spread


def one_by_one(*values):
    return [word for value in values for word in ("--optimizers", value)]


@pytest.mark.parametrize(
    "typed",
    [
        "mnist --optimizers meka adam:1e-3 sgd:0.1",
        "mnist --optimizers meka,adam:1e-3,sgd:0.1",
        "mnist --optimizers meka, adam:1e-3 ,sgd:0.1",
        "mnist --optimizers=meka,adam:1e-3,sgd:0.1",
        "mnist --optimizers meka --optimizers adam:1e-3 sgd:0.1",
    ],
)
def test_all_spellings_of_several_values(typed):
    expected = ["mnist", *one_by_one("meka", "adam:1e-3", "sgd:0.1")]
    assert spread(typed.split(), "--optimizers") == expected


def test_next_option_ends_the_values():
    words = ["--optimizers", "meka", "adam", "--epochs", "2", "digits"]
    assert spread(words, "--optimizers") == [*one_by_one("meka", "adam"), "--epochs", "2", "digits"]


def test_name_of_a_problem_ends_the_values():
    words = ["--optimizers", "meka", "adam", "digits", "mnist"]
    result = spread(words, "--optimizers", stop={"digits", "mnist"})
    assert result == [*one_by_one("meka", "adam"), "digits", "mnist"]


@pytest.mark.parametrize("words", [["--optimizers"], ["--optimizers", "--tune"], ["a", "--tune"]])
def test_nothing_to_spread(words):
    assert spread(words, "--optimizers") == words


def test_double_dash_ends_the_options():
    words = ["--optimizers", "meka", "--", "--optimizers", "x"]
    assert spread(words, "--optimizers") == words
