"""The sums of a hinge problem on a GPU: two passes over rows that stay there, compiled by numba.

The first pass gives z, α s and the sums of one number a row, the second the weights' part of w_α. Both read rows whole, so that
neighbouring threads read neighbouring numbers. Numbers of a row are of the matrix's own type; sums are float64, added up within
a block before they meet those of other blocks, in whatever order blocks end: the last bits may differ between queries.

numba.cuda takes a while to load, and kernels look for it among the module's globals: it comes there with the first use. They do
without min and max, which numba 0.68 cannot compile for GPUs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np

from parallel_tunes.models.hinge import Array, Floats, NumpyOracle, Rows, Sums

cuda: Any = None
BLOCKS = 1024  # enough for every GPU, and for numba not to warn of too few; those that find no rows end at once
SIMULATED_BLOCKS = 2  # the simulator's threads are Python's
COLUMNS = 16  # of a tile of rows in shared memory
WIDTH = 64  # columns whose sums a block makes: with the usual 256 threads, of at least four rows at a time
CHUNK = 1 << 22  # numbers that are copied to the GPU at a time
NUM_SUMS = 5  # loss, smooth loss, linear, square, and the bias's part of w_α


def load_cuda() -> Any:
    """numba.cuda, or its simulator under NUMBA_ENABLE_CUDASIM=1; known to kernels from then on."""
    global cuda
    from numba import cuda as loaded

    cuda = loaded
    return loaded


def is_simulated() -> bool:
    """Whether kernels run in numba's simulator, on a CPU."""
    return bool(numba.config.ENABLE_CUDASIM)  # type: ignore[attr-defined]  # numba sets its options by name


def find_gpu() -> str | None:
    """None where kernels can run, on a GPU or simulated; else why they cannot."""
    device = load_cuda()
    if not device.is_available():
        error = device.cuda_error()
        if error is None:
            return "no libNVVM, which compiles for GPUs: load a CUDA toolkit, or set CUDA_HOME to where one lies"
        return " ".join(error.split(".\n")[0].split())
    try:
        device.current_context()
    except Exception as error:  # the driver's errors have no class in common with those of numba
        return f"the GPU cannot be used: {' '.join(str(error).split())}"
    return None


@functools.cache
def compile_sums(threads: int) -> Any:
    """A block's sums of one number a row are added up, by halves, and to those of other blocks."""

    def add_up(sums: Any, num_features: Any, words: Any) -> None:
        thread, num = cuda.threadIdx.x, threads
        while num > 1:
            half = (num + 1) // 2
            cuda.syncthreads()
            if thread + half < num:
                for part in range(NUM_SUMS):
                    sums[part, thread] += sums[part, thread + half]
            num = half
        cuda.syncthreads()
        if thread < NUM_SUMS:
            cuda.atomic.add(words, thread if thread < 4 else 4 + num_features, sums[thread, 0])

    return cuda.jit(add_up, device=True)


@functools.cache
def compile_rows(dtype: str, threads: int) -> Any:
    """The first pass, for blocks of so many threads: each its own row of a tile, which all of them have read."""
    kind, add_up, sums_shape = np.dtype(dtype).type, compile_sums(threads), (NUM_SUMS, threads)
    tile_shape = threads, COLUMNS + 1  # threads that read down a column meet no bank twice

    def pass_rows(
        features: Any, signs: Any, offsets: Any, weights: Any, num_features: Any,
        smoothing: Any, is_squared: Any, words: Any, slack: Any, signed: Any,
    ) -> None:  # fmt: skip
        tile = cuda.shared.array(tile_shape, kind)
        w = cuda.shared.array(COLUMNS, kind)
        sums = cuda.shared.array(sums_shape, np.float64)
        thread, num_rows, at_w = cuda.threadIdx.x, signs.size, NUM_SUMS + num_features
        if cuda.blockIdx.x * threads >= num_rows:
            return
        for part in range(NUM_SUMS):
            sums[part, thread] = 0.0
        for first in range(cuda.blockIdx.x * threads, num_rows, cuda.gridDim.x * threads):
            rest, along = num_rows - first, kind(words[at_w + num_features])
            num = rest if rest < threads else threads
            for start in range(0, num_features, COLUMNS):
                rest = num_features - start
                width = rest if rest < COLUMNS else COLUMNS
                cuda.syncthreads()
                if thread < width:
                    w[thread] = words[at_w + start + thread]
                for place in range(thread, num * COLUMNS, threads):
                    row, column = place // COLUMNS, place % COLUMNS
                    if column < width:
                        tile[row, column] = features[(first + row) * num_features + start + column]
                cuda.syncthreads()
                if thread < num:
                    for column in range(width):
                        along += tile[thread, column] * w[column]
            if thread < num:
                row = first + thread
                slack[row] = offsets[row] - signs[row] * along
                z, weight = np.float64(slack[row]), np.float64(weights[row])
                over = z if z > 0.0 else 0.0
                if is_squared:
                    alpha, loss = kind(2.0 * weight * over), weight * over * over
                    sums[1, thread] += loss
                    sums[3, thread] += loss
                else:
                    slope = z / smoothing + 0.5
                    slope = 0.0 if slope < 0.0 else (1.0 if slope > 1.0 else slope)
                    alpha, loss = kind(weight * slope), weight * over
                    sums[1, thread] += np.float64(alpha) * (z + 0.5 * smoothing * (1.0 - slope))
                sums[0, thread] += loss
                sums[2, thread] += np.float64(alpha) * offsets[row]
                signed[row] = alpha * signs[row]
                sums[4, thread] += signed[row]
        add_up(sums, num_features, words)

    return cuda.jit(pass_rows)


