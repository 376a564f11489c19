/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checkpoint jobs (driver r610): processes started under `cuda-checkpoint --launch-job`, or with
 * CUDA_CHECKPOINT_JOB_FILE by whoever else, may share memory by CUDA's legacy IPC. What they share
 * is written down by the driver in the job's file, which changes when its processes are saved: it
 * belongs to the image, as it is between the last process's save and the first one's restore. The
 * driver takes the processes of a job one after the other only (group.c).
 * Sources: NVIDIA/cuda-checkpoint issues 43 and 56; ai-dynamo/dynamo PRs 12961, 13252.
 *
 * The file is named by the environment of the process, as it sees it: "/proc/self/fd/N", a memfd,
 * or a path in the container. CRIU dumps a memfd by itself; a path may lie in a volume. Where it
 * is, is looked up each time it is needed; the environment is neither kept nor logged.
 */
#ifndef KYB_CHECKPOINT_JOBFILE_H
#define KYB_CHECKPOINT_JOBFILE_H

#include "artifact/metadata.h"
#include "checkpoint/group.h"

#define JOBFILE_VARIABLE "CUDA_CHECKPOINT_JOB_FILE"
#define JOBFILE_NAME     "cuda-job-%u.bin" /* in an image, from 1 */
#define JOBFILE_MAX      ((size_t)64 << 20) /* bytes, all files of an image together */

/* Is the process in a job? 1, 0, or -errno (-ESRCH: it is gone, and another one may have its
 * number). */
int jobfile_named(pid_t pid, uint64_t start_time);

/*
 * Opens the job file of a process, flags O_RDONLY or O_RDWR. Whoever writes to it in the container's
 * place writes to nothing that is not the process's own: a memfd, or a file of its user. Whatever the
 * name leads to, nothing else is opened, and nothing waits for a file system: those of the way are
 * looked up in the process's list of mounts first, and are refused where a server or a program may
 * have to answer (NFS, FUSE). Returns a descriptor or negative with err.
 */
int jobfile_open(pid_t pid, uint64_t start_time, int flags, struct error *err);

/*
 * Can the job files of the group's processes be saved and written back, for all that can be known
 * before? Returns 0 or negative with err (CUDA_QUERY_FAILED).
 */
int jobfile_check(const struct gpu_group *g, struct error *err);

/*
 * Copies the job files of the group's processes into the image, a file each, and numbers the members
 * by them. All are CHECKPOINTED. Returns 0 or negative with err.
 */
int jobfile_save(struct gpu_group *g, const char *image_path, struct error *err);

/*
 * The way back: what gpu says of the image's processes, into the files of the group's, which CRIU
 * has restored. Returns 0 or negative with err (CUDA_RESTORE_FAILED, IMAGE_CORRUPT).
 */
int jobfile_restore(const struct gpu_group *g, const struct metadata_gpu *gpu,
		    const char *image_path, struct error *err);

#endif
