"""Pages are run as notebooks, each in a kernel of its own, as many at a time as there are cores."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from docs.pages import Page, PageError, differences

# Every page starts from the same state of the random numbers; the reader sees no such cell.
_SEED = "__import__('gradlab').manual_seed(0)"

_ARGUMENTS = [
    f"--IPKernelApp.exec_lines={_SEED}",
    "--InlineBackend.figure_formats=svg",
    "--HistoryManager.enabled=False",
]

_AT_ONCE = 8  # at the most; each takes a few hundred megabytes
_SECONDS_PER_CELL = 120
_WIDGET = "application/vnd.jupyter.widget-view+json"
_ROOT = Path(__file__).parents[1]


def run_all(pages: list[Page]) -> list[PageError]:
    """Fill in the outputs of all pages; what is wrong with them is returned, for all at once."""
    return [each for each in asyncio.run(_run_all(pages)) if isinstance(each, PageError)]


async def _run_all(pages: list[Page]) -> list[Any]:
    from tqdm import tqdm

    turns = asyncio.Semaphore(min(os.cpu_count() or 1, _AT_ONCE))
    with tqdm(total=len(pages), desc="running the pages", unit="", disable=None) as bar:

        async def run(page: Page) -> PageError | None:
            async with turns:
                try:
                    await _run(page)
                    _check(page)
                except PageError as error:
                    return error
                finally:
                    bar.update()
            return None

        return await asyncio.gather(*map(run, pages))


async def _run(page: Page) -> None:
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    # Short, since the kernel's sockets lie there, whose names may have a hundred characters.
    with tempfile.TemporaryDirectory(prefix="notes") as folder:
        working = Path(folder, "page")  # pages write to ../data
        working.mkdir()
        kernel = AsyncKernelManager(
            # No folder with kernels is looked at: it is the one of the running Python.
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            connection_file=str(Path(folder, "kernel.json")),
            transport="ipc" if os.name == "posix" else "tcp",
        )
        client = NotebookClient(
            page.notebook, km=kernel, timeout=_SECONDS_PER_CELL, record_timing=False
        )
        client.reset_execution_trackers()
        # Not client.async_setup_kernel, which catches Ctrl-C and stops but one kernel then.
        try:
            await kernel.start_kernel(
                extra_arguments=_ARGUMENTS, env=_environment(folder), cwd=str(working)
            )
            await client.async_start_new_kernel_client()
            for index in page.lines:
                await _run_cell(client, page, index)
        finally:
            if client.kc is not None:
                client.kc.stop_channels()
            await kernel.shutdown_kernel(now=True)


async def _run_cell(client: Any, page: Page, index: int) -> None:
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    try:
        await client.async_execute_cell(page.notebook.cells[index], index)
    except CellExecutionError as error:
        text = re.sub(r"\x1b\[[\d;]*m", "", error.traceback)
        line = re.search(r"Cell In\[\d+\], line (\d+)", text)
        place = page.at(index, int(line[1]) if line else 1)
        raise PageError(f"{place}: {error.ename}: {error.evalue}") from None
    except (CellTimeoutError, DeadKernelError) as error:
        first = str(error).strip().splitlines()[0]
        raise PageError(f"{page.at(index)}: {type(error).__name__}: {first}") from None


def _environment(folder: str) -> dict[str, str]:
    """What the kernel is told: nothing of the user's own set-up, one core, and no GPU.

    The pages show what a machine without a GPU gives.
    """
    own = dict.fromkeys(("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), folder)
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
    return {
        **os.environ,
        **own,
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": path,
    }


def _check(page: Page) -> None:
    """Keep of the outputs what is to be read later, and compare them with those of the page."""
    for index in page.lines:
        cell = page.notebook.cells[index]
        cell.outputs = [output for output in cell.outputs if _is_kept(output)]
        if index in page.wanted:
            difference = differences(page.wanted[index], printed(cell))
            if difference is not None:
                raise PageError(f"{page.at(index)}: {difference}")


def _is_kept(output: Any) -> bool:
    """Whether it is more than the news of a run, such as a progress bar, for those who wait."""
    if output.output_type == "stream":
        return bool(output.name == "stdout")
    return _WIDGET not in output.data


def printed(cell: Any) -> str:
    """What a cell that has run gave as text: what it printed, and the value of its last line."""
    parts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            parts.append(output.text)
        elif output.output_type == "execute_result":
            parts.append(output.data["text/plain"] + "\n")
    return "".join(parts)
