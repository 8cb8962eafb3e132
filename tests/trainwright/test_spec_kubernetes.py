from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
import pytest
import yaml

from trainwright.spec.kubernetes import TOLERATION, KubernetesTarget

SITES = Path(__file__).resolve().parents[2] / "experiments/sites"


def problems(**settings: Any) -> list[str]:
    return [problem.path for problem in KubernetesTarget.model_validate(settings).problems()]


@pytest.mark.parametrize(
    ("settings", "path"),
    [
        ({"gpu": "h200", "gpu_types": "h100=x,a100=y", "gpu_label": "l"}, "gpu"),
        ({"gpu_types": "h100=x"}, "gpu_label"),
        ({"gpu_types": ["h100"], "gpu_label": "l"}, "gpu_types"),
        ({"node_selector": "zone"}, "node_selector"),
        ({"tolerations": "a:Sometimes"}, "tolerations"),
        ({"fabric_devices": "rdma/ib=many"}, "fabric_devices"),
        ({"fabric_variables": "lower=1"}, "fabric_variables"),
    ],
)
def test_what_does_not_fit_together_is_named(settings: dict[str, Any], path: str) -> None:
    assert problems(**settings) == [path]


def test_lists_may_be_written_in_one_word() -> None:
    found = KubernetesTarget.model_validate({"node_selector": "a=b, c=d"})
    assert found.node_selector == ("a=b", "c=d")
    assert KubernetesTarget.model_validate({"tolerations": ""}).tolerations == ()


@pytest.mark.parametrize("field", ["namespace", "volume", "secret", "service_account", "queue"])
@given(name=st.text(max_size=60))
def test_no_name_reaches_a_manifest_that_is_none_in_a_cluster(field: str, name: str) -> None:
    try:
        found = getattr(KubernetesTarget.model_validate({field: name}), field)
    except ValidationError:
        return
    assert found is None or (0 < len(found) <= 52 and found.replace("-", "").isalnum() and found == found.lower())


@given(st.from_regex(TOLERATION, fullmatch=True))
def test_whatever_is_read_as_a_toleration_has_a_key(word: str) -> None:
    found = TOLERATION.fullmatch(word)
    assert found is not None
    assert found["key"]
    assert found["effect"] in (None, "NoSchedule", "PreferNoSchedule", "NoExecute")


def test_every_profile_is_sound_and_says_what_nobody_could_verify() -> None:
    found = []
    for path in sorted(SITES.glob("*.yaml")):
        block = yaml.safe_load(path.read_text()).get("kubernetes")
        if block is None:
            continue
        found.append(path.stem)
        assert problems(**block) == []
        assert "NOT VERIFIED" in path.read_text()
        assert {"h100", "h200", "b200"} <= {word.split("=")[0] for word in block["gpu_types"]}
    assert found == ["coreweave", "eks", "gke", "gpu-operator"]
