"""The command line as the driver of a job: the job tells by its exit code what became of it."""

import subprocess
import sys


def test_the_driver_is_the_command_line_with_a_code_of_its_own_for_what_nobody_foresaw(tmp_path):
    code = (
        "import sys, click; from capfilt.cli import cli; from capfilt.cli.driver import drive\n"
        "@cli.command()\ndef surprise():\n    raise KeyError('encoder')\n"
        "drive(sys.argv[1:])"
    )

    def run(*words: str) -> tuple[int, str]:
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert run("verify", str(tmp_path)) == (
        1,
        f"Error: {tmp_path}/run.yaml: not found, so this is not a run folder; capfilt bootstrap makes one\n",
    )
    crashed, error = run("surprise")
    assert crashed == 70
    assert error.endswith("KeyError: 'encoder'\n")
