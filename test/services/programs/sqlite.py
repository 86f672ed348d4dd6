"""SQLite in a write loop; every committed row must be there. Argument: the journal mode, wal or delete."""

import os
import sqlite3
import sys
import time

go = os.environ['PROBE_GO']
os.makedirs('/data', exist_ok=True)


def connect(mode):
    connection = sqlite3.connect(f'/data/{mode}.db', isolation_level=None)
    connection.execute(f'PRAGMA journal_mode={mode}')
    connection.execute('PRAGMA synchronous=FULL')
    connection.execute('CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT, blob BLOB)')
    connection.execute('CREATE INDEX by_text ON log (text)')
    connection.execute('CREATE TABLE total (count INTEGER)')
    connection.execute('INSERT INTO total VALUES (0)')
    return connection


databases = {mode: connect(mode) for mode in sys.argv[1:]}
committed = 0
print('ready', flush=True)
while not os.path.exists(go):
    for connection in databases.values():
        connection.execute('BEGIN IMMEDIATE')
        connection.execute('INSERT INTO log VALUES (?, ?, ?)', (committed, f'row {committed}', os.urandom(2000)))
        connection.execute('UPDATE total SET count = count + 1')
        if committed % 10 == 9:
            connection.execute('DELETE FROM log WHERE id = ?', (committed - 5,))
        connection.execute('COMMIT')
    committed += 1
    time.sleep(0.002)

failures = []
for mode, connection in databases.items():
    # Through the open connection, and through a new one that reads the files.
    for reader in (connection, sqlite3.connect(f'/data/{mode}.db')):
        if (found := reader.execute('PRAGMA integrity_check').fetchall()) != [('ok',)]:
            failures.append(f'{mode}: integrity_check: {found[:3]}')
        rows = {row[0] for row in reader.execute('SELECT id FROM log')}
        expected = {n for n in range(committed) if not (n % 10 == 4 and n + 5 < committed)}
        if rows != expected:
            failures.append(f'{mode}: {len(expected - rows)} rows missing, {len(rows - expected)} too many')
        if reader.execute('SELECT count FROM total').fetchone() != (committed,):
            failures.append(f'{mode}: the total differs from {committed}')
for failure in failures:
    print('FAIL:', failure)
print(f'{committed} transactions')
if not failures and committed > 20:
    print('PASS', flush=True)
sys.exit(1 if failures else 0)
