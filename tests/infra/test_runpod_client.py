"""Every refusal is one sentence, nothing is asked twice that must not be, and the rate limit is kept."""

import pytest

from infra.runpod import cloud
from infra.runpod.client import MEANINGS, Client, LostAnswerError, RunpodError, connect
from infra.runpod.key import Key
from runpod_state import A100, KEY, FakeRunPod
from trainwright.spec.exits import MissingError, UserError


def fault(status: int, detail: str = "their own words", **headers: str) -> tuple[str, str, int, dict[str, str], dict]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return "GET", "/v2/pods", status, named, {"title": "x", "status": status, "detail": detail}


@pytest.mark.parametrize("status", [400, 402, 403, 405, 409, 413, 422])
def test_every_refusal_is_a_sentence_with_their_words_and_is_not_repeated(
    status: int, fake: FakeRunPod, client: Client
) -> None:
    fake.faults.append(fault(status))
    with pytest.raises(RunpodError) as told:
        cloud.pods(client)
    assert told.value.status == status
    assert str(told.value) == f"GET /v2/pods: {MEANINGS[status]} (their own words)"
    assert len(fake.requests) == 1


def test_a_wrong_key_says_where_it_came_from_and_never_what_it_is(fake: FakeRunPod) -> None:
    client = Client(Key("rpa_secret", "RUNPOD_API_KEY"), fake.url, fake.clock)
    with pytest.raises(MissingError, match=r"does not accept the API key.*it came from RUNPOD_API_KEY") as told:
        cloud.pods(client)
    assert "rpa_secret" not in str(told.value) + repr(Key("rpa_secret", "x"))


def test_too_many_requests_are_repeated_after_the_time_that_is_asked(fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(fault(429, Retry_After="17"))
    assert cloud.pods(client) == []
    assert fake.clock.passed == 17


def test_the_rate_limit_is_kept_without_being_refused(fake: FakeRunPod, client: Client) -> None:
    fake.per_minute = 5
    for _ in range(23):
        cloud.pods(client)
    assert len(fake.requests) == 23
    assert fake.refused == 0
    assert fake.clock.passed >= 180


def test_a_server_error_is_tried_again_where_that_is_safe(fake: FakeRunPod, client: Client) -> None:
    fake.faults.extend([fault(500), fault(503)])
    assert cloud.pods(client) == []
    assert len(fake.requests) == 3


def test_a_server_that_never_recovers_is_one_sentence(fake: FakeRunPod, client: Client) -> None:
    fake.faults.extend([fault(502)] * 5)
    with pytest.raises(MissingError, match="answers with HTTP 502; check the network"):
        cloud.pods(client)


def test_a_create_is_never_repeated_blindly(fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(("POST", "/v2/pods", 500, {}, {"detail": "Something went wrong"}))
    with pytest.raises(LostAnswerError):
        client.ask("POST", "/v2/pods", {"name": "x"})
    assert len(fake.requests) == 1


def test_an_answer_that_is_no_json_is_one_sentence(fake: FakeRunPod, client: Client) -> None:
    fake.faults.append(("GET", "/v2/pods", 302, {"Location": "http://login.invalid"}, "<html>"))
    fake.as_text = True
    with pytest.raises(MissingError, match="answers with HTTP 302 and no JSON; is a proxy or a login page in between"):
        cloud.pods(client)


@pytest.mark.parametrize("carried_out", [True, False])
def test_a_lost_answer_to_an_action_is_looked_into(carried_out: bool, fake: FakeRunPod, client: Client) -> None:
    fake.create({"name": "small", "gpu": {"id": A100, "count": 1}})
    fake.clock.wait(60)
    found = cloud.find_pod(client, "small")
    fake.faults.append(("POST", f"/v2/pods/{found.id}/action", 502, {}, {}))
    if carried_out:
        fake.act(fake.only(), "stop")
        now = cloud.act(client, found, "stop")
        assert now is not None
        assert now.status == "EXITED"
    else:
        with pytest.raises(LostAnswerError, match="get pods` shows it, and try again"):
            cloud.act(client, found, "stop")


def test_nobody_there_is_one_sentence(fake: FakeRunPod) -> None:
    client = Client(Key(KEY, "a test"), "http://127.0.0.1:9", fake.clock)
    with pytest.raises(MissingError, match="cannot be reached"):
        cloud.pods(client)


def test_the_address_may_be_another(fake: FakeRunPod) -> None:
    client = connect({"RUNPOD_API_KEY": KEY, "RUNPOD_API_URL": fake.url}, fake.clock)
    assert cloud.volumes(client)[0].name == "transformer-shared"


def test_what_is_not_there_is_named_with_what_is(client: Client) -> None:
    with pytest.raises(UserError, match="nothing: no such pod; there are none"):
        cloud.find_pod(client, "nothing")
    with pytest.raises(UserError, match=r"volumes there: transformer-shared \(vol1, US-KS-2\)"):
        cloud.find_volume(client, "other")
    with pytest.raises(UserError, match="credentials there: mine"):
        cloud.find_registry(client, "other")
    assert cloud.find_registry(client, "mine") == "reg1"


def test_two_volumes_of_one_name_are_not_guessed_between(fake: FakeRunPod, client: Client) -> None:
    fake.volumes["vol2"] = {**fake.volumes["vol1"], "id": "vol2"}
    with pytest.raises(UserError, match="2 network volumes have this name; give an id"):
        cloud.find_volume(client, "transformer-shared")
    assert cloud.find_volume(client, "vol2").id == "vol2"
