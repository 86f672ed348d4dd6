#!/usr/bin/env node
// Sets this machine up for Cairn. This first part is plain JavaScript that any Node.js from 20 on runs without a package:
// it provides the npm packages (with the Node.js that Cairn itself runs on) and hands over to setup/main.ts.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import process from 'node:process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';

const usage = `usage: node tools/setup.mjs [--check] [--for run|demo|test] [--persist]

Provides what Cairn needs on this machine: npm packages, Debian packages, CRIU, runc, kernel settings.
Does only what is missing and says what it does. Can be run any number of times.

  --check        only report; exit code 1 if something is missing
  --for PURPOSE  also what the demo or the tests need (default: run)
  --persist      keep the kernel settings over a reboot (/etc/sysctl.d/60-cairn.conf)
  --help
`;

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

function main() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        check: { type: 'boolean', default: false },
        for: { type: 'string', default: 'run' },
        persist: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }));
    if (!['run', 'demo', 'test'].includes(values.for)) {
      throw new Error(`--for takes run, demo or test, not ${JSON.stringify(values.for)}`);
    }
  } catch (error) {
    return fail(2, `setup: ${error.message}\n\n${usage}`);
  }
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }

  const architecture = process.arch;
  if (process.platform !== 'linux' || !['x64', 'arm64'].includes(architecture)) {
    const machine = `${process.platform} on ${architecture}`;
    return fail(5, `setup: Cairn runs on Linux on x86-64 and arm64; this is ${machine}.`);
  }
  if (!values.check && process.getuid?.() !== 0) {
    return fail(
      5,
      'setup: this installs packages and changes kernel settings, so it has to run as root:\n\n' +
        '    sudo npm run setup      (or sudo npm run demo, sudo npm test)\n\n' +
        'To see what is missing without changing anything: npm run setup -- --check',
    );
  }

  if (!values.check && process.env.CAIRN_SETUP_LOCKED === undefined) {
    const code = runLocked();
    if (code !== undefined) return code;
  }

  const libraries = missingLibraries(architecture);
  if (libraries.length > 0) {
    if (values.check) {
      for (const name of libraries) say('missing', `package ${name} (the pinned Node.js needs it)`);
      return 1;
    }
    say('doing', `apt-get install ${libraries.join(' ')} (the pinned Node.js needs it)`);
    if (!installPackages(libraries)) {
      return fail(
        5,
        `setup: the packages ${libraries.join(' ')} could not be installed; the lines above tell why.`,
      );
    }
  }

  const stale = staleNodeModules(root, architecture);
  if (stale !== undefined) {
    if (values.check) {
      say('missing', `npm packages: ${stale}`);
      say('', 'the rest is checked by the Node.js that comes with them; run the setup first');
      return 1;
    }
    say('doing', `npm ci: ${stale}`);
    const code = installNodeModules(root, architecture);
    const remains = code === 0 ? staleNodeModules(root, architecture) : `npm ended with code ${code}`;
    if (remains !== undefined) {
      return fail(
        5,
        `setup: the npm packages could not be installed: ${remains}.\n` +
          'Check that the npm registry can be reached, then run the setup again.',
      );
    }
  }
  say('ok', `npm packages as in package-lock.json, with Node.js ${pinnedNode(root, architecture).version}`);

  const next = spawnSync(
    pinnedNode(root, architecture).path,
    [
      '--disable-warning=ExperimentalWarning',
      path.join(root, 'tools/setup/main.ts'),
      ...process.argv.slice(2),
    ],
    { stdio: 'inherit' },
  );
  if (next.error) return fail(5, `setup: the pinned Node.js could not be started: ${next.error.message}`);
  return next.status ?? 1;
}

/** Runs this program again while it holds a lock: two setups at the same time would undo each other's work. */
function runLocked() {
  const again = spawnSync(
    'flock',
    [
      '--timeout',
      '3600',
      '/run/cairn-setup.lock',
      process.execPath,
      process.argv[1],
      ...process.argv.slice(2),
    ],
    { stdio: 'inherit', env: { ...process.env, CAIRN_SETUP_LOCKED: '1' } },
  );
  // Without flock it goes on unlocked.
  if (again.error) return undefined;
  return again.status ?? 1;
}

