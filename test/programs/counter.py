"""R01: a Python program (generator, thread, dictionary, open file) goes on where it was."""

import hashlib
import os
import sys
import tempfile
import threading
import time


def numbers():
    value = 1
    while True:
        value = value * 6364136223846793005 % 2**61 + 1
        yield value


go = os.environ.get('PROBE_GO', '/probe/go')
source = numbers()
seen = {}
digest = hashlib.sha256()
file = tempfile.TemporaryFile('w+')
ticks = []
ended = threading.Event()


def tick():
    while not ended.wait(0.002):
        ticks.append(len(ticks))


thread = threading.Thread(target=tick)
thread.start()
print('ready', flush=True)
while not os.path.exists(go):
    value = next(source)
    seen[len(seen)] = value
    digest.update(str(value).encode())
    file.write(f'{value}\n')
    time.sleep(0.001)
ended.set()
thread.join()
if 'PROBE_BREAK' in os.environ:
    seen[0] += 1

failures = []
again, check = numbers(), hashlib.sha256()
for index in range(len(seen)):
    value = next(again)
    check.update(str(value).encode())
    if seen.get(index) != value:
        failures.append(f'entry {index} differs')
if check.digest() != digest.digest():
    failures.append('the running digest differs')
file.seek(0)
if [int(line) for line in file] != list(seen.values()):
    failures.append('the temporary file differs from the dictionary')
if ticks != list(range(len(ticks))) or not ticks:
    failures.append('the thread lost or repeated a tick')
for failure in failures:
    print('FAIL:', failure, flush=True)
if not failures:
    print('PASS', flush=True)
sys.exit(1 if failures else 0)
