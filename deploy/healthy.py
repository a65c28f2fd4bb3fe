"""Does a worker answer? The image's health check; nothing that an image would have to bring along for it."""

import os
import sys
from http.client import HTTPConnection

server = HTTPConnection("127.0.0.1", int(os.environ["GRANIAN_PORT"]), timeout=4)
server.request("GET", "/healthz")
sys.exit(server.getresponse().status != 200)
