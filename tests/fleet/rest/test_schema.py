"""The OpenAPI document, held against the fleet that serves it: schemathesis speaks to real
listeners with data behind them, in the ways that the document allows and in those it does not."""

from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from fleet.services import alerts, security

EXAMPLES = {GenerationMode.POSITIVE: 3, GenerationMode.NEGATIVE: 2}
# Endless, and what would end the session, the data or the fleet's peace for the examples after.
LEFT_OUT = ["/api/v1/events", "/api/v1/openapi.json"]
ENDING = r"/api/v1/(logout|login.*|time/reset|trust/.*)"
# The server's own answer to what is no HTTP, such as a line that never ends.
# What a selector, a policy or a URL means no schema says; who may come in is tested elsewhere.
NOT_ITS = [positive_data_acceptance, ignored_auth]
NO_HTTP = b"Invalid HTTP request received."
AS_IT_COMES = settings(
    deadline=None, max_examples=3, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def api_schema(shared_fleet: Any, shared_device: Any, kit: Any, tmp_path_factory: Any) -> Any:
    """The document of a fleet with a device, a release, a rollout, a webhook and an alert."""
    fleet = shared_fleet
    folder: Path = tmp_path_factory.mktemp("release")
    kit.write_release(folder)
    fleet.client.push(folder)
    fleet.client.create_rollout("digits", "1.0.0")
    fleet.client.add_webhook("https://hooks.example/fleet")
    security.record(fleet.services, "forged-hello", shared_device.device, "a test")
    alerts.look(fleet.services)
    headers = {"Authorization": f"Bearer {fleet.services.keys.operator_token}"}
    schema = schemathesis.openapi.from_url(
        f"{fleet.operators}/api/v1/openapi.json", headers=headers
    )
    schema.config.headers = headers
    return schema.exclude(path=LEFT_OUT).exclude(path_regex=ENDING)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_operation_answers_as_the_document_says(api_schema: Any, mode: Any) -> None:
    failures: list[str] = []
    for found in api_schema.get_all_operations():
        operation = found.ok()
        try:
            _hold(operation, mode)
        except Unsatisfiable:
            continue  # nothing that the document forbids can be sent to it
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001 -- told together
            failures.append(f"{operation.label}: {_what(error)}")
    assert not failures, "\n\n".join(failures)


def _hold(operation: Any, mode: GenerationMode) -> None:
    @settings(AS_IT_COMES, max_examples=EXAMPLES[mode])
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: Any) -> None:
        answer = case.call()
        if answer.content != NO_HTTP:
            case.validate_response(answer, excluded_checks=NOT_ITS)

    holds()


def _what(error: BaseException) -> str:
    inner = getattr(error, "exceptions", None)
    return "; ".join(map(_what, inner)) if inner else str(error)[:1500]


def test_what_one_operation_makes_the_others_know(api_schema: Any) -> None:
    """Chains of operations, by the links that the document lets one infer."""

    class Chains(api_schema.as_state_machine()):  # type: ignore[misc]
        def validate_response(self, response: Any, case: Any, **_given: Any) -> None:
            if response.content != NO_HTTP:
                case.validate_response(response, excluded_checks=NOT_ITS)

    Chains.run(settings=settings(AS_IT_COMES, stateful_step_count=8))
