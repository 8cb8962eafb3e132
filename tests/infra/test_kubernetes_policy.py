"""What a cluster does when boot ends, worked out from the rendered documents as its controllers work it out.

The two functions that judge follow the Job controller's and JobSet's own published rules, words included.
"""

from dataclasses import dataclass
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from infra.kubernetes.documents import train
from infra.kubernetes.sweeps import sweep_files
from recorder import a_job
from trainwright.spec.exits import Exit
from trainwright.spec.experiment import Resources
from trainwright.spec.kubernetes import KubernetesTarget
from trainwright.spec.targets import Targets

import yaml

TARGETS = Targets(kubernetes=KubernetesTarget(secret="mine", max_failures=5))
ONE = train(a_job(targets=TARGETS))
MANY = train(a_job(targets=TARGETS, resources=Resources(nodes=2, ranks_per_node=8)))
NODE = MANY["spec"]["replicatedJobs"][0]["template"]["spec"]
CRASHES = (1, 2, 64, 134, 137, 139, 255)


@dataclass(frozen=True)
class Ended:
    """A pod that has come to its end."""

    code: int
    disrupted: bool = False


def job_judges(spec: dict[str, Any], pod: Ended) -> tuple[str, str]:
    """Return what the Job controller does with a failed pod, and the message of a Job that fails by a rule."""
    for index, rule in enumerate(spec["podFailurePolicy"]["rules"]):
        codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions", [])
        if codes is not None and codes["operator"] == "In" and pod.code in codes["values"]:
            assert codes["containerName"] in [one["name"] for one in spec["template"]["spec"]["containers"]]
            what = f"Container {codes['containerName']} for pod ns/x failed with exit code {pod.code}"
            return rule["action"], f"{what} matching {rule['action']} rule at index {index}"
        if pod.disrupted and {"type": "DisruptionTarget", "status": "True"} in conditions:
            return rule["action"], f"Pod ns/x has condition DisruptionTarget matching FailJob rule at index {index}"
    return "Count", ""


def set_judges(pod: Ended, spec: dict[str, Any] = MANY["spec"]) -> str:
    """Return what JobSet does after one of its pods has failed."""
    action, message = job_judges(NODE, pod)
    assert action in ("FailJob", "Count")
    # With a backoffLimit of 0 the first pod that counts fails the Job too.
    assert NODE["backoffLimit"] == 0
    return rule_of_set(spec, "PodFailurePolicy" if action == "FailJob" else "BackoffLimitExceeded", message)


def rule_of_set(spec: dict[str, Any], reason: str, message: str) -> str:
    for rule in spec["failurePolicy"]["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [])
        fits = not patterns or any(re.search(pattern, message) for pattern in patterns)
        if reason in rule.get("onJobFailureReasons", [reason]) and fits:
            return str(rule["action"])
    return "RestartJobSet"


@pytest.mark.parametrize("code", [Exit.MISSING, Exit.REFUSED])
@pytest.mark.parametrize("disrupted", [False, True])
def test_what_running_again_does_not_mend_stops_for_good_on_the_first_pod(code: int, disrupted: bool) -> None:
    assert job_judges(ONE["spec"], Ended(code, disrupted))[0] == "FailJob"
    assert set_judges(Ended(code, disrupted)) == "FailJobSet"


@pytest.mark.parametrize("pod", [Ended(75), Ended(75, disrupted=True), Ended(137, disrupted=True), Ended(1, True)])
def test_an_interruption_and_a_disruption_start_again_and_count_nothing(pod: Ended) -> None:
    assert job_judges(ONE["spec"], pod)[0] == "Ignore"
    assert set_judges(pod) == "RestartJobSetAndIgnoreMaxRestarts"


@pytest.mark.parametrize("code", CRASHES)
def test_a_crash_counts_against_the_limit(code: int) -> None:
    assert job_judges(ONE["spec"], Ended(code))[0] == "Count"
    assert ONE["spec"]["backoffLimit"] == 5
    assert set_judges(Ended(code)) == "RestartJobSet"
    assert MANY["spec"]["failurePolicy"]["maxRestarts"] == 5


@given(st.integers(1, 255), st.booleans())
def test_a_job_and_a_set_do_the_same_with_every_end(code: int, disrupted: bool) -> None:
    same = {"FailJob": "FailJobSet", "Ignore": "RestartJobSetAndIgnoreMaxRestarts", "Count": "RestartJobSet"}
    assert set_judges(Ended(code, disrupted)) == same[job_judges(ONE["spec"], Ended(code, disrupted))[0]]


def test_words_that_kubernetes_may_change_one_day_cannot_make_a_run_start_for_ever() -> None:
    for message in ("", "container ended (78)", "something else"):
        assert rule_of_set(MANY["spec"], "PodFailurePolicy", message) == "RestartJobSet"


def test_the_end_of_its_time_is_no_failure_to_be_tried_again() -> None:
    told = "Job was active longer than specified deadline"
    assert rule_of_set(MANY["spec"], "DeadlineExceeded", told) == "FailJobSet"


def test_a_code_is_not_found_in_another_number_nor_in_a_name() -> None:
    text = "Container boot for pod ns/exit-code-78-node-0-1 failed with exit code {} matching FailJob rule at index 1"
    assert rule_of_set(MANY["spec"], "PodFailurePolicy", text.format(75)) == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule_of_set(MANY["spec"], "PodFailurePolicy", text.format(178)) == "RestartJobSet"


def test_no_pod_restarts_by_itself_and_none_is_doubled() -> None:
    for spec in (ONE["spec"], NODE):
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        assert spec["podReplacementPolicy"] == "Failed"
    assert MANY["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


def test_a_point_of_a_sweep_that_ends_for_good_leaves_the_others_alone() -> None:
    jobs = [a_job(name=f"small-{number}", targets=TARGETS, flags=()) for number in (1, 2, 3)]
    spec = yaml.safe_load(sweep_files(jobs, "small-sweep", 2)[-1].text)["spec"]
    assert {code: job_judges(spec, Ended(code))[0] for code in (1, 69, 75, 78)} == {
        1: "Count",
        69: "FailIndex",
        75: "Ignore",
        78: "FailIndex",
    }
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (5, 3)
    assert "backoffLimit" not in spec