/** Debian packages of libraries that the pinned Node.js is linked with and that a minimal system does not have. */
function missingLibraries(architecture) {
  const triplet = `${architecture === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`;
  const packages = { 'libatomic.so.1': 'libatomic1', 'libstdc++.so.6': 'libstdc++6' };
  const directories = [`/usr/lib/${triplet}`, `/lib/${triplet}`, '/usr/lib64', '/lib64', '/usr/lib', '/lib'];
  return Object.entries(packages)
    .filter(([library]) => !directories.some((directory) => existsSync(path.join(directory, library))))
    .map(([, name]) => name);
}

/** Installs packages that start no service; with fresh lists if it does not go at once. */
function installPackages(names) {
  const options = {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  };
  const install = ['install', '--yes', '--quiet', '--no-install-recommends', '--no-upgrade', ...names];
  const apt = (...argv) =>
    spawnSync('apt-get', ['-o', 'DPkg::Lock::Timeout=300', ...argv], options).status === 0;
  return apt(...install) || (apt('update', '--quiet') && apt(...install));
}

/** The Node.js that package.json pins for an architecture. */
function pinnedNode(directory, architecture) {
  const name = `node-linux-${architecture}`;
  const { optionalDependencies } = JSON.parse(readFileSync(path.join(directory, 'package.json'), 'utf8'));
  return {
    package: `${name}@${optionalDependencies[name]}`,
    version: optionalDependencies[name],
    path: path.join(directory, 'node_modules', name, 'bin/node'),
  };
}

/** Why node_modules is not what package-lock.json says, or undefined when it is. */
export function staleNodeModules(directory, architecture) {
  const hidden = path.join(directory, 'node_modules/.package-lock.json');
  if (!existsSync(hidden)) return 'they are not installed';
  const wanted = JSON.parse(readFileSync(path.join(directory, 'package-lock.json'), 'utf8')).packages;
  let installed;
  try {
    installed = JSON.parse(readFileSync(hidden, 'utf8')).packages;
  } catch {
    return 'node_modules/.package-lock.json is damaged';
  }
  for (const [name, entry] of Object.entries(wanted)) {
    if (name === '') continue;
    const has = installed[name];
    if (has === undefined) {
      // npm leaves out optional packages of other platforms; which C library they are for is npm's business too.
      if (entry.optional) continue;
      return `${name} is missing`;
    }
    if (has.version !== entry.version || has.integrity !== entry.integrity) {
      return `${name} is ${has.version}, not ${entry.version}`;
    }
  }
  const node = pinnedNode(directory, architecture);
  if (!existsSync(node.path)) return `${node.package} is missing`;
  const told = spawnSync(node.path, ['--version'], { encoding: 'utf8' });
  if (told.stdout?.trim() !== `v${node.version}`) {
    return `${node.path} does not run as version ${node.version}`;
  }
  return undefined;
}

/** `npm ci`, run by the pinned Node.js so that packages for that version are chosen. Returns the exit code. */
function installNodeModules(directory, architecture) {
  // Settings that an outer `npm run` passes down in the environment (and that would make this npm do something else)
  // are left out; the registry, proxy and certificate settings are the user's and stay.
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name]) =>
        !/^npm_(lifecycle|package|command|execpath|node_execpath|config_(argv|global|omit|production))/.test(
          name,
        ),
    ),
  );
  const npm = spawnSync(
    'npm',
    [
      'exec',
      '--yes',
      `--package=${pinnedNode(directory, architecture).package}`,
      '--',
      'npm',
      'ci',
      // Nothing that is used here needs one, and none shall run as root.
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
    ],
    { cwd: directory, stdio: 'inherit', env: environment },
  );
  if (npm.error) process.stderr.write(`npm could not be started: ${npm.error.message}\n`);
  return npm.status ?? 1;
}

function say(status, text) {
  process.stdout.write(`${status.padEnd(8)}${text}\n`);
}

function fail(code, message) {
  process.stderr.write(`${message}\n`);
  return code;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) process.exitCode = main();
