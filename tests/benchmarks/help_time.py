"""How long `prodkit --help` takes: wall clock of new processes, the best and the middle of several, against .4 s."""

import statistics
import subprocess
import sys
import time

CODE = "import sys; sys.argv = ['prodkit', '--help']; from prodkit.cli import main; main()"


def main() -> None:
    """Print the seconds, and end with 1 if the middle one is above the limit."""
    seconds = []
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 9):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", CODE], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    print(f"prodkit --help: best {min(seconds):.2f} s, median {statistics.median(seconds):.2f} s")
    sys.exit(statistics.median(seconds) > 0.4)


if __name__ == "__main__":
    main()
