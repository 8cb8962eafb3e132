from hypothesis import given
from hypothesis import strategies as st

from sharder.slices import digest_of, is_validation


@given(st.binary(), st.integers(0, 2**63 - 1))
def test_validation_is_a_pure_function_of_seed_and_content(text: bytes, seed: int) -> None:
    assert is_validation(digest_of(text, seed), 0.5) == is_validation(digest_of(text, seed), 0.5)
    assert not is_validation(digest_of(text, seed), 0.0)
    assert is_validation(digest_of(text, seed), 1.0)


def test_the_share_of_validation_is_about_the_one_asked() -> None:
    chosen = sum(
        is_validation(digest_of(b"%d %d" % (seed, number), seed), 0.1) for seed in range(50) for number in range(1000)
    )
    # Five standard deviations.
    assert abs(chosen - 5000) < 5 * (50_000 * 0.1 * 0.9) ** 0.5


def test_another_seed_chooses_others() -> None:
    choices = [[is_validation(digest_of(b"%d" % number, seed), 0.5) for number in range(100)] for seed in (1, 2)]
    assert choices[0] != choices[1]
