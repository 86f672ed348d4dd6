import type { Logger } from 'pino';
import type { EventBus } from '../jobs/event-bus.ts';
import type { NodeEvent } from '../jobs/events.ts';

/** Writes every event to the log, those that tell of something wrong as warnings. */
export function logEvents(events: EventBus, logger: Logger): Disposable {
  return events.subscribe((event) => {
    // The log has its own time.
    const { at: _at, kind, ...rest } = event;
    logger[levelOf(event)]({ event: kind, ...rest }, textOf(event));
  });
}

function levelOf(event: NodeEvent): 'info' | 'warn' | 'debug' {
  switch (event.kind) {
    case 'checkpoint-failed':
    case 'restart-failed':
    case 'recovery-ended':
    case 'job-warning':
    case 'node-warning':
      return 'warn';
    case 'checkpoint-started':
    case 'restart-started':
    case 'snapshot-removed':
      return 'debug';
    default:
      return 'info';
  }
}

function textOf(event: NodeEvent): string {
  if (event.kind === 'job-warning' || event.kind === 'node-warning') return event.message;
  if (event.kind === 'job-changed' || event.kind === 'job-found')
    return `${event.name} is ${event.state.kind}`;
  return event.kind;
}
