"""How a run of the simulator reads: one line while it lasts, a few at its end."""

from fleet.simulator.tally import Summary

_ORDER = ("resolving", "downloading", "verifying", "testing", "trial", "committed", "refused",
          "rolled_back")  # fmt: skip


def progress_text(summary: Summary) -> str:
    """One line: who is there, and how many devices stand where in an update."""
    if summary.enrolled < summary.devices:
        return f"{summary.enrolled} of {summary.devices} devices enrolled"
    phases = [f"{n} {name}" for name in _ORDER if (n := summary.phases.get(name))]
    megabytes = summary.downloaded_bytes / 1e6
    return (
        f"{summary.connected} of {summary.devices} connected"
        + (f"; {', '.join(phases)}" if phases else "")
        + (f"; {megabytes:,.0f} MB downloaded" if megabytes else "")
    )


def summary_text(summary: Summary) -> str:
    """What became of the run."""
    lines = [
        progress_text(summary),
        f"ran {summary.seconds:.0f} s, {summary.rss_bytes >> 20} MB of memory",
        f"desired states: {summary.desired_accepted} accepted, {summary.desired_refused} refused",
        f"updates: {summary.updates} begun, {summary.downloads} files downloaded",
        (
            f"records: {summary.acknowledged} acknowledged, {summary.waiting_records} wait, "
            f"{summary.dropped_records} dropped, in {summary.messages_sent} messages"
        ),
        f"HTTPS: {summary.http_requests} requests on {summary.http_connections} connections",
    ]
    lines += [f"runs {name}: {n} devices" for name, n in sorted(summary.running.items())]
    if summary.faults:
        told = ", ".join(f"{n} {name}" for name, n in sorted(summary.faults.items()))
        lines.append(f"faults: {told}")
    lines += [f"{n} x {sentence}" for sentence, n in summary.errors.items()]
    return "\n".join(lines)