@functools.cache
def compile_columns(threads: int) -> Any:
    """The second pass: each thread a column of every so many rows; as many rows at a time as there are threads for."""

    def pass_columns(features: Any, signed: Any, num_features: Any, width: Any, words: Any) -> None:
        sums = cuda.shared.array(threads, np.float64)
        thread, num_rows, num_lanes, total = cuda.threadIdx.x, signed.size, threads // width, 0.0
        lane, column = thread // width, cuda.blockIdx.y * width + thread % width
        if cuda.blockIdx.x * num_lanes >= num_rows:
            return
        if lane < num_lanes and column < num_features:
            for row in range(cuda.blockIdx.x * num_lanes + lane, num_rows, cuda.gridDim.x * num_lanes):
                total += signed[row] * features[row * num_features + column]
        sums[thread] = total
        cuda.syncthreads()
        if thread < width and column < num_features:
            for other in range(thread + width, num_lanes * width, width):
                total += sums[other]
            cuda.atomic.add(words, 4 + column, total)

    return cuda.jit(pass_columns)


def upload(arrays: Sequence[Array]) -> list[Any]:
    """Flat copies on the GPU. While one chunk is on its way from pinned memory, the next is brought there."""
    size = max(1, min(CHUNK, max(array.size for array in arrays)))
    lanes = [(cuda.stream(), cuda.pinned_array(size, arrays[0].dtype)) for _ in range(2)]
    copies = [cuda.device_array(array.size, array.dtype) for array in arrays]
    chunks = (
        (array.reshape(-1)[start : start + size], copy[start : start + size])
        for array, copy in zip(arrays, copies, strict=True)
        for start in range(0, array.size, size)
    )
    for number, (chunk, copy) in enumerate(chunks):
        stream, pinned = lanes[number % 2]
        stream.synchronize()
        pinned[: chunk.size] = chunk
        copy.copy_to_device(pinned[: chunk.size], stream=stream)
    for stream, _ in lanes:
        stream.synchronize()
    return copies


class CudaOracle(NumpyOracle):
    """The back end `cuda`. The few rows that are curved are seen to on the host. The first query compiles: some seconds.

    Args:
        threads_per_block: from 16 to 256.

    Raises:
        ValueError: another number of threads.
    """

    def __init__(self, rows: Rows, *, threads_per_block: int = 256) -> None:
        if not COLUMNS <= threads_per_block <= 256:  # a tile's weights need as many threads, its rows shared memory
            raise ValueError(f"threads_per_block={threads_per_block}: from {COLUMNS} to 256")
        self._slack: Array | None
        super().__init__(rows)
        self._threads = threads_per_block
        device, num, kind = load_cuda(), len(rows), rows.features.dtype
        self._words = device.device_array(4 + 2 * rows.num_weights, np.float64)  # the sums, and behind them w
        self._sums = self._words[: 4 + rows.num_weights]
        self._far_slack, self._signed = device.device_array(num, kind), device.device_array(num, kind)
        began = time.perf_counter()
        self._arrays = upload((rows.features, rows.signs, rows.offsets, rows.weights))
        self.transfer_s = time.perf_counter() - began

    @property
    def slack(self) -> Array:
        """z of the last query, (num_rows,); it comes from the GPU when first asked for."""
        if self._slack is None:
            self._slack = np.asarray(self._far_slack.copy_to_host())
        return self._slack

    @slack.setter
    def slack(self, slack: Array) -> None:
        self._slack = slack

    def query(self, w: Floats, smoothing: float) -> Sums:
        """The sums at w; `smoothing` is γ."""
        rows, threads = self.rows, self._threads
        num_features, num_blocks = rows.features.shape[1], SIMULATED_BLOCKS if is_simulated() else BLOCKS
        self._words.copy_to_device(np.concatenate([np.zeros(4 + len(w)), w]))
        if len(rows):
            words = (*self._arrays, num_features, float(smoothing), rows.loss != "hinge", self._words)
            compile_rows(rows.features.dtype.name, threads)[num_blocks, threads](*words, self._far_slack, self._signed)
        if len(rows) and num_features:
            width = min(num_features, threads, WIDTH)
            num_tiles = -(-num_features // width)
            grid = max(num_blocks // num_tiles, 1), num_tiles
            compile_columns(threads)[grid, threads](self._arrays[0], self._signed, num_features, width, self._words)
        self._slack = None
        return Sums.of(np.asarray(self._sums.copy_to_host()))
