"""A law of the tests' own house; those of the product are in `test_layout.py`."""

from sources import imports, sources


def test_what_tests_share_has_a_name_of_its_own() -> None:
    found = [path for path in sources("tests") if path.name != "conftest.py"]
    names = [path.stem for path in found]
    assert sorted(names) == sorted(set(names)), "pytest puts every folder of tests on the path"
    # Each folder has a conftest.py, so that name means another file with each.
    assert not [str(path) for path in found if "conftest" in {module for module, _ in imports(path)}]
