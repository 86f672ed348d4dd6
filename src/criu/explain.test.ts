import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { explainFailure } from './explain.ts';
import { failureCauses, generalFailureCauses } from './failure-causes.ts';
import { errorLines, parseLogLine, readLog } from './log.ts';

/** A line as CRIU writes it, the code that it must get, and a piece of the message. */
const samples: [line: string, code: string, piece: string][] = [
  [
    'criu/pstree.c:490): The root process 55 is not a session leader. Consider using --shell-job option',
    'session-outside',
    'process 55',
  ],
  [
    'criu/cr-dump.c:1681): A session leader of 12(3) is outside of its pid namespace',
    'session-outside',
    'process 12',
  ],
  ["criu/pstree.c:540): Can't find a session leader for 99", 'session-outside', '99'],
  [
    'criu/tty.c:1830): tty: Found dangling tty with sid 12 pgid 13 (pts) on peer fd 0.',
    'terminal-outside',
    'descriptor 0',
  ],
  [
    'criu/tty.c:410): tty: Found slave peer index 4 without correspond master peer',
    'terminal-outside',
    '/dev/pts/4',
  ],
  [
    'criu/tty.c:2281): tty: ctty inheritance detected sid/pgrp 5, no PTY peer with sid/pgrp needed',
    'terminal-outside',
    'session 5',
  ],
  ["criu/tty.c:1010): tty: Don't have tty to inherit session from, aborting", 'terminal-missing', 'terminal'],
  [
    'compel/src/lib/infect.c:261): Unseizable non-zombie 77 found, state t, err -1/10',
    'process-traced',
    'process 77 (state t)',
  ],
  [
    "compel/src/lib/infect.c:181): SEIZE 78: can't wait task: No child processes",
    'process-traced',
    'process 78',
  ],
  ['compel/src/lib/infect.c:259): The criu itself is within dumped tree.', 'criu-inside-tree', 'inside'],
  [
    'compel/src/lib/infect.c:273): Task pid reused while suspending (77: 1 -> 2)',
    'process-changed',
    'PID 77',
  ],
  ['criu/seize.c:952): Individually stopped threads not supported', 'thread-stopped', 'thread'],
  ['criu/seize.c:882): Zombies with threads are not supported', 'thread-stopped', 'thread'],
  [
    "compel/src/lib/infect.c:322): Can't dump the 5 thread with a pending SIGTRAP.",
    'signal-pending',
    'thread 5',
  ],
  ['criu/cr-dump.c:1808): Timeout reached. Try to interrupt: 0', 'freeze-timeout', 'in time'],
  [
    'criu/seize.c:635): Unable to freeze cgroup /sys/fs/cgroup/x (100 x 100ms attempts, timeout: 10s)',
    'freeze-timeout',
    'in time',
  ],
  ["criu/cr-dump.c:388): Can't get rlimit 0: Operation not permitted", 'rlimit-refused', 'CAP_SYS_RESOURCE'],
  [
    'criu/proc_parse.c:760): Unsupported mapping found 00007f0000000000-00007f0000001000',
    'memory-mapping-unsupported',
    '00007f0000000000',
  ],
  [
    'criu/proc_parse.c:118): handle_device_vma plugin failed: No such file or directory',
    'memory-mapping-unsupported',
    'device',
  ],
  ['criu/vdso.c:600): vdso: Unexpected rt vDSO area bounds', 'vdso-unknown', 'vDSO'],
  ['criu/cr-dump.c:227): 12 has rseq but kernel lacks get_rseq_conf feature', 'rseq-unknown', 'restartable'],
  [
    "criu/cr-dump.c:477): Task 9 with SysVIPC shmem map @7f doesn't live in IPC ns",
    'ipc-outside',
    'process 9',
  ],
  ['criu/shmem.c:355): Sysv shmem 3 with a hole not supported', 'ipc-unsupported', 'shared memory 3'],
  [
    "criu/namespaces.c:500): Can't dump nested mnt namespace for 44",
    'namespace-nested',
    'process 44 has a mnt namespace',
  ],
  [
    "criu/namespaces.c:400): Can't dump a pid namespace without the process init",
    'namespace-outside',
    'first process',
  ],
  [
    "criu/files-ext.c:94): Can't dump file 5 of that type [600] (anon anon_inode:[io_uring])",
    'io-uring',
    'descriptor 5',
  ],
  ["criu/files-ext.c:94): Can't dump file 6 of that type [20666] (chr 10:232)", 'device-open', 'chr 10:232'],
  [
    "criu/files-ext.c:94): Can't dump file 7 of that type [600] (anon anon_inode:[perf_event])",
    'descriptor-unsupported',
    'perf_event',
  ],
  [
    "criu/files-reg.c:1031): Can't dump ghost file /tmp/#12 of 2097152 size, increase limit",
    'unlinked-too-large',
    '2097152',
  ],
  [
    "criu/files-reg.c:1122): Can't create link remap for /tmp/x. Use link-remap option.",
    'unlinked-linked-elsewhere',
    '/tmp/x',
  ],
  [
    'criu/file-lock.c:400): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.',
    'file-locks',
    'locks',
  ],
  [
    "criu/files-reg.c:1790): Can't lookup mount=27 for fd=1 path=/var/log/out",
    'mount-unknown',
    'descriptor 1 (/var/log/out)',
  ],
  [
    'criu/files-reg.c:1796): Open files on overmounted mounts are not supported yet; mount=3 fd=4 path=/a',
    'file-overmounted',
    'descriptor 4',
  ],
  ['criu/files-reg.c:1444): Unaccessible path opened 1:2, need 3:4', 'file-replaced', 'path'],
  [
    'criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.',
    'tcp-established',
    'TCP',
  ],
  ['criu/sk-inet.c:912): inet: Connected TCP socket in image', 'tcp-established', 'snapshot'],
  ['criu/sk-unix.c:494): unix: In-flight connection on non-listening socket 12', 'tcp-in-flight', 'accepted'],
  ['criu/sk-tcp.c:81): tcp: Failed to lock TCP connection 1f', 'tcp-lock-failed', 'locked'],
  [
    "criu/sockets.c:600): sockets: Can't get 1:16 opt: Operation not supported",
    'socket-passcred',
    'SO_PASSCRED',
  ],
  ['criu/sockets.c:500): inet: Unsupported proto 132 for socket 1f', 'socket-unsupported', 'socket'],
  ['criu/sk-inet.c:450): Unsupported socket family: 40', 'socket-unsupported', 'vsock'],
  [
    'criu/sk-unix.c:874): unix: External socket is used. Consider using --ext-unix-sk option.',
    'unix-peer-outside',
    'outside',
  ],
  [
    "criu/sk-unix.c:881): unix: Can't dump half of stream unix connection. name: /a; peer name: /run/dbus",
    'unix-peer-outside',
    '/run/dbus',
  ],
  ["criu/sk-unix.c:888): unix: Can't dump name-less external socket.", 'unix-peer-outside', 'socket pair'],
  [
    'criu/sk-queue.c:100): Control messages in queue, not supported',
    'unix-message-unsupported',
    'descriptors',
  ],
  ["criu/fsnotify.c:300): fsnotify: \tCan't dump that handle", 'inotify-unsupported', 'watched'],
  ['criu/mount.c:724): mnt: FS mnt ./gpfs dev 0x2f root / unsupported id 90', 'mount-unsupported', './gpfs'],
  ["criu/mount.c:753): mnt: 90:./data doesn't have a proper root mount", 'mount-outside', './data'],
  [
    'criu/mount.c:1092): mnt: Mount 9 ./x (master_id: 1 shared_id: 0) has unreachable sharing. Try --enable-external-masters.',
    'mount-outside',
    './x',
  ],
  [
    "criu/mount-v2.c:300): mnt-v2: Can't mount at /tmp/.criu/x: No such file or directory",
    'mount-failed',
    '/tmp/.criu/x',
  ],
  ["criu/cgroup.c:1000): cg: Can't make cgroup dir cpu/x: Permission denied", 'cgroup-failed', 'cpu/x'],
  ["criu/namespaces.c:1700): Can't setns 5/net: Operation not permitted", 'namespace-refused', 'namespace'],
  [
    'criu/namespaces.c:900): setgid failed while joining userns: Invalid argument',
    'user-namespace-failed',
    'user namespace',
  ],
  ["criu/cr-restore.c:1230): Can't fork for 312: File exists", 'pid-taken', 'PID 312'],
  ['criu/cr-restore.c:1539): Pid 5 do not match expected 6', 'pid-taken', 'PID 6'],
  [
    'criu/files-reg.c:2175): File usr/bin/x has bad size 10 (expect 20)',
    'file-changed',
    'usr/bin/x has 10 bytes',
  ],
  ['criu/files-reg.c:2153): File usr/lib/libc.so.6 has bad build-ID', 'file-changed', 'libc.so.6'],
  ['criu/files-reg.c:2294): File etc/x has bad mode 0100600 (expect 0100644)', 'file-changed', '100600'],
  [
    "criu/files-reg.c:2267): Can't open file usr/bin/gone: No such file or directory",
    'file-missing',
    'usr/bin/gone',
  ],
  [
    "criu/files-reg.c:2353): Can't open file tmp/y on restore: No such file or directory",
    'file-missing',
    'tmp/y',
  ],
  [
    "criu/sk-inet.c:1059): inet: Can't bind inet socket (id 9): Address already in use",
    'address-taken',
    'in use',
  ],
  [
    "criu/sk-inet.c:1059): inet: Can't bind inet socket (id 9): Cannot assign requested address",
    'address-missing',
    'address',
  ],
  ['criu/arch/x86/cpu.c:200): CPU instruction capabilities do not match run time', 'cpu-mismatch', 'CPU'],
  [
    'criu/lsm.c:300): apparmor LSM specified but apparmor not supported by kernel',
    'security-module',
    'security module',
  ],
  ['criu/cr-check.c:900): UFFD is not supported', 'userfaultfd-missing', 'userfaultfd'],
  ['criu/mem.c:50): Tracking memory is not available', 'memory-tracking-missing', 'soft-dirty'],
  ['criu/page-pipe.c:418): page-pipe: tee: -1: Operation not permitted', 'pipe-size', 'pipes'],
  ["criu/pipes.c:165): Can't restore pipe size: Operation not permitted", 'pipe-pages', 'pipe'],
  ["criu/image.c:564): Magic doesn't match for core-1.img", 'image-unreadable', 'core-1.img'],
  [
    'criu/img-streamer.c:73): Unable to connect to image streamer socket: /x: No such file or directory',
    'streamer-lost',
    'connection',
  ],
  ['criu/page-xfer.c:1300): page-xfer: Remote side closed connection', 'page-server-lost', 'memory'],
  ['criu/cr-dump.c:2164): Pre dump script failed with 1!', 'hook-failed', 'script'],
  ['criu/util.c:300): Unable to write image: No space left on device', 'no-space', 'space'],
  ["criu/mem.c:300): Can't allocate: Cannot allocate memory", 'no-memory', 'memory'],
  ["criu/util.c:200): Can't open /proc/5/x: Too many open files", 'descriptors-exhausted', 'open files'],
  ["criu/util.c:200): Can't open 77/stat on procfs: No such process", 'process-gone', 'ended'],
  ["criu/net.c:200): Can't do that: Operation not permitted", 'not-permitted', 'refused'],
];

