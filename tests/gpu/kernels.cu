/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gpu-work runs on the GPU. The arithmetic is that of the emulated GPU's kernels (enum
 * fg_kernel in tests/fakes/proto/fg_proto.h), so that one workload runs on both.
 *
 * kernels.ptx is made of it, and is what gets built in: the driver compiles PTX, and no toolkit is
 * needed, neither to build nor to run.
 *
 *	nvcc -ptx -arch=compute_75 -o - kernels.cu | sed 's/^\.version .*'/'.version 7.0/' >kernels.ptx
 */
typedef unsigned long long u64;

#define FIRST (blockIdx.x * (u64)blockDim.x + threadIdx.x)
#define STEP  (gridDim.x * (u64)blockDim.x)

static __device__ u64 pattern(u64 seed, u64 i)
{
	u64 x = (i + seed) * 0x9e3779b97f4a7c15u;

	x ^= x >> 32;
	return x * 0xd6e8feb86659fd93u;
}

extern "C" __global__ void fill(u64 *p, u64 words, u64 seed, u64 plus)
{
	for (u64 i = FIRST; i < words; i += STEP)
		p[i] = pattern(seed, i) + plus;
}

extern "C" __global__ void add(u64 *p, u64 words, u64 value)
{
	for (u64 i = FIRST; i < words; i += STEP)
		p[i] += value;
}

/* result: two words that are zero before. */
extern "C" __global__ void checksum(const u64 *p, u64 words, u64 *result)
{
	u64 sum = 0, weighted = 0;

	for (u64 i = FIRST; i < words; i += STEP) {
		sum += p[i];
		weighted += (2 * i + 1) * p[i];
	}
	for (int lane = 16; lane; lane /= 2) {
		sum += __shfl_down_sync(0xffffffffu, sum, lane);
		weighted += __shfl_down_sync(0xffffffffu, weighted, lane);
	}
	if (threadIdx.x % 32 == 0) {
		atomicAdd(&result[0], sum);
		atomicAdd(&result[1], weighted);
	}
}

/* Takes that many nanoseconds. */
extern "C" __global__ void spin(u64 ns)
{
	u64 start, now;

	asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
	do
		asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
	while (now - start < ns);
}
