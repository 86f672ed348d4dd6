import type { Command } from './command.ts';

/** A command in the list: its file is read only when it is called. */
export interface ListedCommand {
  name: string;
  summary: string;
  load(): Promise<Command>;
}

/** All commands, in the order of the help. */
export const commands: readonly ListedCommand[] = [
  { name: 'run', summary: 'run a program as a job', load: async () => (await import('./run.ts')).run },
  { name: 'jobs', summary: 'list jobs', load: async () => (await import('./jobs.ts')).jobs },
  { name: 'logs', summary: 'show the output of a job', load: async () => (await import('./logs.ts')).logs },
  { name: 'exec', summary: 'run a command in a job', load: async () => (await import('./exec.ts')).exec },
  {
    name: 'attach',
    summary: 'be the terminal of a job',
    load: async () => (await import('./attach.ts')).attach,
  },
  {
    name: 'checkpoint',
    summary: 'save a job as a snapshot',
    load: async () => (await import('./checkpoint.ts')).checkpoint,
  },
  {
    name: 'restart',
    summary: 'bring a job back from a snapshot',
    load: async () => (await import('./restart.ts')).restart,
  },
  {
    name: 'snapshots',
    summary: 'list snapshots',
    load: async () => (await import('./snapshots.ts')).snapshots,
  },
  {
    name: 'inspect',
    summary: 'show everything about a job or a snapshot',
    load: async () => (await import('./inspect.ts')).inspect,
  },
  {
    name: 'verify',
    summary: 'check snapshots, byte by byte',
    load: async () => (await import('./verify.ts')).verify,
  },
  {
    name: 'pin',
    summary: 'keep a snapshot whatever the retention policy says',
    load: async () => (await import('./pin.ts')).pin,
  },
  {
    name: 'suspend',
    summary: 'freeze a job in memory',
    load: async () => (await import('./suspend.ts')).suspend,
  },
  {
    name: 'resume',
    summary: 'let a suspended job run on',
    load: async () => (await import('./resume.ts')).resume,
  },
  { name: 'stop', summary: 'end the processes of jobs', load: async () => (await import('./stop.ts')).stop },
  { name: 'rm', summary: 'remove jobs or snapshots', load: async () => (await import('./rm.ts')).rm },
  {
    name: 'events',
    summary: 'show what happens on the node',
    load: async () => (await import('./events.ts')).events,
  },
  {
    name: 'doctor',
    summary: 'tell what this host can and cannot do',
    load: async () => (await import('./doctor-command.ts')).doctorCommand,
  },
  { name: 'node', summary: 'be the daemon of this node', load: async () => (await import('./node.ts')).node },
  {
    name: 'completion',
    summary: 'print the completion script of a shell',
    load: async () => (await import('./completion.ts')).completion,
  },
  {
    name: 'version',
    summary: 'print the version',
    load: async () => (await import('./version.ts')).version,
  },
];