test('R18 R22 each known line is translated to its class, reason and remedy', () => {
  for (const [line, code, piece] of samples) {
    const log = `Error (${line}\nError (criu/cr-dump.c:2128): Dumping FAILED.\n`;
    const error = explainFailure({ attempt: 'Dump of job web', log });
    assert.equal(error.code, code, line);
    assert.ok(error.message.includes(piece), `${error.message} lacks ${piece}`);
    assert.match(error.message, /^Dump of job web failed: .*[^.]\.$/);
    assert.ok((error.remedy ?? '').length > 5, line);
    assert.ok(error.lines.includes(`Error (${line}`), 'the line itself is kept');
    const cause = [...failureCauses, ...generalFailureCauses].find((entry) => entry.code === code);
    assert.equal(error.class, cause?.class);
  }
  const shown = new Set(samples.map(([, code]) => code));
  for (const { code } of [...failureCauses, ...generalFailureCauses]) {
    if (code !== 'capability-missing') assert.ok(shown.has(code), `no sample for ${code}`);
  }
  assert.ok(shown.size >= 25);
});

test('R18 the process is named from a later line, the first known cause wins', () => {
  const log = [
    "(00.011893) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted",
    "(00.020000) Error (criu/files-ext.c:94): Can't dump file 9 of that type [600] (anon anon_inode:[io_uring])",
    '(00.020001) ----------------------------------------',
    '(00.020002) Error (criu/cr-dump.c:1698): Dump files (pid: 4242) failed with -1',
    '(00.020003) Error (criu/cr-dump.c:2128): Dumping FAILED.',
  ].join('\n');
  const error = explainFailure({ attempt: 'Dump', log });
  assert.equal(error.code, 'io-uring');
  assert.match(error.message, /descriptor 9 of process 4242/);
  assert.equal(error.lines.length, 3);
});

