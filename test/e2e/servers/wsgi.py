"""A WSGI application that notes each request that it has read whole, into the file named by NOTES."""
import json
import os


def application(environ, start_response):
    body = environ["wsgi.input"].read()
    target = environ.get("RAW_URI") or environ["REQUEST_URI"]
    if len(body) == int(environ.get("CONTENT_LENGTH") or len(body)):  # a server may call us before it has all
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(json.dumps([environ["REQUEST_METHOD"], target, body.hex()]) + "\n")
    answer = b"" if environ["REQUEST_METHOD"] == "HEAD" else b"ok"
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
