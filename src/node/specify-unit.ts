import { statSync } from 'node:fs';
import { CairnError, messageOf } from '../errors.ts';
import type { UnitRequest } from '../jobs/ports.ts';
import { rootFileSystemOf, unitSpecOf } from '../jobs/unit-spec.ts';
import { defaultCapabilities } from '../units/bundle.ts';
import { loadImage } from '../units/oci-image.ts';
import type { UnitSpec } from '../units/spec.ts';
import { resolveUser } from '../units/users.ts';

/**
 * Turns a job into what its unit is made of: unpacks its image, if it has one, looks the user up in its root file system, and sees
 * whether what it mounts is there. Errors: those of `unitSpecOf`, `user-unknown`, `mount-source-missing`, and those of images.
 */
export async function specifyUnit(job: UnitRequest, imageDirectory: string): Promise<UnitSpec> {
  const root = rootFileSystemOf(job.description);
  const image = root.kind === 'oci' ? await loadImage(imageDirectory, root.path, root.reference) : undefined;
  const rootfs = image?.rootfs ?? (root.kind === 'directory' ? root.path : '/');
  const user = resolveUser(rootfs, job.description.user ?? (image?.config.user || '0'));
  const spec = unitSpecOf(job, { defaultCapabilities, image: image?.config, user });
  for (const mount of spec.mounts) requireSource(mount);
  return spec;
}

function requireSource({ source, target }: UnitSpec['mounts'][number]): void {
  try {
    statSync(source);
  } catch (error) {
    throw new CairnError(
      'argument',
      'mount-source-missing',
      `${source} cannot be mounted on ${target}: ${messageOf(error)}`,
      { remedy: 'Make the file or directory first, or correct its path (-v SOURCE:TARGET).', cause: error },
    );
  }
}