test('R18 what follows from a failure is not taken for its cause', () => {
  // Of a real restore: the helper that moves threads between cgroups loses its peers when they die.
  const after = [
    '(00.031212) Error (criu/cr-restore.c:1262): 4242 killed by signal 9: Killed',
    '(00.031300) Error (criu/cgroup.c:1998): cgroupd: recv req error: No such file or directory',
    '(00.031400) Error (criu/namespaces.c:1310): uns: recv req error: Connection reset by peer',
    '(00.031500) Error (criu/cr-restore.c:2324): Restoring FAILED.',
  ];
  const restore = (...lines: string[]) =>
    explainFailure({ attempt: 'Restoring', log: [...lines, ...after].join('\n') });
  const pipe = restore(
    "(00.030000)      1: Error (criu/pipes.c:165): Can't restore pipe size: Operation not permitted",
  );
  assert.equal(pipe.code, 'pipe-pages');
  const denied = restore("(00.030000)      1: Error (criu/x.c:1): Can't do that: Operation not permitted");
  assert.equal(denied.code, 'not-permitted');
  const unknown = restore('(00.030000) pie: 1: Error (criu/pie/restorer.c:843): Something new (-22)');
  assert.equal(unknown.code, 'criu-failed');
  assert.match(unknown.message, /Something new/);
  assert.ok(
    unknown.lines.some((line) => line.includes('cgroupd')),
    'all lines are kept',
  );
  const first = restore('Error (criu/x.c:1): The first', 'Error (criu/x.c:2): The second');
  assert.match(first.message, /The first/);
  const killed = Array.from(
    { length: 20 },
    (_, pid) => `Error (criu/cr-restore.c:1262): ${pid} killed by signal 9: Killed`,
  );
  const many = restore(
    "Error (criu/pipes.c:165): Can't restore pipe size: Operation not permitted",
    ...killed,
  );
  assert.match(many.lines[0] ?? '', /pipe size/);
  assert.equal(many.lines.length, 8);
  assert.match(restore().message, /4242 killed by signal 9/, 'nothing else is known');
});

