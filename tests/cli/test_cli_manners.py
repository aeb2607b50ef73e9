"""What the command line says to those who do not know it yet: a guide, suggestions, completion, a manual page."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess

import pytest

from winspect.cli.completion import script, verbs_of
from winspect.cli.main import VERBS, build_parser, main
from winspect.cli.manual import manual
from winspect.cli.options import fraction


def refused(capsys, *arguments):
    """What stderr says of a usage error."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_no_arguments_get_a_short_guide_of_commands_that_parse(capsys):
    guide = refused(capsys)
    assert len(guide.splitlines()) < 15
    commands = [re.split(r"  +", line.strip())[0] for line in guide.splitlines() if line.startswith("  winspect")]
    assert len(commands) == 5
    for command in commands:
        arguments = command.replace('"hex nut"', "nut").split()[1:]
        assert build_parser().parse_args(arguments).verb in VERBS


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["pridict", "a.png"], "did you mean winspect predict?"),
        (["weight", "list"], "did you mean winspect weights?"),
        (["weights", "pul"], "did you mean winspect weights pull?"),
        (["predict", "a.png", "--refrence", "good"], "did you mean --reference?"),
        (["predict", "a.png", "--treshold=0.5"], "did you mean --threshold?"),
        (["calibrate", "good", "--out", "x.json", "--max_false_alarms", "0.1"], "did you mean --max-false-alarms?"),
        (["predict", "a.png", "-reference", "good"], "did you mean --reference?"),
        # the option that is missing is the one that is misspelt
        (["evaluate", "--dataste", "mvtec", "--out", "x"], "did you mean --dataset?"),
    ],
)
def test_typos_get_a_suggestion(arguments, hint, capsys):
    assert hint in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["parts", "--out", "x"], "--dataset folder --root parts"),
        (["--dataset", "folder", "parts", "--out", "x"], "did you mean --root parts?"),
        (["--dataset", "folder", "--root", "parts", "--out", "x", "more"], None),
        (["nowhere", "--out", "x"], None),
    ],
)
def test_a_folder_without_an_option_is_a_data_set(arguments, hint, capsys, tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    monkeypatch.chdir(tmp_path)
    message = refused(capsys, "evaluate", *arguments)
    assert "--root parts" not in message if hint is None else message.rstrip().endswith(hint)


@pytest.mark.parametrize(
    "arguments",
    [
        ["zzz"],
        ["predict", "a.png", "--zzz"],
        ["predict", "a.png", "--threshold", "-0.5", "--zzz"],
        ["predict", "a.png", "--shots", "two"],
    ],
)
def test_nothing_is_suggested_where_nothing_is_like_it(arguments, capsys):
    assert "did you mean" not in refused(capsys, *arguments)


def test_an_unknown_option_is_an_error_of_its_verb(capsys):
    assert refused(capsys, "predict", "a.png", "--zzz").startswith("usage: winspect predict ")


def test_the_message_is_not_below_a_wall_of_options(capsys):
    lines = refused(capsys, "predict", "--class", "bolt").splitlines()
    assert (
        lines[0]
        == "usage: winspect predict PICTURE [PICTURE ...] [OPTION]...; winspect predict --help lists the options"
    )
    assert lines[1:] == ["winspect predict: error: the following arguments are required: PICTURE"]
    assert "--dataset KIND --out DIR" in refused(capsys, "evaluate")


def test_a_file_in_the_place_of_a_verb(tmp_path, capsys):
    (tmp_path / "a photo.jpg").touch()
    said = refused(capsys, tmp_path / "a photo.jpg")
    assert f"to score it: winspect predict '{tmp_path}/a photo.jpg'" in said


def test_reference_says_that_it_took_the_pictures_and_what_to_type(capsys):
    said = refused(capsys, "predict", "--reference", "good/", "new parts/", "--class", "bolt")
    assert "--reference takes every name that follows it, here good/, new parts/; name PICTURE before it" in said
    command = re.search(r"name PICTURE before it: (.*)", said)[1]
    assert command == "winspect predict 'new parts/' --reference good/ --class bolt"
    args = build_parser().parse_args(["predict", "new parts/", "--reference", "good/", "--class", "bolt"])
    assert (args.pictures, args.reference) == (["new parts/"], ["good/"])


def test_reference_with_one_name_says_that_the_pictures_are_missing(capsys):
    said = refused(capsys, "predict", "--reference", "good/")
    assert "here good/; name PICTURE before it" in said and "winspect predict good/" not in said
    assert "takes every name" not in refused(capsys, "predict", "--class", "bolt")


def test_names_of_files_are_safe_to_print(capsys):
    assert "\x1b" not in refused(capsys, "predict", "--reference", "good", "new\x1b[2J")
    assert "\x1b" not in refused(capsys, "\x1b[2J")


def test_a_rate_may_be_in_percent(capsys):
    def rate(text):
        return build_parser().parse_args(["calibrate", "g", "--out", "x", "--max-false-alarms", text]).max_false_alarms

    assert [rate(text) for text in ("5%", "0.05", "0.5 %", "1%", "7%")] == [0.05, 0.05, 0.005, 0.01, 0.07]
    assert build_parser().parse_args(["compare", "a", "b", "--tolerance", "1%"]).tolerance == 0.01
    assert "need a fraction such as 0.05, or 5%" in refused(
        capsys, "calibrate", "g", "--out", "x", "--max-false-alarms", "few"
    )
    for text in ("%", "", "5%%", "five%"):
        with pytest.raises(argparse.ArgumentTypeError):
            fraction(text)


# -- completion and the manual


def all_options(name):
    """Long options of a verb."""
    verb = dict(verbs_of(build_parser()))[name]
    return [option for action in verb._actions for option in action.option_strings if option.startswith("--")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_scripts_name_every_verb_and_option(shell, capsys):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for verb in VERBS:
        assert verb in text
    if shell != "tcsh":  # tcsh's knows no verb's options but by position
        for option in all_options("predict"):
            assert option in text


def test_completion_in_bash_works(tmp_path):
    pytest.importorskip("shtab")
    (tmp_path / "winspect.bash").write_text(script(build_parser(), "bash"))

    def completed(*words):
        line = " ".join(f"'{word}'" for word in words)
        code = (
            f"source winspect.bash; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_winspect; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert completed("winspect", "pre") == ["predict", "prepare", "precision"]
    assert completed("winspect", "predict", "--max-f") == []
    assert completed("winspect", "predict", "--pixel") == ["--pixel-threshold"]
    assert completed("winspect", "predict", "--engine", "o") == ["openvino", "onnx"]


def test_completion_in_fish_names_every_verb_and_option():
    text = script(build_parser(), "fish")
    for name, verb in verbs_of(build_parser()):
        assert f" -a {name.split()[-1]} -d " in text
        options = [option for action in verb._actions for option in action.option_strings]
        for option in options:
            assert re.search(rf"-[ls] {option.lstrip('-')}\b", text)
    assert text.count("'") % 2 == text.count("\\'") % 2
    assert "-l engine -x -a 'auto torch openvino onnx'" in text
    if shutil.which("fish"):
        done = subprocess.run(["fish", "--no-execute"], input=text, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_completion_without_shtab_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "completion in bash needs: pip install" in capsys.readouterr().err


def test_the_manual_has_every_verb_and_option():
    page = manual(build_parser())
    for name, verb in verbs_of(build_parser()):
        assert f'.SH "{name.upper()}"' in page
        for action in verb._actions:
            for option in action.option_strings:
                assert option.replace("-", "\\-") in page
    assert not [
        line for line in page.splitlines() if line.startswith(("'", ".")) and not re.match(r"\.[A-Z]|\.nf|\.fi", line)
    ]


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_the_manual_is_set_without_a_warning():
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8"], input=manual(build_parser()), text=True, capture_output=True, check=True
    )
    assert done.stderr == ""
    assert "--max-false-alarms" in re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
