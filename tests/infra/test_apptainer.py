from infra.apptainer import CONTAINED, ENTRYPOINT, Container, exported

PLACE = Container("image.sif", root="/my/volume", scratch="/my scratch")


def test_nothing_of_the_host_comes_in_but_what_is_bound() -> None:
    words = PLACE.arguments(["boot", "demo"])
    assert words[:2] == ["apptainer", "exec"]
    assert set(CONTAINED) <= set(words)
    assert "--containall" in CONTAINED
    binds = [words[at + 1] for at, word in enumerate(words) if word == "--bind"]
    assert binds == ["/my/volume:/workspace", "/my scratch:/tmp"]


def test_the_words_come_last_as_they_are_after_the_entry_point() -> None:
    hard = ["boot", "demo", "data.path=it's $HOME here"]
    assert PLACE.arguments(hard)[-5:] == ["image.sif", ENTRYPOINT, *hard]


def test_the_driver_is_bound_only_where_gpus_are_asked_for() -> None:
    assert "--nv" not in PLACE.arguments([])
    assert "--nv" in Container("x.sif", "/a", "/b", gpus=True).arguments([])


def test_more_binds_are_read_only_and_a_site_may_add_flags() -> None:
    words = Container("x.sif", "/a", "/b", binds=(("/h/e.yaml", "/e.yaml"),), flags=("--no-privs",)).arguments([])
    assert "/h/e.yaml:/e.yaml:ro" in words
    assert "--no-privs" in words[: words.index("x.sif")]


def test_singularity_is_told_the_same() -> None:
    assert PLACE.arguments([], program="singularity")[0] == "singularity"
    assert exported({"A": "1,2"}) == {"APPTAINERENV_A": "1,2", "SINGULARITYENV_A": "1,2"}
