// A Node.js HTTP server with state: a session for each client, a request that is answered late, a log file, a child process.
import { spawn } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';

const sessions = new Map();
const waiting = [];
const child = spawn('cat', [], { stdio: ['pipe', 'pipe', 'ignore'] });
let ticks = 0;
setInterval(() => ticks++, 10);

/** What the child process says to a line: the same. */
function echo(line) {
  return new Promise((resolve) => {
    child.stdout.once('data', (data) => resolve(String(data)));
    child.stdin.write(line);
  });
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://server');
  const name = url.searchParams.get('name') ?? '';
  if (url.pathname === '/add') {
    const session = sessions.get(name) ?? [];
    session.push(session.length);
    sessions.set(name, session);
    appendFileSync('/var/tmp/server.log', `${name} ${session.length}\n`);
    response.end(String(session.length));
  } else if (url.pathname === '/state') {
    const log = readFileSync('/var/tmp/server.log', 'utf8').trimEnd().split('\n');
    const state = {
      ticks,
      waiting: waiting.length,
      sessions: Object.fromEntries([...sessions].map(([k, v]) => [k, v.length])),
    };
    response.end(JSON.stringify({ ...state, log: log.length, echo: await echo('hello') }));
  } else if (url.pathname === '/wait') {
    waiting.push(response);
  } else if (url.pathname === '/release') {
    for (const late of waiting.splice(0)) late.end('released');
    response.end('ok');
  } else {
    response.writeHead(404).end();
  }
}

createServer((request, response) => void answer(request, response)).listen(8080, () => console.log('ready'));
