"""An S3 server for tests, in memory: moto's, with one request at a time and a bucket already there.

One at a time, because moto looks for an object and writes it in two steps: two conditional puts of one name could both
succeed, which S3 never allows and the commit protocol relies on.

Usage: s3_server.py BUCKET. Prints the port it chose, then serves on 127.0.0.1 until it is killed.
"""

import os
import sys
import threading

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
    bucket = sys.argv[1]
    app = one_at_a_time(DomainDispatcherApplication(create_backend_app))
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
