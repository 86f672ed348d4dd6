"""A numpy program in the middle of a computation: the result must be that of a run without interruption, to the bit."""

import os
import sys

import numpy

go = os.environ['PROBE_GO']


def start():
    generator = numpy.random.default_rng(7)
    matrix = generator.standard_normal((600, 600)) / 25
    return generator, matrix, generator.standard_normal((600, 8))


def step(generator, matrix, vectors):
    vectors = matrix @ vectors + generator.standard_normal(vectors.shape) * 1e-3
    vectors, _ = numpy.linalg.qr(vectors)
    return vectors


large = numpy.arange(40_000_000, dtype=numpy.float64)  # 320 MB that must come back
checksum = float(large[::1000].sum())
mapped = numpy.memmap('/var/tmp/mapped', dtype=numpy.int64, mode='w+', shape=(1_000_000,))
mapped[:] = numpy.arange(1_000_000)
generator, matrix, vectors = start()
steps = 0
print('ready', flush=True)
while not os.path.exists(go):
    vectors = step(generator, matrix, vectors)
    mapped[steps % 1_000_000] += 1
    steps += 1

failures = []
if float(large[::1000].sum()) != checksum or not numpy.array_equal(large[:1000], numpy.arange(1000)):
    failures.append('the large array differs')
expected = numpy.arange(1_000_000)
expected[: min(steps, 1_000_000)] += 1
if steps < 1_000_000 and not numpy.array_equal(mapped, expected):
    failures.append('the mapped array differs')
again_generator, again_matrix, again = start()
for _ in range(steps):
    again = step(again_generator, again_matrix, again)
if again.tobytes() != vectors.tobytes():
    failures.append(f'the vectors after {steps} steps differ by {abs(again - vectors).max()}')
for failure in failures:
    print('FAIL:', failure)
print(f'{steps} steps')
if not failures:
    print('PASS', flush=True)
sys.exit(1 if failures else 0)
