import { CairnError } from '../errors.ts';
import { describeObstacle } from './obstacles.ts';
import type { Preflight } from './preflight.ts';

export function deadlinePassed(ms: number): CairnError {
  return new CairnError(
    'temporary',
    'deadline-passed',
    `the checkpoint was not complete after ${ms} ms; the job runs on`,
    {
      remedy: 'allow more time with --timeout, or look at `cairn checkpoint --dry-run`',
    },
  );
}

export function cannotBeSaved(preflight: Preflight): CairnError {
  return new CairnError('permanent', 'cannot-be-saved', 'the job uses something that cannot be saved', {
    lines: preflight.obstacles.map(describeObstacle),
    remedy: 'the lines say what helps; `cairn checkpoint --dry-run` tells whether it did',
  });
}
