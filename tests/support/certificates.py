"""Certificates for tests of TLS: a CA, and a server's and a client's that it signed, as PEM files."""

import subprocess


def write_certificates(folder):
    """Write ca.pem, server.pem, server.key, client.pem and client.key into a new folder."""
    folder.mkdir()

    def openssl(words):
        subprocess.run(["openssl", *words.split()], check=True, capture_output=True, cwd=folder)

    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca")
    for name in ("server", "client"):
        openssl(f"req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}")
        openssl(f"x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out {name}.pem")
        (folder / f"{name}.key").chmod(0o600)
    return folder
