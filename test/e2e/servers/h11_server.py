"""A server around h11, which notes each request that it has read whole: h11_server.py PORT FILE"""
import json
import socket
import sys

import h11


def note(file, request, body):
    with open(file, "a") as notes:
        notes.write(json.dumps([request.method.decode(), request.target.decode("latin-1"), body.hex()]) + "\n")


def serve(sock, file):
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=65536)
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(sock.recv(65536))
        elif isinstance(event, h11.Request):
            request, body = event, b""
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            note(file, request, body)
            answer = connection.send(h11.Response(status_code=200, headers=[("Content-Length", "2")]))
            if request.method != b"HEAD":
                answer += connection.send(h11.Data(data=b"ok"))
            sock.sendall(answer + connection.send(h11.EndOfMessage()))
            if connection.our_state is h11.MUST_CLOSE:
                return
            connection.start_next_cycle()
        else:  # closed
            return


with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as listener:
    while True:
        with listener.accept()[0] as accepted:
            try:
                serve(accepted, sys.argv[2])
            except h11.RemoteProtocolError as error:
                accepted.sendall(b"HTTP/1.1 %d No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" %
                                 error.error_status_hint)
            except OSError:
                pass
