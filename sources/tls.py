"""Certificates as people paste them, and TLS contexts made of them."""

from __future__ import annotations

import re
import ssl
import tempfile

from .errors import ConfigurationError

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def pem(text: str) -> str:
    """Repair certificates or keys whose line breaks were lost on the way. Returns nothing if there is none in the text."""
    blocks = ((kind, "\n".join(body.split())) for kind, body in _BLOCK.findall(text))
    return "".join(f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----\n" for kind, body in blocks)


def verifying_context(ca: str = "") -> ssl.SSLContext:
    """Make a context that checks the server's name and certificate, trusting `ca` beside the system's authorities.

    Raises `ConfigurationError` if the text is no certificate.
    """
    context = ssl.create_default_context()
    if ca.strip():
        try:
            context.load_verify_locations(cadata=pem(ca))
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                "The text in the certificate setting is no PEM certificate. "
                "Paste it whole, from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----."
            ) from error
    return context


def client_context(ca: str = "", *, certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Make a verifying context that also presents a client certificate, if one is given. Blocking for a moment.

    Raises `ConfigurationError` if a text is no certificate or key, or the two do not belong together.
    """
    context = verifying_context(ca)
    if certificate.strip():
        # The library reads only files: one that only we can read, gone as soon as it has been read.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(pem(certificate) + pem(key))
            file.flush()
            try:
                context.load_cert_chain(file.name)
            except (ssl.SSLError, OSError) as error:
                raise ConfigurationError(
                    "The client certificate and key cannot be used together. Paste both whole, with their BEGIN and END lines."
                ) from error
    return context