test('what is not known, a signal and a silent end are told as they are', () => {
  const unknown = explainFailure({
    attempt: 'Dump',
    end: { exitCode: 1, signal: undefined, lines: [] },
    log: 'Error (criu/x.c:1): Something new\nError (criu/cr-dump.c:2128): Dumping FAILED.\n',
  });
  assert.equal(unknown.code, 'criu-failed');
  assert.match(unknown.message, /Something new/);
  const killed = explainFailure({
    attempt: 'Dump',
    end: { exitCode: undefined, signal: 'SIGKILL', lines: [] },
    log: '',
  });
  assert.deepEqual([killed.code, killed.class], ['criu-killed', 'temporary']);
  const silent = explainFailure({
    attempt: 'Dump',
    end: { exitCode: 3, signal: undefined, lines: [] },
    log: '',
  });
  assert.match(silent.message, /code 3/);
  const early = explainFailure({
    attempt: 'Dump',
    end: { exitCode: 1, signal: undefined, lines: ["Running as non-root requires '--unprivileged'"] },
    log: '',
  });
  assert.equal(early.code, 'capability-missing');
});

test('log lines with and without time, PID and level', () => {
  assert.deepEqual(parseLogLine('(00.123456)   1234: Error (criu/tty.c:9): tty: x (y): z'), {
    level: 'error',
    pid: 1234,
    source: 'criu/tty.c:9',
    text: 'tty: x (y): z',
    line: '(00.123456)   1234: Error (criu/tty.c:9): tty: x (y): z',
  });
  assert.equal(parseLogLine('Warn  (criu/kerndat.c:1799): w').level, 'warning');
  assert.equal(parseLogLine('     7: Error (a.c:1): b').pid, 7);
  const pie = parseLogLine('(00.040112) pie: 7: Error (criu/pie/restorer.c:2335): Restorer fail 7');
  assert.deepEqual([pie.level, pie.pid, pie.text], ['error', 7, 'Restorer fail 7']);
  assert.equal(parseLogLine('plain').text, 'plain');
  const harmless =
    "Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted";
  assert.deepEqual(errorLines(harmless), []);
});

test('the tail of a log is read; a missing one is empty', () => {
  const directory = mkdtempSync('/tmp/cairn-criu-');
  assert.equal(readLog(`${directory}/none`), '');
  writeFileSync(`${directory}/log`, 'a'.repeat(100) + 'end');
  assert.equal(readLog(`${directory}/log`, 5), 'aaend');
  rmSync(directory, { recursive: true });
});
