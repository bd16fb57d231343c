"""A server on many addresses: many.py PORT FIRST N. It listens on N addresses from FIRST on; GET / says 200, for an
address that GET /fail?ADDRESS,ADDRESS,... named last, 500."""
import asyncio
import ipaddress
import resource
import sys

failing = set()


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.received = b""

    def data_received(self, data):
        self.received += data
        if b"\r\n\r\n" not in self.received:
            return
        target = self.received.decode("latin-1").split(" ")[1]
        if target.startswith("/fail?"):
            failing.clear()
            failing.update(target.removeprefix("/fail?").split(","))
        bad = self.transport.get_extra_info("sockname")[0] in failing
        self.transport.write(b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                             % (b"500 Failing" if bad else b"200 OK"))
        self.transport.close()


async def main(port, first, n):
    first = ipaddress.ip_address(first)
    server = await asyncio.get_running_loop().create_server(Connection, [str(first + i) for i in range(n)], port)
    print("listens", flush=True)
    await server.serve_forever()


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
