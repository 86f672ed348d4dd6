"""A job that watches itself: memory, a file and a child process must always agree. Writes its count, and ends when they do not."""

import os
import sys
import time

PAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
memory = bytearray(os.urandom(PAGES * 4096))
for page in range(PAGES):
    memory[page * 4096 : page * 4096 + 8] = (0).to_bytes(8, 'little')
file = open('/var/tmp/witness', 'w+b', buffering=0)
question, answer = os.pipe(), os.pipe()
if os.fork() == 0:
    while (text := os.read(question[0], 8)) != b'':
        os.write(answer[1], text)
    os._exit(0)

count = 0
print('ready', flush=True)
while True:
    page = count * 7919 % PAGES
    at = page * 4096
    before = int.from_bytes(memory[at : at + 8], 'little')
    # The page was written last in the round before, if PAGES and 7919 have no common divisor.
    if before != (count - PAGES + 1 if count >= PAGES else 0):
        sys.exit(f'memory: page {page} says {before} at count {count}')
    memory[at : at + 8] = (count + 1).to_bytes(8, 'little')
    os.pwrite(file.fileno(), count.to_bytes(8, 'little'), count % 1000 * 8)
    if count >= 1000 and os.pread(file.fileno(), 8, (count + 1) % 1000 * 8) != (count - 999).to_bytes(8, 'little'):
        sys.exit(f'file: differs at count {count}')
    os.write(question[1], count.to_bytes(8, 'little'))
    if os.read(answer[0], 8) != count.to_bytes(8, 'little'):
        sys.exit('child: wrong answer')
    count += 1
    if count % 20 == 0:
        print(count, flush=True)
    time.sleep(0.002)
