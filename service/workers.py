"""Several processes behind one socket, each a whole service: what a CPU with many cores needs."""

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess

from service.metrics_of_workers import share_metrics

_AGAIN_SECONDS = 1.0  # before a process that died is replaced, so that one that cannot live does not eat a core
logger = logging.getLogger("heatquery")

Target = Callable[[socket.socket, bool], None]
"""Serves on a socket; the flag says whether to greet. It must be a module's function, or a partial of one."""


class Workers:
    """Starts the processes, replaces those that die, and hands a stop signal on to all of them."""

    def __init__(self, target: Target, listener: socket.socket, number: int) -> None:
        self._target, self._listener, self._number = target, listener, number
        self._spawn = multiprocessing.get_context("spawn")  # a model's threads do not survive a fork
        self._processes: list[BaseProcess] = []
        self._stopping = False

    def run(self) -> None:
        """Return when all have ended after a stop signal."""
        with share_metrics():
            for stop in (signal.SIGTERM, signal.SIGINT):
                signal.signal(stop, self._stop)
            self._processes = [self._start(greet=number == 0) for number in range(self._number)]
            while any(process.is_alive() for process in self._processes) or not self._stopping:
                multiprocessing.connection.wait([process.sentinel for process in self._processes], timeout=1.0)
                self._replace_dead()

    def _start(self, greet: bool) -> BaseProcess:
        process = self._spawn.Process(target=self._target, args=(self._listener, greet), daemon=True)
        process.start()
        return process

    def _replace_dead(self) -> None:
        for index, process in enumerate(self._processes):
            if not (self._stopping or process.is_alive()):
                logger.error("a worker process ended with status %s; another takes its place", process.exitcode)
                time.sleep(_AGAIN_SECONDS)
                self._processes[index] = self._start(greet=False)

    def _stop(self, signum: int, _: object) -> None:
        self._stopping = True
        for process in self._processes:
            if process.pid is not None and process.is_alive():
                os.kill(process.pid, signum)
