"""The network between a client and the emulator: it can be cut, frozen, and restored."""

import asyncio
import contextlib


class Cable:
    def __init__(self, port: int) -> None:
        self._to = port
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._answers = asyncio.Event()
        self._answers.set()
        self.is_cut = False

    async def plug_in(self) -> str:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def unplug(self) -> None:
        self._server.close()
        self.cut()
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)

    def cut(self) -> None:
        """Every connection is reset, and none can be made."""
        self.is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Connections stay, and nothing gets through: the silent kind of network loss."""
        self._flowing.clear()

    def lose_answers(self) -> None:
        """What is asked gets through; what is answered does not."""
        self._answers.clear()

    def mend(self) -> None:
        self.is_cut = False
        self._flowing.set()
        self._answers.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers |= {writer, back}
        for source, sink, gates in (
            (reader, back, (self._flowing,)),
            (there, writer, (self._flowing, self._answers)),
        ):
            pipe = asyncio.create_task(self._pump(source, sink, gates))
            self._pipes.add(pipe)
            pipe.add_done_callback(self._pipes.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, gates: tuple[asyncio.Event, ...]
    ) -> None:
        with contextlib.suppress(OSError):
            while content := await source.read(65536):
                for gate in gates:
                    await gate.wait()
                sink.write(content)
                await sink.drain()
        self._writers.discard(sink)
        sink.close()
