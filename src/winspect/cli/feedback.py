"""Say of a judged picture whether it was good or defective.

Say of a judged picture whether it was good or defective, by the id or path of its row; show what to look at next; join
good pictures to a calibration; check the audit log. DIR is the --out of `winspect watch`, which may run meanwhile, or
the --data of a service (docs/line.md).

exit codes: 0 done; 1 the picture has an answer already, the audit log was cut or altered, or the pictures contradict
the calibration; 2 usage error, as an unknown picture
"""

from __future__ import annotations

import argparse
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from winspect.cli.common import Exit, print_result, print_table, shown
from winspect.cli.options import add_option, add_options
from winspect.errors import AlreadyJudgedError, SettingsError
from winspect.system.files import make_folder
from winspect.system.terminal import printable, say, show

if TYPE_CHECKING:
    from winspect.feedback.feedback import Feedback
    from winspect.feedback.pool import Recalibration

_ANSWERS = ("good", "defective", "undo")


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_option(parser, "folder", "DIR", "results of a watch, or data of a service")
    parser.add_argument("picture", metavar="ID|PICTURE", nargs="?", help="the id of a row, or the path of its picture")
    parser.add_argument("answer", choices=_ANSWERS, nargs="?", help="what it was; undo takes back what was said of it")
    answers = parser.add_argument_group("answers")
    answers.add_argument("--by", metavar="NAME", help="who says so")
    answers.add_argument("--note", metavar="TEXT", help="written into the audit log, too")
    samples = "with good: also copy the picture to the good samples in DIR, for --reference; calibrate again after it"
    add_option(answers, "--to-references", "DIR", samples)
    asked = parser.add_argument_group("questions")
    add_option(asked, "--queue", None, "the pictures to look at, the most doubtful first")
    add_option(asked, "--most", "N", "of the queue (default: 20)", default=20)
    add_option(asked, "--pool", None, "paths of the good pictures that join a calibration, one a line")
    add_option(asked, "--verify", None, "check the audit log; names lines that were cut, altered, removed or inserted")
    asked.add_argument("--head", metavar="SHA256", help="with --verify: a hash of an earlier check must be in it")
    asked.add_argument("--class", dest="category_name", metavar="NAME", help="of this class alone (default: all)")
    pool = parser.add_argument_group("calibration")
    add_option(pool, "--recalibrate", "FILE", "join the good pictures of the audit sample to this calibration")
    add_option(pool, "--out", "FILE", "where the new calibration goes")
    chosen = "also join other good pictures above the threshold: it can only rise, which costs detections"
    pool.add_argument("--raise", dest="also_raise", action="store_true", help=chosen)
    add_option(pool, "--fresh", None, "of the audit sample alone, where the line has changed")
    add_options(parser, "--json")


def run(args: argparse.Namespace) -> int:
    """Do what was asked; returns the exit code."""
    _check_options(args)
    if args.verify:
        return _verify(args)
    from winspect.feedback.feedback import Feedback

    feedback = Feedback(args.folder)
    feedback.check_is_there()
    if args.recalibrate is not None:
        return _recalibrate(args, feedback)
    if args.picture is not None:
        return _answer(args, feedback)
    if args.queue:
        _show_queue(args, feedback)
    elif args.pool:
        _show_pool(args, feedback)
    else:
        _show_summary(args, feedback)
    return Exit.DONE


