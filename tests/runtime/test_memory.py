import subprocess
import sys

from hyperofa.runtime.memory import peak_memory

HOLD = "held = bytearray({} * 2**20)"
ASK = "from hyperofa.runtime.memory import peak_memory; print(peak_memory(), peak_memory(children=True))"


def test_memory_is_the_most_that_was_held_not_what_another_process_held():
    before = bytearray(300 * 2**20)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{HOLD.format(200)}']); {ASK}"
    own, child = map(float, subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert 0 < own < 100
    assert 200 < child < 300
    assert peak_memory() > len(before) / 2**20
