"""Put brokers to the contract: `python -m benchmarks.broker_contract [--json] [CANDIDATE ...]`.

Without names: Mosquitto (the reference), edgeml's own, iotcore, amqtt and moat-lib-mqtt. The last
needs libraries that edgeml cannot have beside it, so `EDGEML_MOAT_PYTHON` names the interpreter of
a virtual environment of its own:

    python -m venv FOLDER && FOLDER/bin/pip install moat-lib-mqtt
    EDGEML_MOAT_PYTHON=FOLDER/bin/python python -m benchmarks.broker_contract

Exit status 1 when Mosquitto or edgeml's own fails a line that is essential (the others have a star
in the table); 2 when a candidate does not start, which says nothing about it: it is left out of
the table.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.broker_contract import hostile, lines
from benchmarks.broker_contract.candidates import CANDIDATES, NotStartedError
from benchmarks.broker_contract.lines import Line, Seen

CONTRACT: tuple[Line, ...] = (
    Line(lines.connects),
    Line(lines.qos1_both_ways),
    Line(lines.wrong_password_is_refused),
    Line(lines.accounts_change_without_restart),
    Line(lines.publish_below_own_id_only),
    Line(lines.subscribe_below_own_id_only),
    Line(lines.will_below_own_id_only),
    Line(lines.foreign_client_id_is_refused),
    Line(lines.own_takeover),
    Line(lines.will_on_a_cut),
    Line(lines.retained_presence),
    Line(lines.redelivers),
    Line(lines.queues_offline, essential=False),
    Line(lines.sustains_1000_a_second, figure=True),
    Line(lines.memory_stays, figure=True),
    Line(hostile.survives_malformed_packets),
    Line(hostile.refuses_oversize_packets, figure=True),
    Line(hostile.survives_slowloris, essential=False, figure=True),
    Line(lines.listens_on_loopback),
    Line(lines.stops_cleanly, figure=True),
)


def hold(name: str, line: Line) -> Seen:
    """Run one line against a fresh broker."""
    with tempfile.TemporaryDirectory() as folder:
        broker = CANDIDATES[name](Path(folder))
        try:
            broker.start()
            return line.run(broker)
        except NotStartedError:
            raise
        except Exception as error:  # noqa: BLE001 -- a candidate may break in any way
            return Seen(False, f"{type(error).__name__}: {error}"[:200])
        finally:
            if broker.process is not None:
                broker.stop()


def shown(name: str, line: Line) -> Seen:
    """Run one line, and say at once what came of it."""
    result = hold(name, line)
    print(f"{name}: {line.name}: {result}", file=sys.stderr, flush=True)
    return result


def table(seen: dict[str, dict[str, Seen]], chosen: list[Line]) -> str:
    """Return the Markdown table."""
    names = list(seen)
    rows = [f"| line | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for line in chosen:
        cells = []
        for name in names:
            result = seen[name][line.name]
            detail = "" if result.holds and not line.figure else result.detail
            cells.append(("yes" if result.holds else "**no**") + (f" ({detail})" if detail else ""))
        star = "" if line.essential else " *"
        rows.append(f"| {line.text}{star} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    """Run the contract and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("candidates", nargs="*", choices=[*CANDIDATES, []], default=[])
    parser.add_argument("--line", action="append", help="only lines whose name contains this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chosen = [
        line for line in CONTRACT if not given.line or any(part in line.name for part in given.line)
    ]
    seen: dict[str, dict[str, Seen]] = {}
    absent = []
    for name in given.candidates or list(CANDIDATES):
        try:
            seen[name] = {line.name: shown(name, line) for line in chosen}
        except NotStartedError as error:
            absent.append(name)
            print(f"{name} did not start and was not measured: {error}", file=sys.stderr)
    if given.json:
        print(
            json.dumps(
                {
                    name: {
                        key: {"holds": s.holds, "detail": s.detail} for key, s in results.items()
                    }
                    for name, results in seen.items()
                }
            )
        )
    elif seen:
        print(table(seen, chosen))
    if absent:
        return 2
    return int(
        any(
            not seen[name][line.name].holds
            for name in ("mosquitto", "edgeml")
            if name in seen
            for line in chosen
            if line.essential
        )
    )


if __name__ == "__main__":
    sys.exit(main())
