"""An S3 server for tests, in memory: moto's, with one request at a time and a bucket already there.

One at a time, because moto looks for an object and writes it in two steps: two conditional puts of one name could both
succeed, which S3 never allows and the commit protocol relies on.

Usage: s3_server.py BUCKET REFUSED,LOST,SLOW HEALED. Prints the port it chose, then serves on 127.0.0.1 until it is killed.

Until the file HEALED exists, of a hundred requests REFUSED are answered with 503 and not carried out, LOST are carried out and answered
with 500, and each takes SLOW milliseconds longer. Which ones follows from their number. While the file HEALED.outage exists, all are answered with 503.
"""

import os
import random
import sys
import threading
import time

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class QuietHandler(WSGIRequestHandler):
    """No access log: what matters is asserted by the test."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


def one_at_a_time(app):
    lock = threading.Lock()

    def serve(environ, start_response):
        with lock:
            return [b"".join(app(environ, start_response))]

    return serve


def in_trouble(app, refused, lost, slow_ms, healed):
    chance = random.Random(1)
    lock = threading.Lock()

    def answer(start_response, status):
        body = f"<Error><Code>{status.split()[1]}</Code></Error>".encode()
        start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]

    def serve(environ, start_response):
        if os.path.exists(healed + ".outage"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return answer(start_response, "503 SlowDown")
        if os.path.exists(healed):
            return app(environ, start_response)
        with lock:
            drawn = chance.randrange(100)
        time.sleep(slow_ms / 1000)
        if drawn < refused:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            return answer(start_response, "503 SlowDown")
        if drawn < refused + lost:
            list(app(environ, lambda *_: None))
            return answer(start_response, "500 InternalError")
        return app(environ, start_response)

    return serve


def create_bucket(port, bucket):
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=bucket)


def main():
    bucket, faults, healed = sys.argv[1:]
    app = one_at_a_time(DomainDispatcherApplication(create_backend_app))
    app = in_trouble(app, *map(int, faults.split(",")), healed)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=QuietHandler)
    # moto signs its links with the port it reads here
    os.environ["MOTO_PORT"] = str(server.port)
    thread = threading.Thread(target=server.serve_forever, name="s3")
    thread.start()
    create_bucket(server.port, bucket)
    print(f"port {server.port}", flush=True)
    thread.join()


if __name__ == "__main__":
    main()