def _check_options(args: argparse.Namespace) -> None:
    asked = [name for name in ("queue", "pool", "verify", "recalibrate") if getattr(args, name)]
    asked += ["ID|PICTURE"] if args.picture is not None else []
    if len(asked) > 1:
        raise SettingsError(f"got {' and '.join(asked)}: ask for one of them at a time")
    if args.picture is not None and args.answer is None:
        raise SettingsError(f"{args.picture}: say what it was: good, defective, or undo")
    if args.to_references is not None and args.answer != "good":
        raise SettingsError("--to-references is for a picture that was good; say good, or leave it out")
    if (args.recalibrate is None) != (args.out is None):
        raise SettingsError("--recalibrate FILE and --out FILE belong together: name both")
    if args.recalibrate is None and (args.also_raise or args.fresh):
        raise SettingsError("--raise and --fresh are for --recalibrate; leave them out")
    if args.also_raise and args.fresh:
        raise SettingsError("--raise and --fresh: what was chosen joins the calibration that is there; leave one out")
    if args.head is not None and not args.verify:
        raise SettingsError("--head is for --verify; leave it out")
    if args.most < 1:
        raise SettingsError(f"--most: got {args.most}, need 1 or more")


def _verify(args: argparse.Namespace) -> int:
    from winspect.feedback.verifying import verify

    found = verify(args.folder, head=args.head)
    document = {
        **{"files": found.files, "lines": found.lines, "first": found.first, "head": found.head._asdict()},
        "problems": [vars(problem) for problem in found.problems],
    }

    def show_text() -> None:
        for problem in found.problems:
            show(problem.message)
        state = "holds" if not found.problems else "does NOT hold"
        show(f"{found.lines} lines in {found.files} files, from {found.first} on: the chain {state}")
        show(f"last line: {found.head.n}, sha256 {found.head.sha256}")

    print_result(args, document, show_text)
    return Exit.CHECK_FAILED if found.problems else Exit.DONE


def _answer(args: argparse.Namespace, feedback: Feedback) -> int:
    from winspect.feedback.samples import add_sample, content_of, remove_sample

    picture = feedback.picture(args.picture)
    document: dict[str, Any] = {**picture.document(), "error": None}
    try:
        if args.answer == "undo":
            feedback.undo(picture.id, by=args.by)
            removed = remove_sample(feedback, picture, by=args.by)
            document |= {"answer": None, "removed": None if removed is None else str(removed)}
            words = "nobody has judged it now" + (f"; {removed} is no good sample any more" if removed else "")
        else:
            if args.to_references is not None:  # nothing is written where this cannot be done
                with feedback.records() as records:
                    records.check_reference(picture)
                content_of(picture)
            answer = feedback.judge(picture.id, args.answer, by=args.by, note=args.note)
            document |= answer.document()
            words = f"{answer.answer}, as {answer.by or 'somebody'} said"
            if args.to_references is not None:
                place = add_sample(feedback, picture, args.to_references, by=args.by)
                document["reference"] = str(place)
                words += f"; a good sample in {place}: calibrate again, with --reference {args.to_references}"
    except AlreadyJudgedError as error:
        document["error"] = {"type": type(error).__name__, "message": str(error)}
        message = f"error: {error}"
        print_result(args, document, lambda: say(message))
        return Exit.CHECK_FAILED
    print_result(args, document, lambda: show(f"{picture.path} ({picture.id}): {words}"))
    return Exit.DONE


def _show_queue(args: argparse.Namespace, feedback: Feedback) -> None:
    queue = feedback.queue(class_name=args.category_name, most=args.most)
    rows = [
        (picture.id, queued.because, shown(picture.score, ".4f"), picture.verdict or "-", printable(picture.path))
        for queued in queue
        for picture in (queued.picture,)
    ]
    print_result(
        args,
        [queued.document() for queued in queue],
        lambda: print_table([("id", "because", "score", "verdict", "picture"), *rows], left=(0, 1, 3, 4)),
    )


def _show_pool(args: argparse.Namespace, feedback: Feedback) -> None:
    from winspect.feedback.pool import pool_of

    with feedback.records() as records:
        joining = [each for name in _classes(args, records) for each in pool_of(records, name).joining]
    files = [each.file or each.path for each in joining]
    print_result(args, [each.document() for each in joining], lambda: show(*files) if files else None)


