"""Recipe, row 10: a higher-level module on top, `xmlrpc.server`.

Run it:  moorage run 10_xmlrpc_server.py [PORT]
"""

import sys
from xmlrpc.server import SimpleXMLRPCServer


def add(x, y):
    return x + y


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    server = SimpleXMLRPCServer(("127.0.0.1", port))
    server.register_function(add)
    print("serving on %s:%d" % server.server_address, flush=True)
    server.serve_forever()
