"""The demo's story: every step is a command that a user would type, run for real.

Agents in processes of their own watch conveyor belts, one of them on a simulated FPGA. Release
1.0.0 goes out in waves; 1.1.0, whose pipeline scales its input twice, installs cleanly and is
stopped in the canary wave by what it does there; 1.2.0 goes out. Each promise is checked against
what the fleet's API, the agents' result files and the belts' ground truth say.
"""

import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgeml.demo import fpga
from edgeml.demo.children import Children
from edgeml.demo.commands import POLL_S, Commands
from edgeml.demo.console import Console
from edgeml.demo.narrator import Narrator
from edgeml.demo.promises import Ledger
from edgeml.demo.setting import CAMERAS, Camera, Ports, check_ports, find_examples, prepare_folder
from edgeml.demo.truth import Reading, readings
from edgeml.errors import DeviceError, RemoteError
from fleet.client import FleetClient

MODEL = "digits"
ROLLOUT_TIMEOUT_S = 240.0
GOOD_RELEASES = ("1.0.0", "1.2.0")
MIN_READ = 20
MIN_RIGHT = 0.8
_WORDS = {3: "three", 4: "four"}

POLICY = """\
soak_s = 6
on_failure = "rollback"

[[waves]]
count = 1

[[waves]]
percent = 100

[trial]
soak_s = 5
min_inferred = 40
timeout_s = 60
"""


def tell(folder: Path, ports: Ports, *, once: bool, browser: bool = False) -> bool:
    """Tell the story in `folder` and return whether every promise held.

    Without `once` the fleet and the agents keep running after the story until Ctrl-C. With
    `browser` the console is opened as soon as the fleet is there.
    """
    examples = find_examples()
    check_ports(ports)
    without_fpga = fpga.left_out()
    prepare_folder(folder)
    narrator = Narrator()
    ledger = Ledger(narrator)
    environment = {
        "EDGEML_FLEET": f"http://127.0.0.1:{ports.console}",
        "EDGEML_FLEET_DATA": str(folder / "fleet"),
    }
    began = time.monotonic()
    with Children(folder / "logs", environment) as children:
        console = Console(f"http://127.0.0.1:{ports.console}", narrator, opens=browser)
        story = Story(
            folder, examples, ports,
            children=children, narrator=narrator, ledger=ledger, console=console,
            without_fpga=without_fpga,
        )  # fmt: skip
        story.run()
        summary = folder / "summary.json"
        ledger.write(
            summary,
            seconds=round(time.monotonic() - began, 1),
            version=version("edgeml"),
            simulated_fpga=story.simulated_fpga,
        )
        narrator.chapter("The end")
        narrator.say(f"Summary: {summary}")
        if not once:
            narrator.say("Fleet and agents keep running. Ctrl-C ends them.")
            console.recall(story.login_link)
            while True:
                children.check()
                time.sleep(1)
    return ledger.all_held