def _show_summary(args: argparse.Namespace, feedback: Feedback) -> None:
    from winspect.feedback.pool import pool_of, rates_of
    from winspect.feedback.queue import queue_length

    with feedback.records() as records:
        document = {}
        for name in _classes(args, records):
            pool, rates = pool_of(records, name), rates_of(records, name)
            document[name] = {
                "queue": queue_length(records, name),
                "joining": len(pool.joining),
                "chosen": len(pool.chosen),
                "waits_for": None if pool.waits_for is None else pool.waits_for.id,
                "behind": pool.behind,
                "rates": vars(rates),
            }
    print_result(args, document, lambda: _show_classes(document))


def _show_classes(document: dict[str, Any]) -> None:
    for name, entry in document.items():
        rates, queue = entry["rates"], entry["queue"]
        waiting = ", ".join(f"{number} {why}" for why, number in queue.items() if number) or "nothing"
        show(f"{name}: to look at: {waiting}")
        show(
            f"  audit sample: {rates['alarms']} of {rates['good']} good flagged, {rates['found']} of "
            f"{rates['defective']} defective found; with others {rates['all_found']} of {rates['all_defective']} found"
        )
        show(f"  {entry['joining']} good pictures join a calibration, {entry['chosen']} more were not drawn")
        if entry["waits_for"] is not None and entry["behind"]:
            show(f"  {entry['behind']} more wait for an answer on {entry['waits_for']}")


def _classes(args: argparse.Namespace, records: Any) -> list[str]:
    if args.category_name is not None:
        return [args.category_name]
    return sorted({picture.class_name for picture in records.pictures()})


def _recalibrate(args: argparse.Namespace, feedback: Feedback) -> int:
    from winspect.calibration import Calibration
    from winspect.feedback.pool import digest_of, recalibrated

    calibration = Calibration.load(args.recalibrate)
    make_folder(args.out.parent)
    date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with feedback.records() as records:
        made = recalibrated(calibration, records, date=date, also_raise=args.also_raise, fresh=args.fresh)
        earlier = () if args.fresh else records.calibrations.get(digest_of(calibration), ())
    if not made.is_contradicted:
        made.calibration.save(args.out)
        change = {"event": "change", "what": "calibration", "sha256": digest_of(made.calibration), "by": args.by}
        feedback.note({**change, "from": digest_of(calibration), "ids": [*earlier, *made.ids]})
    document = {
        **{"out": None if made.is_contradicted else str(args.out), "joined": len(made.joined)},
        **{"raised_by": len(made.raised_by), "left_out": made.left_out, "skipped": made.skipped},
        **{"threshold": made.calibration.threshold, "was": calibration.threshold},
        "retest": made.retest and vars(made.retest),
        "defective": made.calibration.defective and vars(made.calibration.defective),
    }
    print_result(args, document, lambda: _show_recalibration(made, calibration.threshold, args.out))
    return Exit.CHECK_FAILED if made.is_contradicted else Exit.DONE


def _show_recalibration(made: Recalibration, was: float, out: Path) -> None:
    retest = made.retest
    if retest is not None:
        show(
            f"of {retest.pictures} new good pictures the calibration flags {retest.alarms}; so many or more have a "
            f"chance of {retest.chance:.3g}"
        )
    if made.is_contradicted:
        show(f"they contradict it, and {out} was not written: the line has changed. Use --fresh, or calibrate again")
        return
    show(f"{len(made.joined)} good pictures joined: threshold {was:.4f} -> {made.calibration.threshold:.4f}")
    if made.raised_by:
        show(f"{len(made.raised_by)} of them were chosen and lay above the threshold: it finds fewer defects now")
    if made.left_out:
        show(f"{made.left_out} good pictures were not drawn by chance and are left out (--raise, --to-references)")
    if made.skipped:
        show(f"{made.skipped} were scored by something else than this calibration, and are left out")
    if (found := made.calibration.defective) is not None:
        best = f"best F1 {found.f1:.3f} at {found.f1_threshold:.4f}"
        show(f"of {found.pictures} defective pictures it finds {found.found}; {best}")
    say(f"written: {out}")