class Story:
    """The acts in their order; each notes the promises that it can judge."""

    def __init__(
        self,
        folder: Path,
        examples: Path,
        ports: Ports,
        *,
        children: Children,
        narrator: Narrator,
        ledger: Ledger,
        console: Console,
        without_fpga: str = "",
    ) -> None:
        self._console = console
        self._without_fpga = without_fpga
        self._cameras = CAMERAS if without_fpga else (*CAMERAS, fpga.CAMERA)
        self._variants: dict[str, Any] = {}
        self._ran_on_fpga: list[fpga.Ran] = []
        self._folder = folder
        self._examples = examples
        self._ports = ports
        self._children = children
        self._do = Commands(folder, examples, children, narrator)
        self._tell = narrator
        self._ledger = ledger
        self._fleet: FleetClient | None = None

    def run(self) -> None:
        """All acts."""
        self._data()
        self._convert("1.0.0", "digits.onnx", "pipeline.toml", *self._gateware)
        self._start_fleet()
        self._start_agents()
        self._good_rollout("1.0.0")
        self._convert("1.1.0", "digits.onnx", "pipeline-wrong.toml")
        self._bad_rollout("1.1.0")
        self._convert("1.2.0", "digits-v2.onnx", "pipeline.toml", *self._gateware)
        self._good_rollout("1.2.0")
        self._judge()

    def _data(self) -> None:
        self._tell.chapter(f"A model, its data, {_WORDS[len(self._cameras)]} cameras")
        self._tell.say(
            "The model reads handwritten digits. Its data and the belts' digits are real and "
            "held out; the belts are videos that the agents decode like any other."
        )
        if self._without_fpga:
            self._tell.say(
                f"The fourth camera is left out, whose model runs on a simulated FPGA: "
                f"{self._without_fpga} (Debian: apt-get install verilator g++)."
            )
        self._do.script("make_data", "--out", str(self._folder / "data"))
        for camera in self._cameras:
            self._tell.progress(f"rendering the belt of {camera.device}")
            self._do.script(
                "belt",
                *("--out", str(self._belt(camera))),
                *("--light", str(camera.light)),
                *("--noise", str(camera.noise)),
                *("--seed", str(camera.seed)),
            )
        self._tell.good(f"data and {len(self._cameras)} belts in {self._folder}")

    @property
    def _gateware(self) -> tuple[str, ...]:
        return () if self._without_fpga else fpga.CONVERT

    def _convert(self, release: str, model: str, pipeline: str, *more: str) -> None:
        self._tell.chapter(f"Convert {MODEL}:{release}")
        result = self._do.edgeml(
            "convert",
            str(self._examples / model),
            *("--pipeline", str(self._examples / pipeline)),
            *("--calibration", str(self._folder / "data" / "calibration.npz")),
            *("--evaluate", str(self._folder / "data" / "evaluation.npz")),
            *("--target", "cpu", *more, "--name", MODEL, "--version", release),
            *("--out", str(self._release(release))),
        )
        self._variants[release] = result["variants"]
        for variant in result["variants"]:
            gates = ", ".join(
                f"{gate['name']} {gate['result']} ({_number(gate['value'])})"
                for gate in variant["gates"]
            )
            self._tell.good(
                f"{variant['target']} {variant['precision']} on {variant['runtime']}, "
                f"{variant['bytes']} bytes, "
                f"{variant['verification']}: {gates or 'the reference'}"
            )
        for warning in result["warnings"]:
            self._tell.say(f"convert warns: {warning}")
        if result.get("float_kept_because"):
            self._tell.say(f"Float was kept: {result['float_kept_because']}")

    def _start_fleet(self) -> None:
        self._tell.chapter("Start the fleet")
        arguments = [
            "fleet",
            "up",
            *("--data", str(self._folder / "fleet")),
            *("--port", str(self._ports.console)),
            *("--device-port", str(self._ports.devices)),
            *("--mqtt-port", str(self._ports.mqtt)),
        ]
        self._tell.command(arguments)
        self._children.start("fleet", arguments)
        self._do.wait("the fleet to answer", self._fleet_answers)
        self._tell.good("one process: registry, MQTT broker, REST API and console")
        self._console.invite(self.login_link)

    def _fleet_answers(self) -> bool:
        token = self._folder / "fleet" / "operator.token"
        if not token.is_file():
            return False
        try:
            fleet = FleetClient(
                f"http://127.0.0.1:{self._ports.console}", token.read_text().strip()
            )
            fleet.health()
        except RemoteError:
            return False
        self._fleet = fleet
        return True

    def _start_agents(self) -> None:
        self._tell.chapter(f"Enrol {_WORDS[len(self._cameras)]} devices")
        for camera in self._cameras:
            token = self._do.edgeml(
                "fleet", "enroll", camera.device, "--label", f"site={camera.site}"
            )
            data = self._folder / camera.device
            self._do.edgeml(
                "agent",
                "enroll",
                *("--device", camera.device),
                *("--fleet", f"http://127.0.0.1:{self._ports.devices}"),
                *("--token", token["token"], "--data", str(data)),
            )
            self._do.edgeml("devices", "configure", camera.device, str(self._configuration(camera)))
            arguments = ["agent", "run", "--config", str(data / "agent.toml")]
            self._tell.command(arguments, camera.environment)
            self._children.start(camera.device, arguments, camera.environment)
        self._do.wait("the devices to say hello", self._all_online)
        self._tell.good("each agent is a process with a key and a certificate of its own")
        self._console.devices()
        if not self._without_fpga:
            self._tell.say(
                f"{fpga.CAMERA.device} is a simulated FPGA: its agent talks to the gateware as it "
                "does over a board's cable, and the gateware runs in Verilator."
            )
            self._console.simulated(fpga.CAMERA.device)

    def _all_online(self) -> bool:
        return all(device["online"] and device["capabilities"] for device in self._client.devices())

    def _configuration(self, camera: Camera) -> Path:
        path = self._folder / f"{camera.device}.toml"
        path.write_text(
            "telemetry_every_s = 2.0\n\n[[sources]]\n"
            f'name = "belt"\nuri = "{self._belt(camera).as_uri()}"\nmodel = "{MODEL}"\n'
            "loop = true\n" + (f"fps = {camera.fps:g}\n" if camera.fps else "")
        )
        return path

    def _good_rollout(self, release: str) -> None:
        self._tell.chapter(f"Roll out {MODEL}:{release}")
        rollout = self._create_rollout(release)
        self._console.rollout(MODEL, release, rollout)
        ended = self._follow(rollout)
        self._tell.say(ended["sentence"])
        done = sum(device["phase"] == "committed" for device in ended["devices"])
        self._ledger.note(
            f"{release} reached every device through its waves",
            held=ended["status"] == "completed" and done == len(self._cameras),
            numbers=f"{done} of {len(self._cameras)} committed, the rollout is {ended['status']}",
        )
        stages = self._stages(rollout)
        self._ledger.note(
            f"every device proved {release} before it went live, and live",
            held=all({"test", "trial"} <= stages.get(c.device, set()) for c in self._cameras),
            numbers="; ".join(
                f"{c.device}: {', '.join(sorted(stages.get(c.device, set()))) or 'nothing'}"
                for c in self._cameras
            ),
        )
        if not self._without_fpga:
            self._judge_fpga(release, rollout)

    def _judge_fpga(self, release: str, rollout: str) -> None:
        found = fpga.ran(release, self._variants[release], self._client.evidence(rollout=rollout))
        self._ran_on_fpga += [found] if found else []
        self._ledger.note(
            f"{fpga.CAMERA.device} ran {release} as gateware, bit for bit the integer model",
            held=found is not None and found.bit_exact,
            numbers=str(found or "nothing was proven on the gateware"),
        )

    @property
    def simulated_fpga(self) -> dict[str, object]:
        """What the simulated FPGA ran, or why there was none, for the summary."""
        return fpga.summary(self._ran_on_fpga, self._without_fpga)

    def _bad_rollout(self, release: str) -> None:
        self._tell.chapter(f"Try {MODEL}:{release}, which is bad in a way that installs cleanly")
        self._tell.say(
            "Its pipeline scales the image by 1/255 twice. The warning above was not read: the "
            "release loads, answers and matches its own recorded outputs, and is as wrong in "
            "int8 as in float32. What it does with live frames is another matter."
        )
        rollout = self._create_rollout(release)
        self._console.rollout(MODEL, release, rollout)
        ended = self._follow(rollout)
        self._tell.say(ended["sentence"])
        touched = [d["device"] for d in ended["devices"] if d["assigned_at"] is not None]
        self._ledger.note(
            f"the fleet halted {release} in the canary wave and says why, in numbers",
            held=ended["status"] == "halted"
            and ended["wave"] == 1
            and "confident" in ended["sentence"],
            numbers="; ".join(
                f"{d['device']} {d['reason']}" for d in ended["devices"] if d["reason"]
            )
            or ended["sentence"],
        )
        self._ledger.note(
            f"only the canary ever had {release}",
            held=len(touched) == 1,
            numbers=", ".join(touched) or "none",
        )
        self._console.halted(rollout, touched[0] if touched else "")
        self._do.wait("the canary to run 1.0.0 again", lambda: self._all_run("1.0.0"))
        self._ledger.note(
            "the canary took itself back",
            held=self._all_run("1.0.0"),
            numbers=self._running_versions(),
        )

    def _create_rollout(self, release: str) -> str:
        self._do.edgeml("releases", "push", str(self._release(release)))
        policy = self._folder / "policy.toml"
        policy.write_text(POLICY)
        created = self._do.edgeml(
            "rollout", "create", f"{MODEL}:{release}", "--policy", str(policy)
        )
        return str(created["id"])

    def _follow(self, rollout: str) -> Any:
        """Tell how a rollout goes until it has ended."""
        deadline = time.monotonic() + ROLLOUT_TIMEOUT_S
        while True:
            self._children.check()
            now = self._client.rollout(rollout)
            if now["status"] not in {"running", "paused"}:
                return now
            self._tell.progress(now["sentence"])
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"The rollout did not end within {ROLLOUT_TIMEOUT_S:.0f} s.",
                    why=now["sentence"],
                    fix=f"Look at the logs in {self._folder / 'logs'}.",
                )
            time.sleep(POLL_S)

    def _judge(self) -> None:
        self._tell.chapter("What the belts' ground truth says")
        for camera in self._cameras:
            found = readings(
                self._folder / camera.device / "results.jsonl",
                self._belt(camera).with_suffix(".json"),
            )
            self._tell.say(
                f"{camera.device}: "
                + ", ".join(
                    f"{r.release_version} read {r.accuracy:.0%} of {r.read} rightly"
                    for r in found.values()
                )
            )
            self._judge_camera(camera, found)
        self._console.measured(MODEL, "1.0.0", "1.2.0")
        self._frames_add_up()
        length = self._client.verify_audit()
        self._ledger.note(
            "the audit log's chain is whole", held=length > 0, numbers=f"{length} entries"
        )

    def _judge_camera(self, camera: Camera, found: dict[str, Reading]) -> None:
        good = [r for v, r in found.items() if v != "1.1.0" and r.read >= MIN_READ]
        bad = found.get("1.1.0")
        held = len(good) == len(GOOD_RELEASES) and all(r.accuracy > MIN_RIGHT for r in good)
        if bad is not None:
            held = held and bad.accuracy < min(r.accuracy for r in good)
        self._ledger.note(
            f"{camera.device}'s good releases read more than {MIN_RIGHT:.0%} of the belt rightly",
            held=held,
            numbers=", ".join(f"{r.release_version} {r.accuracy:.1%}" for r in found.values()),
        )

    def _frames_add_up(self) -> None:
        """No frame is lost by a swap: what was accepted was inferred, empty, failed or replaced."""
        totals = dict.fromkeys(("accepted", "inferred", "empty", "errors", "replaced"), 0)
        for camera in self._cameras:
            for window in self._client.telemetry(device=camera.device, limit=1000):
                for name in totals:
                    totals[name] += window["window"][name]
        lost = totals["accepted"] - sum(n for name, n in totals.items() if name != "accepted")
        self._ledger.note(
            "no frame was lost by the swaps",
            # One frame a device may be in flight when the last window closes.
            held=totals["accepted"] > 0 and abs(lost) <= len(self._cameras),
            numbers=", ".join(f"{name} {n}" for name, n in totals.items()),
        )

    def login_link(self) -> str:
        """A link to the console that logs in once."""
        return self._client.login_link()["url"]

    @property
    def _client(self) -> FleetClient:
        if self._fleet is None:
            raise RemoteError("The fleet has not been started.")
        return self._fleet

    def _stages(self, rollout: str) -> dict[str, set[str]]:
        stages: dict[str, set[str]] = {}
        for record in self._client.evidence(rollout=rollout):
            stages.setdefault(record["device"], set()).add(record["stage"])
        return stages

    def _all_run(self, release: str) -> bool:
        return all(version == release for version in self._versions().values())

    def _running_versions(self) -> str:
        return ", ".join(
            f"{device} runs {v or 'nothing'}" for device, v in self._versions().items()
        )

    def _versions(self) -> dict[str, str]:
        found = {}
        for device in self._client.devices():
            reported = device["reported"] or {}
            model = reported.get("models", {}).get(MODEL, {})
            found[device["device"]] = model.get("running_version", "")
        return found

    def _belt(self, camera: Camera) -> Path:
        return self._folder / f"{camera.device}-belt.mp4"

    def _release(self, version: str) -> Path:
        return self._folder / f"{MODEL}-{version}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
